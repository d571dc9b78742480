"""Attention encoder-decoder (Chan et al. 2016; Vaswani et al. 2017; for speech Dong et al. 2018): the offline rival."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.errors import InputError, at_least
from reallm.layers.cross_attention_decoder import CrossAttentionDecoder, TextState
from reallm.protocols import Encoder, Frontend, Tokenizer
from reallm.registry import find, register
from reallm.streaming.state import StreamingState
from reallm.systems._ctc_prefix import CTCPrefixes, CTCPrefixScorer
from reallm.systems._text_model import TextModel
from reallm.systems._texts import between_ends, ctc_loss, ctc_output, padded_texts
from reallm.types import Batch, Emission

CANDIDATES = 2  # that CTC is asked about, for each hypothesis of the beam, as in SpeechBrain


@dataclass
class JointState(StreamingState):
    """What the decoder and CTC remember of the texts so far."""

    text: TextState
    prefixes: CTCPrefixes


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
        ctc_search_weight: w of what the search compares, (1 - w) · log-probability of the decoder + w · that of CTC for a text that
            begins so (ibid., section 3.2): it keeps a decoder that learned little from repeating and leaving out. 0 = the decoder alone.
            May be set on a trained system that has a CTC layer (``--set system.ctc_search_weight=W``).
        flush_periods: encoder frames of silence at the end of every utterance.
        spec_augment: see AcousticModel.
        label_smoothing: of the cross-entropy.
        beam: hypotheses that the search keeps; 1 = greedy.
        length_power: log-probabilities of texts are compared after division by their number of tokens to this power.
        max_tokens_per_second: of audio; a text that would be longer is cut, and counted in ``Emission.cap_hits``.
    """

    search_settings = (*TextModel.search_settings, "ctc_search_weight")

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
            frontend, encoder, tokenizer, period, flush_periods, spec_augment, label_smoothing, beam, length_power, max_tokens_per_second
        )
        at_least(1, decoder_dim=decoder_dim, decoder_layers=decoder_layers, decoder_heads=decoder_heads, decoder_hidden=decoder_hidden)
        size = tokenizer.vocab_size + 1
        self.decoder = CrossAttentionDecoder(size, encoder.output_dim, decoder_dim, decoder_layers, decoder_heads, decoder_hidden, dropout)
        self.ctc_weight, self.ctc_search_weight = ctc_weight, ctc_search_weight
        self.ctc_output = ctc_output(encoder.output_dim, size, ctc_weight)
        if not 0 <= ctc_search_weight < 1:
            raise InputError(f"ctc_search_weight {ctc_search_weight}: choose a share from 0 up to, but not, 1")
        if ctc_search_weight and not ctc_weight:
            raise InputError(
                f"ctc_search_weight {ctc_search_weight}: with ctc_weight 0 there is no CTC layer to ask: train with one, or give 0"
            )

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
        loss, stats = self.text_loss(self.decoder(inputs, self.decoder.remember(enc, enc_lens)), targets)
        if self.ctc_output is None:
            return loss, stats
        aside = ctc_loss(torch.log_softmax(self.ctc_output(enc).float(), dim=-1), enc_lens, token_ids, token_lens) / stats["targets"]
        stats |= {"loss_text": loss.detach(), "loss_ctc": aside.detach()}
        return (1 - self.ctc_weight) * loss + self.ctc_weight * aside, stats

    @torch.inference_mode()
    def recognize(self, wav: Tensor, lens: Tensor) -> Emission:
        """Whole utterances wav (B, S) → their texts, by beam search."""
        wav, lens = self.with_flush(wav, lens)
        enc, enc_lens = self.encode(wav, lens, None)
        limits = self.most_tokens(lens)
        memory = self.decoder.remember(enc, enc_lens)
        state = self.decoder.init_state(wav.size(0), int(limits.max()) + 1, enc.device, enc.dtype)

        def step(token_ids: Tensor, active: Tensor, state: TextState) -> tuple[Tensor, TextState]:
            logits, state = self.decoder.step(token_ids, state, memory)
            return torch.log_softmax(logits.float(), dim=-1), state

        if self.ctc_output is None or not self.ctc_search_weight:
            return self.search(step, state, limits, enc_lens)

        weight, candidates = self.ctc_search_weight, min(CANDIDATES * self.beam, self.end_id)
        heard = enc if enc.size(1) else enc.new_zeros(enc.size(0), 1, enc.size(2))
        scorer = CTCPrefixScorer(torch.log_softmax(self.ctc_output(heard).float(), dim=-1), enc_lens)

        def joint_step(token_ids: Tensor, active: Tensor, state: JointState) -> tuple[Tensor, JointState]:
            log_probs, text = step(token_ids, active, state.text)
            likely = log_probs[:, : self.end_id].topk(candidates).indices
            of_ctc, prefixes = scorer.step(token_ids, likely, state.prefixes)
            asked = F.pad(likely, (0, 1), value=self.end_id)
            joint = (1 - weight) * log_probs + weight * of_ctc
            return torch.full_like(joint, -torch.inf).scatter(1, asked, joint.gather(1, asked)), JointState(text, prefixes)

        return self.search(joint_step, JointState(state, scorer.init_state(candidates)), limits, enc_lens)
