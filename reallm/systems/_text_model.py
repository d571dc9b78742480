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
from reallm.systems._ctc_prefix import joint_search
from reallm.systems._text_search import check_search, search_texts, spread
from reallm.systems._texts import NO_TARGET, ctc_loss, ctc_output
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
        ctc_weight: w of the training loss (1 - w) · cross-entropy + w · CTC of the encoder (Watanabe et al. 2017); 0 = no CTC layer.
        ctc_search_weight: CTC's weight in joint CTC/attention decoding, see _ctc_prefix.py; 0 = the decoder alone.
        beam, length_power: of the search, see _text_search.py.
        max_tokens_per_second: of audio, of a text that is searched for.

    What is of the search may be set on a trained system; a share of CTC, where it has a CTC layer.
    """

    times_known = False
    search_settings: ClassVar[tuple[str, ...]] = ("length_power", "ctc_search_weight", "max_tokens_per_second")

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        tokenizer: Tokenizer,
        period_samples: int,
        flush_periods: int,
        spec_augment: Mapping[str, int] | None,
        label_smoothing: float,
        ctc_weight: float,
        ctc_search_weight: float,
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
        self.ctc_weight, self.ctc_search_weight = ctc_weight, ctc_search_weight
        self.ctc_output = ctc_output(encoder.output_dim, tokenizer.vocab_size + 1, ctc_weight)
        if not 0 <= ctc_search_weight < 1:
            raise InputError(f"ctc_search_weight {ctc_search_weight}: choose a share from 0 up to, but not, 1")
        if ctc_search_weight and not ctc_weight:
            raise InputError(
                f"ctc_search_weight {ctc_search_weight}: with ctc_weight 0 there is no CTC layer to ask: train with one, or give 0"
            )

    def text_loss(
        self, logits: Tensor, targets: Tensor, enc: Tensor, enc_lens: Tensor, token_ids: Tensor, token_lens: Tensor
    ) -> tuple[Tensor, dict[str, Tensor | float]]:
        """The training loss and its parts: what is asked for, how much, and the share of right answers.

        Logits (B, L, V) of the decoder and their targets (B, L): mean cross-entropy. Encoder frames enc (B, N, D), enc_lens (B,) and texts
        token_ids (B, U), token_lens (B,): CTC, where it has a weight, for each target of the former too.
        """
        asked = targets != NO_TARGET
        right = (logits.detach().argmax(-1) == targets) & asked
        stats: dict[str, Tensor | float] = {"targets": asked.sum(), "accuracy": right.sum() / asked.sum()}
        loss = F.cross_entropy(
            logits.float().flatten(0, 1), targets.flatten(), ignore_index=NO_TARGET, label_smoothing=self.label_smoothing
        )
        if self.ctc_output is None:
            return loss, stats
        aside = ctc_loss(self._ctc_log_probs(enc), enc_lens, token_ids, token_lens) / stats["targets"]
        stats |= {"loss_text": loss.detach(), "loss_ctc": aside.detach()}
        return (1 - self.ctc_weight) * loss + self.ctc_weight * aside, stats

    def _ctc_log_probs(self, enc: Tensor) -> Tensor:
        assert self.ctc_output is not None
        return torch.log_softmax(self.ctc_output(enc).float(), dim=-1)

    def most_tokens(self, lens: Tensor) -> Tensor:
        """Audio of ``lens`` (B,) samples → the most tokens of its text (B,): with room for them all caches are allocated."""
        return torch.ceil(lens.double() * self.max_tokens_per_second / self.sample_rate).long()

    def search(
        self,
        step: Callable[[Tensor, Tensor, S], tuple[Tensor, S]],
        state: S,
        limits: Tensor,
        frames: Tensor,
        enc: Tensor,
        enc_lens: Tensor,
    ) -> Emission:
        """The best texts of at most ``limits`` (B,) tokens, spread over ``frames`` (B,) of the utterances: see _text_search.py.

        ``step`` of the decoder, without CTC, gives logits; enc (B, N, D), enc_lens (B,) are the encoder frames that CTC is asked about.
        """

        def decoder_step(token_ids: Tensor, active: Tensor, state: S) -> tuple[Tensor, S]:
            logits, state = step(token_ids, active, state)
            return torch.log_softmax(logits.float(), dim=-1), state

        if not self.ctc_search_weight:
            return spread(search_texts(decoder_step, state, limits, self.end_id, self.beam, self.length_power), frames)
        weight = self.ctc_search_weight
        joint_step, joint_state = joint_search(decoder_step, state, self._ctc_log_probs(enc), enc_lens, weight, self.beam)
        return spread(search_texts(joint_step, joint_state, limits, self.end_id, self.beam, self.length_power), frames)

    def token_span(self, token_ids: Tensor, frame: Tensor) -> tuple[Tensor, Tensor]:
        """The frame that a token was put in, in samples: texts are spread evenly over their utterance, so it is no measurement."""
        return frame * self.period_samples, (frame + 1) * self.period_samples
