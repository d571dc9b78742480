"""What systems share that hear a whole utterance and then write its text, each token given all before it."""

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.errors import InputError
from reallm.protocols import Encoder, Frontend, Tokenizer
from reallm.streaming.state import StreamingState
from reallm.systems._acoustic import AcousticModel
from reallm.systems._text_search import check_search, search_texts, spread
from reallm.systems._texts import NO_TARGET
from reallm.types import Emission

S = TypeVar("S", bound=StreamingState)


class TextModel(AcousticModel):
    """An encoder with full context, and a text that begins and ends with the token after the tokenizer's last one.

    Args:
        frontend, encoder, tokenizer: the components.
        period_samples: samples per frame of what the system emits.
        flush_periods: periods of silence at the end of every utterance.
        spec_augment: see AcousticModel.
        label_smoothing: of the cross-entropy.
        beam, length_power: of the search, see _text_search.py; may be set on a trained system.
        max_tokens_per_second: of audio, of a text that is searched for.
    """

    times_known = False
    search_settings: ClassVar[tuple[str, ...]] = ("beam", "length_power", "max_tokens_per_second")  # of --set system.NAME=NUMBER

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        tokenizer: Tokenizer,
        period_samples: int,
        flush_periods: int,
        spec_augment: Mapping[str, int] | None,
        label_smoothing: float,
        beam: int,
        length_power: float,
        max_tokens_per_second: float,
    ) -> None:
        super().__init__(frontend, encoder, tokenizer, period_samples, flush_periods, [None], spec_augment)
        check_search(beam, length_power)
        if not max_tokens_per_second > 0:
            raise InputError(f"max_tokens_per_second {max_tokens_per_second}: a text needs room, give more than 0")
        self.end_id = tokenizer.vocab_size
        self.label_smoothing, self.beam, self.length_power = label_smoothing, beam, length_power
        self.max_tokens_per_second = max_tokens_per_second

    def text_loss(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Mean cross-entropy of logits (B, L, V) where targets (B, L) ask for something, their number, and the share of right answers."""
        loss = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, label_smoothing=self.label_smoothing
        )
        asked = targets != NO_TARGET
        right = (logits.detach().argmax(-1) == targets) & asked
        return loss, {"targets": asked.sum(), "accuracy": right.sum() / asked.sum()}

    def most_tokens(self, lens: Tensor) -> Tensor:
        """Audio of ``lens`` (B,) samples → the most tokens of its text (B,): with room for them all caches are allocated."""
        return torch.ceil(lens.double() * self.max_tokens_per_second / self.sample_rate).long()

    def search(self, step: Callable[[Tensor, Tensor, S], tuple[Tensor, S]], state: S, limits: Tensor, frames: Tensor) -> Emission:
        """The best texts of at most ``limits`` (B,) tokens, spread over ``frames`` (B,) of the utterances: see _text_search.py."""
        return spread(search_texts(step, state, limits, self.end_id, self.beam, self.length_power), frames)

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The frame that a token was put in, in samples: texts are spread evenly over their utterance, so it is no measurement."""
        return frame * self.period_samples, (frame + 1) * self.period_samples
