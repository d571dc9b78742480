"""A stream may go on for ever: a second of audio costs what it did at first, and late words are as right as early ones."""

import dataclasses
import gc
import statistics
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reallm.bundle import load_shared, published
from reallm.data.corpora.fsdd import DIGITS
from reallm.decoders.llama import LlamaState
from reallm.streaming.engine import Engine
from reallm.streaming.listener import Listener
from reallm.streaming.recognizer import Recognizer
from reallm.streaming.resampler import Audio
from reallm.streaming.state import StreamingState
from reallm.types import Hypothesis, Seconds
from tests.dummies.engine_systems import SYSTEMS, noise, talkative_system

RATE = 8000
AGE: Seconds = 10 * 3600.0
TOKENS = 40_000  # of the words of so long a time


class Work(TorchDispatchMode):
    """Counts operators and the bytes of what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.operators[str(func)] += 1
        self.bytes += sum(one.nbytes for one in tree_leaves(found) if isinstance(one, Tensor))
        return found


def recognizer_stream(system: Any) -> Callable[[Audio], object]:
    stream = Recognizer(system).stream()

    def hear(audio: Audio) -> object:
        stream.accept_waveform(audio, RATE)
        return stream.result()

    return hear


def engine_stream(system: Any) -> Callable[[Audio], object]:
    engine = Engine(system, slots=2)
    stream = engine.stream()

    def hear(audio: Audio) -> object:
        stream.push(audio, RATE)
        return engine.decode()

    return hear


ALONE = [which for which in SYSTEMS if which != "speech_reallm ahead"]  # whose operators hang on what is said


@pytest.mark.parametrize(
    ("which", "how"), [(which, recognizer_stream) for which in ALONE] + [("speech_reallm", engine_stream), ("ctc", engine_stream)]
)
def test_operators_and_bytes_of_a_second_do_not_grow(which: str, how: Callable[[Any], Callable[[Audio], object]]) -> None:
    system = talkative_system(which)
    hear, chunk = how(system), noise(1, system.chunk_samples)
    costs = []
    for before in (24, 10):  # chunks: longer than any window, left context or queue
        hear(np.tile(chunk, before))
        with Work() as work:
            hear(np.tile(chunk, 4))
        costs.append((work.operators, work.bytes))
    (early, early_bytes), (late, late_bytes) = costs
    assert sum(early.values()) > 1000
    assert abs(sum(late.values()) - sum(early.values())) <= 0.02 * sum(early.values()), late - early
    assert abs(late_bytes - early_bytes) <= 0.02 * early_bytes


def turned(keys: Tensor, positions: int) -> Tensor:
    """Rotated keys (…, E) as they are so many positions later: RoPE as complex numbers (Su et al. 2021, section 3.2.1), in float64."""
    a, b = keys.double().chunk(2, dim=-1)
    angles = positions * 10000.0 ** (-torch.arange(a.size(-1), dtype=torch.float64) / a.size(-1))
    later = torch.complex(a, b) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([later.real, later.imag], dim=-1).to(keys.dtype)


def grow_old(state: Any, frames: int, positions: int) -> None:
    """Make a state, in place, that of a stream which has gone on for so many frames and decoder positions, and hears the same again."""
    for field in dataclasses.fields(state):
        value = getattr(state, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, StreamingState):
                grow_old(part, frames, positions)
        if field.name == "position":
            setattr(state, field.name, value + positions)
        elif field.name in ("frame", "frames") and value.dtype == torch.int64:
            setattr(state, field.name, torch.where(value >= 0, value + frames, value))
    if isinstance(state, LlamaState):
        state.keys = tuple(turned(keys, positions) for keys in state.keys)


@torch.inference_mode()
def make_old(system: Any, state: Any, listener: Listener) -> int:
    """What ten hours make of a stream; how many frames they are."""
    frames = round(AGE * system.sample_rate / system.period_samples)
    window = getattr(getattr(system, "decoder", None), "window", 1)
    grow_old(state, frames, (frames + TOKENS) // window * window)  # a key stays in its slot of the ring
    said = system.tokenizer.encode("six seven")
    for number in range(TOKENS):
        at = number / TOKENS * AGE
        listener._transcript.append(said[number % len(said)], -0.1, at, at, at)
    return frames


class Cost(NamedTuple):
    """Of one chunk."""

    operators: Counter[str]
    bytes: int  # of what they return
    calls: int  # of functions, Python's and C's
    memory: int  # bytes, the most that Python's objects took beyond what they did before


def cost(hear: Callable[[Audio], object], chunk: Audio) -> Cost:
    calls = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event.endswith("call")

    gc.collect()
    gc.disable()
    tracemalloc.start()
    with Work() as work:
        before = tracemalloc.get_traced_memory()[0]
        sys.setprofile(count)
        try:
            hear(chunk)
        finally:
            sys.setprofile(None)
            memory = tracemalloc.get_traced_memory()[1] - before
            tracemalloc.stop()
            gc.enable()
    return Cost(work.operators, work.bytes, calls, memory)


def of_recognizer(system: Any) -> tuple[Callable[[Audio], Hypothesis], Callable[[], object]]:
    """A stream, and what makes it old."""
    recognizer = Recognizer(system)
    stream = recognizer.stream()

    def hear(audio: Audio) -> Hypothesis:
        stream.accept_waveform(audio, RATE)
        return stream.result()

    def grow() -> None:
        samples = make_old(system, recognizer._state, stream._listener) * system.period_samples
        stream._queued += samples
        stream._intake.samples += samples

    return hear, grow


def of_engine(system: Any) -> tuple[Callable[[Audio], Hypothesis], Callable[[], object]]:
    """Likewise."""
    engine = Engine(system, slots=2)
    stream = engine.stream()

    def hear(audio: Audio) -> Hypothesis:
        stream.push(audio, RATE)
        engine.decode()
        return stream.result()

    return hear, lambda: make_old(system, engine._groups[0].batch.state, stream._listener)


@pytest.mark.parametrize(("which", "how"), [(which, of_recognizer) for which in SYSTEMS] + [("speech_reallm", of_engine)])
def test_after_ten_hours_a_chunk_costs_and_says_what_it_did_at_first(which: str, how: Callable[[Any], Any]) -> None:
    system = talkative_system(which).double()  # what old keys have lost in being turned is nothing then
    (young, _), (old, grow) = how(system), how(system)
    size, audio = system.chunk_samples, noise(1, 19 * system.chunk_samples)
    for hear in (young, old):
        with Work():  # what is imported at a first operator that is counted costs no chunk
            hear(audio[: 16 * size])  # longer than any window, left context or queue
    said = len(young(audio[:0]).token_ids)
    grow()
    chunks = [audio[at : at + size] for at in range(16 * size, len(audio), size)]
    costs = [(cost(young, chunk), cost(old, chunk)) for chunk in chunks]
    first, late = (hear(audio[:0]).token_ids for hear in (young, old))
    assert len(late) == TOKENS + len(first) and (len(first) > said or which == "ctc"), "of noise CTC makes one long token"
    assert late[TOKENS + said :] == first[said:]
    for of_young, of_old in costs:
        assert of_old.operators == of_young.operators and of_old.bytes == of_young.bytes
    # A few calls hang on which texts a beam holds; one for each token would be 40,000.
    assert abs(statistics.median(of_old.calls - of_young.calls for of_young, of_old in costs)) < 100
    # A copy of the tokens alone would be 320,000 bytes at each chunk.
    assert abs(statistics.median(of_old.memory - of_young.memory for of_young, of_old in costs)) < 20_000


def spoken_digits(folder: Path) -> tuple[Audio, list[str]]:
    """Recordings of a corpus's test part, with pauses, and what they say."""
    pieces, words, silence = [], [], np.zeros(RATE // 4, dtype=np.float32)
    for number in range(20):
        speaker = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")[number % 6]
        audio, rate = soundfile.read(folder / f"{number % 10}_{speaker}_{number % 5}.wav", dtype="float32")
        assert rate == RATE
        pieces += [audio, silence]
        words.append(DIGITS[number % 10])
    return np.concatenate(pieces), words


def test_the_digits_are_right_after_ten_hours(real_data: Path) -> None:
    if not (real_data / "fsdd").is_dir():
        pytest.skip(f"no fsdd in {real_data}")
    system: Any = load_shared(published())
    (young, _), (old, grow) = of_recognizer(system), of_recognizer(system)
    audio, words = spoken_digits(real_data / "fsdd/recordings")
    hours = np.concatenate([audio, np.zeros(-len(audio) % RATE, dtype=np.float32)])
    for hear in (young, old):
        assert [word.word for word in hear(hours).words] == words
    grow()
    first, late = (hear(audio).words[-len(words) :] for hear in (young, old))
    assert [word.word for word in first] == [word.word for word in late] == words
    for early_word, late_word in zip(first, late, strict=True):
        assert late_word.start - early_word.start == pytest.approx(AGE, abs=1e-6)
        assert late_word.emitted_at - early_word.emitted_at == pytest.approx(AGE, abs=1e-6)
        # Angles in float32 would be 7e-4 off here.
        assert late_word.confidence == pytest.approx(early_word.confidence, abs=1e-5)
