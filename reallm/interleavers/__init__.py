"""Speech embeddings and text to one sequence of decoder positions. One file, one interleaver."""
