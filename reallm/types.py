"""The values that components exchange.

Legend, used in every file with tensors: B rows (streams or utterances), S samples, T feature frames, F features,
N encoder frames, D width, M speech embeddings, U tokens, L decoder positions, V vocabulary, K emitted tokens; ``_c``
marks one streaming chunk. Batch first; lengths are absolute int64; audio is float32 in [-1, 1]; times are seconds
unless the name says ``_frames``, ``_samples`` or ``_ms``.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

Seconds = float


@dataclass
class Alignment:
    """When each token of one utterance was spoken, in samples from the start of the utterance.

    Integers, because due times are ceilings of ratios: with float seconds a fifth of the exact multiples land late.
    """

    token_ids: Tensor  # (U,) int64
    start_samples: Tensor  # (U,) int64
    end_samples: Tensor  # (U,) int64, exclusive
    scores: Tensor  # (U,) float64, log-probability of the token's part of the path
    sample_rate: int
    score: float = 0.0  # log-probability of the whole path

    @property
    def start(self) -> Tensor:
        """(U,) seconds, float64."""
        return self.start_samples.double() / self.sample_rate

    @property
    def end(self) -> Tensor:
        """(U,) seconds, float64."""
        return self.end_samples.double() / self.sample_rate


@dataclass
class Batch:
    """Utterances for training or scoring."""

    ids: list[str]
    wav: Tensor  # (B, S) float32
    wav_lens: Tensor  # (B,) int64
    texts: list[str]
    alignments: list[Alignment] | None = None  # of the teacher, never the truth
    speakers: list[str] = field(default_factory=list)
    feats: Tensor | None = None  # (B, T, F) as a frontend's ``store`` gave them; ``wav`` is (B, 0) then, ``wav_lens`` as ever
    feats_by: str = ""  # the fingerprint of that frontend

    def to(self, device: Any) -> "Batch":
        """The same batch with its audio or features on ``device``; alignments stay on the CPU, where they are interleaved."""
        feats = None if self.feats is None else self.feats.to(device)
        return replace(self, wav=self.wav.to(device), wav_lens=self.wav_lens.to(device), feats=feats)


@dataclass
class Interleaved:
    """Speech embeddings and tokens as one sequence of decoder positions (Seide et al. 2024, arXiv 2406.09569)."""

    token_ids: Tensor  # (B, L) int64, the token fed at this position; -1 = none
    audio_index: Tensor  # (B, L) int64, the speech embedding fed at this position; -1 = none; both present = added
    targets: Tensor  # (B, L) int64, what the decoder must answer here; -100 = nothing
    lens: Tensor  # (B,) int64


@dataclass
class SpeechEnds:
    """Where speech ended in one step. Q is the most speech embeddings of a step."""

    frame: Tensor  # (B, Q) int64, the speech embedding whose answer made the silence long enough; -1 = none
    tokens: Tensor  # (B, Q) int64, how many tokens of the step were said before


@dataclass
class Emission:
    """What one step of a system or searcher brought out: the first ``lens[b]`` entries of row b are valid."""

    token_ids: Tensor  # (B, K) int64
    frame: Tensor  # (B, K) int64, counted from the start of the stream: the speech embedding (or CTC encoder frame) answered
    log_probs: Tensor  # (B, K) float32, of each token given all before it; where CTC has a share in a search, the mean that it compares
    lens: Tensor  # (B,) int64
    cap_hits: Tensor  # (B,) int64, responses cut by the cap on symbols
    exhausted: Tensor | None = None  # (B,) bool, rows that have come to the decoder's capacity and answer no more; None = it has no end
    speech_ends: SpeechEnds | None = None  # of streams that asked for it; None = who recognizes does not know
    pending: Tensor | None = None  # (B,) bool, rows whose answers go on in the next step, with audio or without; None = none ever
    full: Tensor | None = None  # (B,) bool, those of them that have no room for another chunk before that; likewise
    lost: Tensor | None = None  # (B,) bool, rows for which nothing could be found, since their scores are NaN; None = its tokens show that


@dataclass
class Word:
    """One recognized (or reference) word.

    ``start`` and ``end`` of a recognized word are the system's estimate: a guess, where protocols.times_known says that it has none.
    ``emitted_at``: seconds of audio accepted when its last token showed.
    """

    word: str
    start: Seconds
    end: Seconds
    confidence: float = 1.0
    emitted_at: Seconds | None = None


@dataclass(frozen=True)
class Scored:
    """One of the n best hypotheses of a search."""

    token_ids: list[int]
    score: float  # as the search compares: log-probabilities of all answers, with penalties and bonuses; merged ones included


@dataclass(frozen=True)
class ScoredText:
    """One of the n best texts of a stream, with the score of the best hypothesis that says it."""

    text: str
    score: float


@dataclass(frozen=True)
class SpeechEnd:
    """The speaker has stopped, by the silence that a stream was told to wait for."""

    at: Seconds  # of audio, the silence included
    words: int  # of the result, said before
    characters: int  # of its text, likewise
    emitted_at: Seconds  # seconds of audio accepted when it showed


@dataclass
class Hypothesis:
    """What a stream has recognized so far."""

    text: str
    token_ids: list[int]
    words: list[Word]
    score: float  # sum of log-probabilities of the tokens
    cap_hits: int = 0
    is_final: bool = False
    n_best: list[ScoredText] = field(default_factory=list)  # of a final one whose search keeps several: different texts, best first
    speech_ends: list[SpeechEnd] = field(default_factory=list)  # in order, of a stream with the option ``end_of_speech``
