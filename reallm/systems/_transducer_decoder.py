"""The transducer seen as a decoder-only model: what every searcher can search. Legend: reallm/types.py.

Its rule is that of Speech ReaLLM: an encoder frame is answered with tokens, each of them fed back, and ended with BLANK.
So one decoder position takes in an encoder frame, or a token::

    input    h1     h2     y1    y2    h3     …
    answer   BLANK  y1     y2    BLANK BLANK  …
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from reallm.layers.joiner import Joiner
from reallm.protocols import Predictor
from reallm.streaming.host import may_look
from reallm.streaming.state import StreamingState


@dataclass
class TransducerDecoderState(StreamingState):
    """What the joiner joins next, and how the prediction goes on."""

    predictor: StreamingState
    audio: Tensor  # (B, D), the encoder frame that is answered, as the joiner takes it
    text: Tensor  # (B, D), the prediction after the last token, likewise


class TransducerDecoder:
    """Predictor and joiner with the steps of protocols.Decoder.

    An input is a mapped encoder frame (D numbers), a label embedding, and 1 where it is a label; what is not there is 0.
    """

    def __init__(self, predictor: Predictor, joiner: Joiner) -> None:
        self.predictor, self.joiner = predictor, joiner
        self._parts = [joiner.dim, predictor.input_dim, 1]
        self.input_dim, self.vocab_size = sum(self._parts), joiner.vocab_size

    def hear(self, enc: Tensor) -> Tensor:
        """Encoder frames (…, D_enc) → inputs (…, input_dim)."""
        audio = self.joiner.audio(enc)
        return torch.nn.functional.pad(audio, (0, self.input_dim - audio.size(-1)))

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → inputs (…, input_dim)."""
        embedded = torch.nn.functional.pad(self.predictor.embed(token_ids), (self.joiner.dim, 0))
        return torch.nn.functional.pad(embedded, (0, 1), value=1.0)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> TransducerDecoderState:
        """The state of ``batch`` new streams: the start has been fed to the predictor."""
        start = self.predictor.embed(torch.full((batch,), self.vocab_size - 1, device=device))
        everywhere = torch.ones(batch, dtype=torch.bool, device=device)
        prediction, predictor = self.predictor.step(start, everywhere, self.predictor.init_state(batch, device, dtype))
        audio = torch.zeros(batch, self.joiner.dim, device=device, dtype=dtype)
        return TransducerDecoderState(predictor, audio, self.joiner.text(prediction))

    def step(self, inputs: Tensor, active: Tensor, state: TransducerDecoderState) -> tuple[Tensor, TransducerDecoderState]:
        """One position of each active row: inputs (B, input_dim), active (B,) bool → logits (B, V), state."""
        audio, embedded, is_label = inputs.split(self._parts, dim=-1)
        reads = active & (is_label.squeeze(-1) > 0)
        hears = active & ~reads
        predictor, text = state.predictor, state.text
        if not may_look(reads) or bool(reads.any()):  # most frames are answered with BLANK alone
            prediction, predictor = self.predictor.step(embedded, reads, predictor)
            text = torch.where(reads.unsqueeze(1), self.joiner.text(prediction), text)
        audio = torch.where(hears.unsqueeze(1), audio, state.audio)
        return self.joiner(audio, text), TransducerDecoderState(predictor, audio, text)
