"""Decoder scores to text, in real time. One file, one searcher."""
