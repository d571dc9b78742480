"""Decoder-only recognition of whole utterances: speech as the prompt, then the text (Wu et al. 2023, arXiv 2307.03917)."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.errors import InputError
from reallm.protocols import Adapter, Decoder, Encoder, Frontend, Tokenizer, require_reads_blank
from reallm.registry import find, register
from reallm.systems._acoustic import check_decoder
from reallm.systems._text_model import TextModel
from reallm.systems._texts import NO_TARGET, between_ends, padded_texts
from reallm.types import Batch, Emission


@register("system", "decoder_only")
class DecoderOnly(TextModel):
    """All speech embeddings of an utterance, the token that begins the text, the text, and the same token as its end. Does not stream.

    It is Speech ReaLLM without the interleaving: no alignment, no BLANK, and nothing said before the end. The tokens of a text are
    spread evenly over the utterance: where they were spoken is not known.

    Args:
        frontend, encoder, adapter, decoder, tokenizer: the components. The decoder's vocabulary is the tokenizer's and the end of the text,
            which is the last id; a sliding window would forget the speech, so it must attend to everything, or be recurrent.
        flush_periods: token periods of silence at the end of every utterance.
        spec_augment: see AcousticModel.
        label_smoothing: of the cross-entropy over the text.
        ctc_weight, ctc_search_weight: see :class:`reallm.systems.aed.AED`.
        beam: hypotheses that the search keeps; 1 = greedy.
        length_power: log-probabilities of texts are compared after division by their number of tokens to this power.
        max_tokens_per_second: of audio; a text that would be longer, or than the decoder's capacity leaves room for, is cut, and
            counted in ``Emission.cap_hits``.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        adapter: Adapter,
        decoder: Decoder,
        tokenizer: Tokenizer,
        flush_periods: int = 0,
        spec_augment: Mapping[str, int] | None = None,
        label_smoothing: float = 0.0,
        ctc_weight: float = 0.0,
        ctc_search_weight: float = 0.0,
        beam: int = 4,
        length_power: float = 1.0,
        max_tokens_per_second: float = 25.0,
    ) -> None:
        period = frontend.frame_shift * encoder.geometry.stride * adapter.stride
        super().__init__(
            frontend,
            encoder,
            tokenizer,
            period,
            flush_periods,
            spec_augment,
            label_smoothing,
            ctc_weight,
            ctc_search_weight,
            beam,
            length_power,
            max_tokens_per_second,
        )
        check_decoder(encoder, adapter, decoder, tokenizer, "the end of a text")
        require_reads_blank(decoder, "system 'decoder_only', before each text,")
        window = getattr(decoder, "window", 0)
        if window:
            raise InputError(f"decoder window {window}: text could not attend to all of the speech: give window 0 and a capacity for both")
        self.adapter, self.decoder = adapter, decoder

    @classmethod
    def tiny(cls) -> "DecoderOnly":
        tokenizer = find("tokenizer", "character").tiny()
        encoder = find("encoder", "conformer").tiny()
        dim = 16
        return cls(
            frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
            encoder=encoder,
            adapter=find("adapter", "stack")(input_dim=encoder.output_dim, output_dim=dim, stride=2),
            decoder=find("decoder", "llama")(tokenizer.vocab_size + 1, dim=dim, layers=2, heads=2, window=0, capacity=64),
            tokenizer=tokenizer,
            ctc_weight=0.3,
            ctc_search_weight=0.3,
            beam=3,
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy of the text and its end, given the speech. Raises InputError for characters the tokenizer does not know."""
        enc, enc_lens = self.hear(batch, None)
        speech, speech_lens = self.adapter.forward(enc, enc_lens)
        token_ids, token_lens = padded_texts(self.tokenizer, batch.texts)
        text, text_targets = (t.to(speech.device) for t in between_ends(token_ids, token_lens, self.end_id))
        text_lens = token_lens.to(speech.device) + 1
        length = int((speech_lens + text_lens).max())
        # Position p of a row takes in speech embedding p, then the text from speech_lens on.
        position = torch.arange(length, device=speech.device)
        in_text = position - speech_lens.unsqueeze(1)
        heard = F.pad(speech, (0, 0, 0, max(length - speech.size(1), 0)))[:, :length]
        index = in_text.clamp(0, text.size(1) - 1)
        written = self.decoder.embed(text.gather(1, index))
        inputs = torch.where((in_text < 0).unsqueeze(2), heard, written)
        outside = (in_text < 0) | (in_text >= text_lens.unsqueeze(1))
        targets = text_targets.gather(1, index).masked_fill(outside, NO_TARGET)
        logits = self.decoder.forward(inputs, speech_lens + text_lens)
        return self.text_loss(logits, targets, enc, enc_lens, token_ids, token_lens)

    @torch.inference_mode()
    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Whole utterances wav (B, S) → their texts, by beam search; those whose speech fills the decoder's capacity are ``exhausted``."""
        wav, lens = self.with_flush(wav, lens)
        enc, enc_lens = self.encode(wav, lens, None)
        speech, speech_lens = self.adapter.forward(enc, enc_lens)
        limits, exhausted = self.most_tokens(lens), None
        capacity = int(getattr(self.decoder, "capacity", 0))
        if capacity:
            room = capacity - speech_lens - 1  # the text begins with a token of its own
            exhausted = room < 0
            speech_lens = speech_lens.masked_fill(exhausted, 0)
            limits = torch.minimum(limits, room).masked_fill(exhausted, 0)
        state: Any = self.decoder.init_state(wav.size(0), speech.device, speech.dtype)
        for position in range(int(speech_lens.max())):
            _, state = self.decoder.step(speech[:, position], position < speech_lens, state)

        def step(token_ids: Tensor, active: Tensor, state: Any) -> tuple[Tensor, Any]:
            return self.decoder.step(self.decoder.embed(token_ids), active, state)

        found = self.search(step, state, limits, speech_lens, enc, enc_lens)
        found.exhausted = exhausted
        return found
