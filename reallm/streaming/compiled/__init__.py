"""Streaming on a processor by kernels that are compiled where they run: one stream or a few, on one core, in float32 or with int8 weights.

    from reallm.streaming.compiled.system import with_compiled_layers

    recognizer = Recognizer(with_compiled_layers(load("exp/bundle")))

Two things take the time of a small step on a processor: what torch needs to start an operator, thousands of times a chunk, and products of
a matrix and a few rows, which it computes with a half or a third of the memory's bandwidth. Here one call computes all layers of a
Conformer for one chunk (conformer.py), or of a Llama decoder for the next position, or some (llama.py), and the weights of all linear
layers are packed in the order in which they are read (linear.py). What else a system does stays as it is, and so do its streaming states
and its results, up to the order in which float32 numbers are summed. kernels.cpp is built by the machine's own C++ compiler at its first
use, in some seconds, and kept (library.py).
"""
