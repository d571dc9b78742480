"""Features to encoder frames. One file, one encoder."""
