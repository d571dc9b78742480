"""Encoder frames to speech embeddings. One file, one adapter."""
