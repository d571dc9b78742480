"""reallm: streaming speech recognition with decoder-only language models (Speech ReaLLM, arXiv 2406.09569)."""

__version__ = "0.1.0"
