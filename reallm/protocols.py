"""The contracts between components. Legend of letters: reallm/types.py.

Rules that hold for every ``step``:

- It takes one chunk of a **fixed size**. ``lens`` (B,) says how many items of the chunk are valid in each row: 0 = this
  row has nothing now and keeps its state; a multiple of the component's stride, at most the chunk (an encoder: the
  whole chunk); only a row whose ``final`` (B,) bool is true may give any number (0 too): it is flushed, and must be
  reset before it is used again.
- The state goes in and comes out; ``step`` may write into the buffers it was given.
- It returns as many outputs as the chunk can bring out at most, of which ``lens`` (B,) are valid, first ones first.
- ``forward`` is the parallel training pass. It never calls ``step``; the two agree to 1e-9 in float64.
- No Python loop over rows, frames or tokens.

Components with parameters are ``torch.nn.Module``; every component has a class method ``tiny()`` that builds a small
real one: at least two layers, a window shorter than the test input, look-ahead > 0 where the component has one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, cast, runtime_checkable

import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState
from reallm.types import Alignment, Batch, Emission, Interleaved, Seconds


@dataclass(frozen=True)
class ChunkSpec:
    """What one streaming chunk of an encoder sees, in encoder frames.

    Frame n of a chunk attends to ``left`` frames before the chunk, the chunk, and ``right`` frames after it.
    """

    size: int
    left: int
    right: int = 0

    def __post_init__(self) -> None:
        if self.size < 1 or self.left < 0 or not 0 <= self.right <= self.size:
            raise ValueError(f"{self}: needs size >= 1, left >= 0 and 0 <= right <= size")


@runtime_checkable
class Frontend(Protocol):
    """Waveform to features, without look-ahead: frame t ends with sample (t + 1) · frame_shift.

    S samples give ceil(S / frame_shift) frames, the last one zero-padded; a full chunk of S_c samples, a multiple of
    ``frame_shift``, gives S_c / frame_shift frames at once.
    """

    sample_rate: int
    frame_shift: int  # samples
    output_dim: int  # F
    geometry: Geometry

    def forward(self, wav: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """wav (B, S), lens (B,) samples → feats (B, T, F), lens (B,) frames."""

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The state of ``batch`` new streams."""

    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """wav (B, S_c) → feats (B, T_c, F), lens (B,), state."""


@runtime_checkable
class Encoder(Protocol):
    """Features to encoder frames: N = ceil(T / geometry.stride)."""

    input_dim: int  # F
    output_dim: int  # D
    chunk: ChunkSpec  # of streaming: step takes chunk.size · geometry.stride feature frames; may be set between streams
    geometry: Geometry  # with the look-ahead of ``chunk``, in feature frames: (size - 1 + right) · stride at most

    def forward(self, feats: Tensor, lens: Tensor, chunk: ChunkSpec | None = None) -> tuple[Tensor, Tensor]:
        """feats (B, T, F) → enc (B, N, D), lens (B,). ``chunk`` None = full context; an encoder that is causal by nature ignores it."""

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The state of ``batch`` new streams."""

    def step(self, feats: Tensor, lens: Tensor, final: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """feats (B, T_c, F) → enc (B, N_c, D), lens (B,), state. Equals ``forward(feats, lens, self.chunk)``."""


@runtime_checkable
class Adapter(Protocol):
    """Encoder frames to speech embeddings: M = ceil(N / stride). Zero padding after the end."""

    input_dim: int  # D
    output_dim: int  # D_lm
    stride: int
    geometry: Geometry

    def forward(self, enc: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        """enc (B, N, D) → embeddings (B, M, D_lm), lens (B,)."""

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The state of ``batch`` new streams."""

    def step(self, enc: Tensor, lens: Tensor, final: Tensor, state: Any) -> tuple[Tensor, Tensor, Any]:
        """enc (B, N_c, D) → embeddings (B, M_c, D_lm), lens (B,), state."""


@dataclass(frozen=True)
class AlignmentFailure:
    """Why an utterance could not be aligned."""

    reason: str


@runtime_checkable
class Aligner(Protocol):
    """When each token was spoken.

    One that needs a teacher's scores names the teacher's method that gives them in an attribute ``scores``, such as "log_probs".
    """

    def align(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[Alignment | AlignmentFailure]:
        """One alignment an utterance: ``token_ids[b]`` (U_b,) int64; ``teacher`` is the trained system whose scores are used, or None."""


@dataclass
class PolicyState(StreamingState):
    """What the next decoder position of each row takes in."""

    token_ids: Tensor  # (B,) int64, the token to feed; -1 = none
    wants_audio: Tensor  # (B,) bool, the next speech embedding is fed (added to the token, if both)


@runtime_checkable
class Interleaver(Protocol):
    """One policy, twice: how training sequences are laid out, and what the next input is at run time.

    One that feeds BLANK to the decoder has an attribute ``feeds_blank``, which is True.
    "Speech embeddings" are the inputs of a stream here and in a searcher: they may be embeddings of anything (systems.reallm.ReaLLM).
    """

    blank_id: int
    response_every: int  # k: only every k-th speech embedding is answered; streams are flushed to a multiple of it

    def build(self, alignments: Sequence[Alignment], speech_lens: Tensor, delay: Tensor, period_samples: int) -> Interleaved:
        """The training sequences of B utterances.

        Args:
            alignments: B alignments, cut-relative.
            speech_lens: (B,) speech embeddings of each utterance, its flush included.
            delay: (B,) int64, token periods between the end of a token and the speech embedding that it answers.
            period_samples: samples per speech embedding.

        Raises InputError when a token is due after the last speech embedding: the audio must be lengthened first.
        """

    def init_policy(self, batch: int, device: torch.device | str = "cpu") -> PolicyState:
        """The policy's state for new streams: what the first position takes in."""

    def advance(self, output: Tensor, active: Tensor, policy: Any) -> tuple[Tensor, Any]:
        """After the decoder answered ``output`` (B,) in the rows that are ``active`` (B,) bool.

        Returns text (B,) bool, true where the output is a token of the transcript, and the policy's next state.
        """

    def due(self, frame: Tensor, durations: Tensor) -> Tensor:
        """When tokens were due, as far as their answers tell: in speech embeddings, which may be fractions, and never after ``frame``.

        Args:
            frame: (…, K) int64, the speech embedding that each of a stream's next K tokens answers.
            durations: (…, K) float64, token periods that each lasts, as a rule.
        """


@runtime_checkable
class Decoder(Protocol):
    """A decoder-only language model over a stream of input embeddings.

    One whose streams cannot go on for ever has an attribute ``capacity``, the most positions of a stream (0 = any number), and, where
    another setting gives no room, ``more_room``: what does, as advice. One that cannot embed BLANK, its last id, has an attribute
    ``reads_blank``, which is False. One that knows which tokenizer its weights were trained with has its ``tokenizer_fingerprint``.
    """

    input_dim: int  # D_lm
    vocab_size: int  # V, BLANK included

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D_lm)."""

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D_lm), lens (B,) → logits (B, L, V)."""

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The state of ``batch`` new streams."""

    def step(self, inputs: Tensor, active: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One position of each active row: inputs (B, D_lm), active (B,) bool → logits (B, V), state. Rows may be of any age."""


@runtime_checkable
class Predictor(Protocol):
    """The prediction network of a transducer: a recurrent model of the labels, to which the start of a stream is one more."""

    input_dim: int  # of label embeddings
    output_dim: int  # of predictions
    vocab_size: int  # V, BLANK included: its embedding is fed at the start of a stream, and never again

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D)."""

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D), lens (B,) → predictions (B, L, D_p): each of the labels up to its own."""

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The state of ``batch`` new streams."""

    def step(self, inputs: Tensor, active: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One label of each active row: inputs (B, D), active (B,) bool → predictions (B, D_p), state. Rows may be of any age."""


@dataclass(frozen=True)
class ResponseModel:
    """What a searcher searches with."""

    decoder: Decoder
    interleaver: Interleaver

    @property
    def capacity(self) -> int:
        """The most decoder positions of a stream; 0 = any number. A searcher ends the rows that need more (Emission.exhausted)."""
        return int(getattr(self.decoder, "capacity", 0))


@runtime_checkable
class Searcher(Protocol):
    """The inputs of a stream, speech embeddings or others, to tokens. Its primitive is one decoder position for all rows.

    One whose ``step`` does the same work whatever the numbers are, and lets the host look at none of them on an accelerator, has an
    attribute ``is_static`` that is true: there its steps are captured. See ``GreedySearcher.is_static``, and reallm/streaming/host.py.
    """

    def init_state(
        self, model: ResponseModel, batch: int, capacity: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StreamingState:
        """The state of ``batch`` new streams, which hold at most ``capacity`` pending speech embeddings a row."""

    def step(self, model: ResponseModel, embeddings: Tensor, lens: Tensor, final: Tensor, state: Any) -> tuple[Emission, Any]:
        """embeddings (B, M_c, D_lm) → the tokens that they brought out, and the state. A final row holds nothing back.

        A search that answers a bounded number of positions in a step says which rows are not done, a final one among them, in
        ``Emission.pending``, and goes on with them in the next step; see ``to_the_end``.
        """


def more_room(decoder: Any) -> str:
    """What to do, beside making it shorter, about a stream that is longer than the decoder has room for."""
    return str(getattr(decoder, "more_room", None) or "raise the capacity or give the decoder a window")


def require_reads_blank(decoder: Decoder, who: str) -> None:
    """Raises InputError for a decoder that cannot embed BLANK, which ``who`` feeds to it. The only place that decides it."""
    if not getattr(decoder, "reads_blank", True):
        name = getattr(decoder, "component_name", type(decoder).__name__)
        raise InputError(f"{who} feeds BLANK, and decoder '{name}' has no input row for it: set its blank_input to true")


def to_the_end(searcher: Searcher) -> Searcher:
    """The same search, none of whose rows goes on in the next step: for whole utterances. It has states of its own."""
    unbounded: Any = getattr(searcher, "unbounded", None)
    return searcher if unbounded is None else cast(Searcher, unbounded())


@dataclass(frozen=True)
class TextState:
    """Where an incremental decoding stands."""

    started: bool = False  # some text came out
    pending: bytes = b""  # of a character that is not complete


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back. Ids are 0 … vocab_size - 1; BLANK is not among them: systems put it at vocab_size."""

    vocab_size: int
    fingerprint: str  # equal for equal vocabularies: stored with alignments
    special_ids: dict[str, int]  # by name, such as "unk"

    def encode(self, text: str) -> list[int]:
        """The token ids. Raises InputError that names the characters which the tokenizer does not know."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text, without spaces at either end."""

    def decode_step(self, token_id: int, state: TextState) -> tuple[str, TextState]:
        """The text that one more token adds; all of them joined equal ``decode``, up to spaces at the end."""


@runtime_checkable
class System(Protocol):
    """What is trained, exported and used. Knows nothing of optimizers, files or users; nothing there knows of it.

    One that does not know when a token was spoken has an attribute ``times_known``, which is False.
    """

    sample_rate: int
    tokenizer: Tokenizer
    period_samples: int  # samples per frame of Emission.frame

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The training loss (scalar, to be minimized) and what to log beside it: numbers, or detached scalars left where they are.

        The loss is a mean over targets (tokens, positions); ``targets`` among the numbers is how many, at least 1. With it the
        batches of an update, in one process or several, weigh as if they were one batch.
        """

    def flush_samples(self, samples: int) -> int:
        """How many zeros follow ``samples`` of audio: ``recognize``, the end of a stream and training add them."""

    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Whole utterances wav (B, S), flush included by itself, with the parallel pass."""

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """Emission.token_ids and .frame → estimated (start, end) of the tokens in samples, each like ``frame``, int64."""


@dataclass
class RowOptions(StreamingState):
    """What each stream of a batch has chosen for itself: see reallm/streaming/options.py."""

    delay: Tensor  # (B,) int64, token periods
    blank_penalty: Tensor  # (B,) float64, subtracted from the logit of BLANK
    silence: Tensor  # (B,) int64, the least speech embeddings of silence that end speech
    phrases: Tensor  # (B,) int64, the first state of their phrases in the searcher's table


@runtime_checkable
class StreamingSystem(System, Protocol):
    """A system that answers while it listens. ``recognize`` is the offline twin of ``step``.

    One whose streams may have options of their own has ``begin(state, rows, options)``, and so has its searcher, if it has one: rows
    (B,) bool, before their first step, take their part of the RowOptions into ``state``. One whose streams may choose their delay
    has ``delay`` and ``delay_periods`` too, see SpeechReaLLM.

    One with a ``searcher`` that keeps several hypotheses gives those of a row by ``n_best(emitted, state, row)``, see BeamSearcher.n_best.
    """

    chunk_samples: int  # S_c of step

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The state of ``batch`` new streams."""

    def step(self, wav: Tensor, lens: Tensor, final: Tensor, state: Any) -> tuple[Emission, Any]:
        """wav (B, S_c) → tokens, state. The caller writes into ``wav``, ``lens`` and ``final`` again: the state keeps no view of them."""


def times_known(system: System) -> bool:
    """Whether a system measures when words were spoken. The only place that decides it."""
    return bool(getattr(system, "times_known", True))


def delay_periods(system: System, delay: Seconds) -> int:
    """A delay in the token periods of ``system``. Raises InputError for one that it was not trained for."""
    periods: Any = getattr(system, "delay_periods", None)
    if periods is None:
        name = getattr(system, "component_name", type(system).__name__)
        raise InputError(f"delay {delay:g} s: system '{name}' was not trained for a choice of delays: leave it out")
    return int(periods(delay))


def takes_options(system: System) -> bool:
    """Whether the streams of a system may have options of their own. The only place that decides it."""
    return hasattr(system, "begin") and hasattr(getattr(system, "searcher", system), "begin")


def takes_phrases(system: System) -> bool:
    """Whether the streams of a system may be biased towards phrases. The only place that decides it."""
    return takes_options(system) and hasattr(getattr(system, "searcher", None), "phrases")


def keeps_n_best(system: System) -> bool:
    """Whether a system gives the n best hypotheses of a stream. The only place that decides it."""
    return hasattr(system, "n_best") and hasattr(getattr(system, "searcher", None), "n_best")


def streams(system: System) -> TypeGuard[StreamingSystem]:
    """Whether a system answers while it listens; one that does not recognizes whole utterances. The only place that decides it."""
    return hasattr(system, "step")
