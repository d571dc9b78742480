"""Attention encoder-decoder (Chan et al. 2016; Vaswani et al. 2017; for speech Dong et al. 2018): the offline rival."""

from collections.abc import Mapping

import torch
from torch import Tensor

from reallm.errors import at_least
from reallm.layers.cross_attention_decoder import CrossAttentionDecoder, TextState
from reallm.protocols import Encoder, Frontend, Tokenizer
from reallm.registry import find, register
from reallm.systems._text_model import TextModel
from reallm.systems._texts import between_ends, padded_texts
from reallm.types import Batch, Emission


@register("system", "aed")
class AED(TextModel):
    """Encoder with full context, and a Transformer decoder that attends to all of it. Does not stream.

    The tokens of a text are spread evenly over the utterance: where they were spoken is not known.

    Args:
        frontend, encoder, tokenizer: the components.
        decoder_dim, decoder_layers, decoder_heads, decoder_hidden: width, depth, attention heads and width of the feed-forward layers.
        dropout: of the decoder's residual branches, in training.
        ctc_weight: w of the training loss (1 - w) · cross-entropy + w · CTC of the encoder (Watanabe et al. 2017), which helps it to find
            the order of the speech; 0 = no CTC layer.
        ctc_search_weight: w of joint CTC/attention decoding (ibid., section 3.2), which compares (1 - w) · log-probability of the
            decoder + w · log-probability by CTC that a text begins so; tokens' confidences then are of that mean. It needs a CTC layer.
            0 = the decoder alone.
        flush_periods: encoder frames of silence at the end of every utterance.
        spec_augment: see AcousticModel.
        label_smoothing: of the cross-entropy.
        beam: hypotheses that the search keeps; 1 = greedy.
        length_power: log-probabilities of texts are compared after division by their number of tokens to this power.
        max_tokens_per_second: of audio; a text that would be longer is cut, and counted in ``Emission.cap_hits``.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        tokenizer: Tokenizer,
        decoder_dim: int = 144,
        decoder_layers: int = 4,
        decoder_heads: int = 4,
        decoder_hidden: int = 576,
        dropout: float = 0.1,
        ctc_weight: float = 0.0,
        ctc_search_weight: float = 0.0,
        flush_periods: int = 0,
        spec_augment: Mapping[str, int] | None = None,
        label_smoothing: float = 0.1,
        beam: int = 4,
        length_power: float = 1.0,
        max_tokens_per_second: float = 25.0,
    ) -> None:
        period = frontend.frame_shift * encoder.geometry.stride
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
        at_least(1, decoder_dim=decoder_dim, decoder_layers=decoder_layers, decoder_heads=decoder_heads, decoder_hidden=decoder_hidden)
        size = tokenizer.vocab_size + 1
        self.decoder = CrossAttentionDecoder(size, encoder.output_dim, decoder_dim, decoder_layers, decoder_heads, decoder_hidden, dropout)

    @classmethod
    def tiny(cls) -> "AED":
        encoder = find("encoder", "conformer").tiny()
        return cls(
            frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
            encoder=encoder,
            tokenizer=find("tokenizer", "character").tiny(),
            decoder_dim=16,
            decoder_layers=2,
            decoder_heads=2,
            decoder_hidden=24,
            ctc_weight=0.3,
            ctc_search_weight=0.3,
            beam=3,
        )

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy of the text and its end, with CTC where it has a weight, both a target of the former (a token or an end).

        Raises InputError for characters the tokenizer does not know.
        """
        enc, enc_lens = self.hear(batch, None)
        token_ids, token_lens = padded_texts(self.tokenizer, batch.texts)
        inputs, targets = (t.to(enc.device) for t in between_ends(token_ids, token_lens, self.end_id))
        logits = self.decoder(inputs, self.decoder.remember(enc, enc_lens))
        return self.text_loss(logits, targets, enc, enc_lens, token_ids, token_lens)

    @torch.inference_mode()
    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Whole utterances wav (B, S) → their texts, by beam search."""
        wav, lens = self.with_flush(wav, lens)
        enc, enc_lens = self.encode(wav, lens, None)
        limits = self.most_tokens(lens)
        memory = self.decoder.remember(enc, enc_lens)

        def step(token_ids: Tensor, active: Tensor, state: TextState) -> tuple[Tensor, TextState]:
            return self.decoder.step(token_ids, state, memory)

        state = self.decoder.init_state(wav.size(0), int(limits.max()) + 1, enc.device, enc.dtype)
        return self.search(step, state, limits, enc_lens, enc, enc_lens)
