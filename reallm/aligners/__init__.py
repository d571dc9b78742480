"""Scores and a transcript to token times. One file, one aligner."""
