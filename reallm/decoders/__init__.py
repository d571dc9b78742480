"""Decoder-only language models. One file, one decoder."""
