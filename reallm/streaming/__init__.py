"""Streaming states, window geometry, the recognizer that users hold."""
