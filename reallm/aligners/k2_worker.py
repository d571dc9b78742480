"""CTC and RNN-T forced alignment with k2; also the program of the worker process, for an interpreter that has k2.

k2 is compiled against one exact torch, which is seldom the one that trains. So this file imports no more than numpy,
torch and k2, runs on Python 3.8 and torch 1.13, and talks raw arrays (two numpy versions do not read each other's pickles).

Protocol, little endian, on stdin and stdout::

    worker   ready:    MAGIC  0  bytes  "VERSION OF K2+torchVERSION OF TORCH"
    parent   request:  MAGIC  name of a method  number of arrays; of each: dtype  dimensions  shape  data
    worker   answer:   MAGIC  status  bytes  i64 data of an array (status 0) or an error's message in UTF-8 (status 1)

A method is 16 bytes, a dtype 8, filled up with zeros; all numbers of a header are int64. The worker ends when its stdin does.
"""

import contextlib
import os
import struct
import sys

import numpy as np
import torch

MAGIC = b"REALLMK2"
REQUEST = struct.Struct("<8s16sq")
ARRAY = struct.Struct("<8sq")
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

    arcs, labels = _paths(best)
    counts = np.diff(arcs) - 1  # the last arc has no frame
    has_path = counts == lens[order]
    row = np.repeat(np.arange(rows), np.diff(arcs))
    frame = np.arange(len(labels)) - np.repeat(arcs[:-1], np.diff(arcs))
    kept = has_path[row] & (frame < counts[row])
    found = np.full((rows, size), -1, np.int64)
    found[order[row[kept]], frame[kept]] = (labels[kept] - 1) % vocabulary
    return found


def k2_emissions(blank, token, lens, token_lens):
    """The best path of each utterance through its RNN-T lattice, searched by k2 in float32 with totals in float64.

    Args:
        blank: (B, N, U + 1) float32 array of log-probabilities of BLANK.
        token: (B, N, U) float32 array, of the next token.
        lens: (B,) int64 array of frames, at least 1.
        token_lens: (B,) int64 array.

    Returns:
        frames (B, U) int64 array: in which each token is said; -1 from each row's last token on, and everywhere in a row without a path.
    """
    import k2

    rows, _, most = token.shape
    lattices = [_lattice(blank[b, : lens[b], : token_lens[b] + 1], token[b, : lens[b], : token_lens[b]]) for b in range(rows)]
    best = k2.shortest_path(k2.create_fsa_vec(lattices), use_double_scores=True)

    arcs, labels = _paths(best)
    row = np.repeat(np.arange(rows), np.diff(arcs))
    behind = np.concatenate([[0], np.cumsum(labels == 0)])  # BLANKs before each arc, and each ends a frame
    said = labels > 0
    frames = np.full((rows, most), -1, np.int64)
    frames[row[said], labels[said] - 1] = behind[:-1][said] - behind[arcs[:-1]][row[said]]
    return frames


def _lattice(blank, token):
    """The lattice of one utterance as an FSA: state t (U + 1) + u, label 0 for BLANK and u for the u-th token."""
    import k2

    size, states = blank.shape
    cells = np.arange(size * states).reshape(size, states)
    ends = [
        (cells[:-1], states, np.zeros_like(cells[:-1]), blank[:-1]),
        (cells[:, :-1], 1, np.broadcast_to(np.arange(1, states), token.shape), token),
        (cells[-1:, -1:], 1, np.full((1, 1), -1), blank[-1:, -1:]),
    ]
    columns = [
        np.stack([source, source + step, label, np.ascontiguousarray(score, np.float32).view(np.int32)], axis=-1).reshape(-1, 4)
        for source, step, label, score in ends
    ]
    arcs = np.concatenate(columns)
    return k2.Fsa(torch.from_numpy(arcs[np.argsort(arcs[:, 0], kind="stable")].astype(np.int32)))


def _paths(best):
    """Of linear FSAs: where the arcs of each begin, and where the last ones end; and their labels. The last arc of a path ends it."""
    shape = best.arcs.shape()
    arcs = shape.row_splits(2)[shape.row_splits(1).long()].numpy().astype(np.int64)
    return arcs, best.labels.numpy().astype(np.int64)


METHODS = {"labels": k2_labels, "emissions": k2_emissions}


def _read(stream, size):
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _array(stream):
    dtype, dimensions = ARRAY.unpack(_read(stream, ARRAY.size))
    shape = np.frombuffer(_read(stream, 8 * dimensions), "<i8")
    dtype = np.dtype(dtype.rstrip(b"\0").decode())
    return np.frombuffer(_read(stream, int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape)


def write_request(stream, method, arrays):
    """Ask for one of METHODS, given float32 and int64 arrays."""
    stream.write(REQUEST.pack(MAGIC, method.encode(), len(arrays)))
    for array in arrays:
        dtype = "<f4" if array.dtype.kind == "f" else "<i8"
        stream.write(ARRAY.pack(dtype.encode(), array.ndim))
        stream.write(np.array(array.shape, "<i8").tobytes())
        stream.write(np.ascontiguousarray(array, dtype).data)
    stream.flush()


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
        magic, method, count = REQUEST.unpack(header)
        assert magic == MAGIC, magic
        arrays = [_array(source) for _ in range(count)]
        try:
            status, payload = 0, METHODS[method.rstrip(b"\0").decode()](*arrays).astype("<i8").tobytes()
        except Exception as error:
            status, payload = 1, f"{type(error).__name__}: {error}".encode()
        _answer(sink, status, payload)


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get among the answers
    torch.set_num_threads(1)
    with contextlib.suppress(EOFError, BrokenPipeError):
        serve(sys.stdin.buffer, answers)
