"""reallm: streaming speech recognition with decoder-only language models (Speech ReaLLM, arXiv 2406.09569).

What answers need not be speech: ``reallm.systems.reallm.ReaLLM`` is the general model, over any stream of embeddings, with any tokens.
"""

__version__ = "0.1.0"
