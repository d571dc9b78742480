"""Waveform to features. One file, one frontend."""
