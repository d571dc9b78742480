"""CTC forced alignment with k2; also the program of the worker process, for an interpreter that has k2.

k2 is compiled against one exact torch, which is seldom the one that trains. So this file imports no more than numpy,
torch and k2, runs on Python 3.8 and torch 1.13, and talks raw arrays (two numpy versions do not read each other's pickles).

Protocol, little endian, on stdin and stdout::

    worker   ready:    MAGIC  0  bytes  "VERSION OF K2+torchVERSION OF TORCH"
    parent   request:  MAGIC  B  N  V  U_total  log_probs f32 (B, N, V)  lens i64 (B,)  tokens i64 (U_total,)  token_lens i64 (B,)
    worker   answer:   MAGIC  status  bytes  labels i64 (B, N) (status 0) or an error's message in UTF-8 (status 1)

All numbers of a header are int64. The worker ends when its stdin does.
"""

import contextlib
import os
import struct
import sys

import numpy as np
import torch

MAGIC = b"REALLMK2"
REQUEST = struct.Struct("<8sqqqq")
ANSWER = struct.Struct("<8sqq")
EXACT = 1e10  # a beam wider than any two sums of scores are apart, so that nothing is pruned
MOST_STATES = 1 << 30  # with more states than this, k2 would prune after all


def k2_version():
    """Version of k2 and of the torch that it runs on."""
    import k2.version.version

    return f"{k2.version.version.__version__}+torch{torch.__version__.split('+')[0]}"


def k2_labels(log_probs, lens, tokens, token_lens):
    """The best CTC path of each utterance, searched by k2 in float32 with totals in float64.

    Args:
        log_probs: (B, N, V) float32 array, blank last.
        lens: (B,) int64 array of frames, at least as many as the tokens need.
        tokens: (sum of token_lens,) int64 array, the utterances' tokens one after the other.
        token_lens: (B,) int64 array.

    Returns:
        labels (B, N) int64 array, -1 from each row's length on, and everywhere in a row without a path.
    """
    import k2

    rows, size, vocabulary = log_probs.shape
    # DenseFsaVec wants longest first; k2's blank is label 0, ours the last.
    order = np.argsort(-lens, kind="stable")
    scores = torch.from_numpy(np.roll(log_probs, 1, axis=2)[order])
    segments = torch.from_numpy(np.stack([np.arange(rows), np.zeros(rows, np.int64), lens[order]], axis=1)).to(torch.int32)
    starts = np.concatenate([[0], np.cumsum(token_lens)])
    texts = [(tokens[starts[row] : starts[row + 1]] + 1).tolist() for row in order]
    lattice = k2.intersect_dense(k2.ctc_graph(texts), k2.DenseFsaVec(scores, segments), EXACT, max_states=MOST_STATES)
    best = k2.shortest_path(lattice, use_double_scores=True)

    shape = best.arcs.shape()
    arcs = shape.row_splits(2)[shape.row_splits(1).long()].numpy().astype(np.int64)
    labels = best.labels.numpy().astype(np.int64)
    counts = np.diff(arcs) - 1  # the last arc of a path ends it and has no frame
    has_path = counts == lens[order]
    row = np.repeat(np.arange(rows), np.diff(arcs))
    frame = np.arange(len(labels)) - np.repeat(arcs[:-1], np.diff(arcs))
    kept = has_path[row] & (frame < counts[row])
    found = np.full((rows, size), -1, np.int64)
    found[order[row[kept]], frame[kept]] = (labels[kept] - 1) % vocabulary
    return found


def _read(stream, size):
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _array(stream, dtype, *shape):
    count = int(np.prod(shape))
    return np.frombuffer(_read(stream, count * np.dtype(dtype).itemsize), dtype).reshape(shape)


def _answer(stream, status, payload):
    stream.write(ANSWER.pack(MAGIC, status, len(payload)))
    stream.write(payload)
    stream.flush()


def serve(source, sink):
    """Answer requests until ``source`` ends."""
    _answer(sink, 0, k2_version().encode())
    while True:
        header = source.read(REQUEST.size)
        if not header:
            return
        magic, rows, size, vocabulary, count = REQUEST.unpack(header)
        assert magic == MAGIC, magic
        log_probs = _array(source, "<f4", rows, size, vocabulary)
        lens = _array(source, "<i8", rows)
        tokens = _array(source, "<i8", count)
        token_lens = _array(source, "<i8", rows)
        try:
            status, payload = 0, k2_labels(log_probs, lens, tokens, token_lens).astype("<i8").tobytes()
        except Exception as error:
            status, payload = 1, f"{type(error).__name__}: {error}".encode()
        _answer(sink, status, payload)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(sys.stdin.buffer, answers)
