"""ReaLLM (Seide et al. 2024, arXiv 2406.09569): a decoder-only model that answers every input of a stream, whatever the inputs are.

Speech ReaLLM is one whose inputs are speech embeddings and whose answers are what was said (systems/speech_reallm.py). Here inputs are
embeddings of anything, such as the ticks of a sensor, and answers are tokens of anything. egs/flow_of_time trains one without speech.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.errors import CapacityError, InputError
from reallm.protocols import ResponseModel, Searcher, more_room, require_reads_blank, to_the_end
from reallm.streaming.state import StreamingState
from reallm.types import Alignment, Emission, Interleaved


@dataclass
class Responses:
    """What is to be answered to the inputs of one stream; nothing to those that no token is due at."""

    token_ids: Tensor  # (U,) int64
    at: Tensor  # (U,) int64, the input that each token answers, counted from 0; in order


@dataclass(frozen=True)
class ReaLLM(ResponseModel):
    """A decoder that reads a stream of embeddings and answers each one, with nothing but BLANK where nothing is due.

    It composes components and has no weights but the decoder's, which is what an optimizer and a checkpoint get; what makes the
    embeddings is its user's. A prompt needs nothing of its own: it is how a stream begins, such as ``decoder.embed(prompt)`` before
    the first input, and is answered like any input at which nothing is due.

    Args:
        decoder, interleaver: see ResponseModel; the interleaver's BLANK is one of the decoder's ids.
        searcher: what finds the answers.
        label_smoothing: of the cross-entropy over all positions.
        blank_weight: w, of the positions whose target is BLANK in the loss; of the others it is 1. Below 1 it
            costs less to say a token where none is due.

    Raises InputError for a blank_weight that is not above 0, and for a decoder that cannot read the BLANK which the interleaver feeds.
    """

    searcher: Searcher
    label_smoothing: float = 0.0
    blank_weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.blank_weight < math.inf:
            raise InputError(f"blank_weight {self.blank_weight} is not possible: a number above 0, 1 = as tokens weigh")
        if getattr(self.interleaver, "feeds_blank", False):
            name = getattr(self.interleaver, "component_name", type(self.interleaver).__name__)
            require_reads_blank(self.decoder, f"interleaver '{name}'")

    def lay_out(self, responses: Sequence[Responses], lens: Tensor) -> Interleaved:
        """The training sequences of B streams of ``lens`` (B,) inputs.

        Raises InputError for answers that are not in order, and for one at an input that there is not.
        """
        for row, (response, inputs) in enumerate(zip(responses, lens.tolist(), strict=True)):
            at = response.at.tolist()
            if at != sorted(at):
                raise InputError(f"stream {row}: its answers are at inputs {at}, not in the order of the inputs: sort them")
            if at and not 0 <= at[0] <= at[-1] < inputs:
                wrong = at[0] if at[0] < 0 else at[-1]
                raise InputError(f"stream {row}: an answer at input {wrong} of {inputs}, which are counted from 0")
        answers = [Alignment(r.token_ids, r.at, r.at + 1, torch.zeros(r.at.numel(), dtype=torch.float64), 1) for r in responses]
        return self.interleaver.build(answers, lens.cpu(), torch.zeros(len(answers), dtype=torch.int64), period_samples=1)

    def inputs(self, embeddings: Tensor, laid_out: Interleaved) -> Tensor:
        """Stream embeddings (B, M, D) and tokens as what the decoder takes in (B, L, D)."""
        token_ids, index = laid_out.token_ids.to(embeddings.device), laid_out.audio_index.to(embeddings.device)
        heard = embeddings.gather(1, index.clamp(min=0).unsqueeze(-1).expand(-1, -1, embeddings.size(-1)))
        inputs = torch.where((index >= 0).unsqueeze(-1), heard, 0)
        return inputs + torch.where((token_ids >= 0).unsqueeze(-1), self.decoder.embed(token_ids.clamp(min=0)), 0)

    def loss(self, embeddings: Tensor, laid_out: Interleaved) -> tuple[Tensor, dict[str, Tensor | float]]:
        """Cross-entropy over the positions of interleaved sequences (Seide et al. 2024), and its parts on tokens and BLANK.

        Args:
            embeddings: (B, M, D) of the streams.
            laid_out: the answers to them, of ``lay_out`` or the interleaver.

        Returns Σ w_i l_i / Σ w_i over the targets, w_i being ``blank_weight`` where the target is BLANK and 1 elsewhere, and detached
        scalars: ``targets`` (Σ w_i, which says what the loss of a batch weighs beside those of others), and without weights
        ``loss_blank``, ``loss_text``, ``accuracy``.
        """
        targets = laid_out.targets.to(embeddings.device)
        logits = self.decoder.forward(self.inputs(embeddings, laid_out), laid_out.lens.to(embeddings.device)).float()
        losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none", label_smoothing=self.label_smoothing)
        asked, blank = targets != -100, targets == self.interleaver.blank_id
        weights = torch.where(blank, self.blank_weight, 1.0) * asked
        loss = (weights * losses).sum() / weights.sum()
        with torch.no_grad():
            text = asked & ~blank
            right = (logits.argmax(-1) == targets) & asked
            stats: dict[str, Tensor | float] = {
                "targets": weights.sum(),
                "loss_blank": torch.where(blank, losses, 0).sum() / blank.sum().clamp(min=1),
                "loss_text": torch.where(text, losses, 0).sum() / text.sum().clamp(min=1),
                "accuracy": right.sum() / asked.sum(),
            }
        return loss, stats

    def init_state(
        self, batch: int, capacity: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> StreamingState:
        """The state of ``batch`` new streams; ``capacity`` is the most inputs that one ``step`` may bring."""
        return self.searcher.init_state(self, batch, capacity, device, dtype)

    def step(self, embeddings: Tensor, lens: Tensor, final: Tensor, state: Any) -> tuple[Emission, Any]:
        """The next inputs (B, M_c, D) of each stream, of which ``lens`` (B,) are valid → the answers to them, state.

        ``Emission.frame`` is the input that a token answers, counted from the start of the stream, its prompt included. A ``final`` (B,)
        row holds nothing back.
        """
        return self.searcher.step(self, embeddings, lens, final, state)

    def respond(self, embeddings: Tensor, lens: Tensor) -> Emission:
        """The answers to whole streams (B, M, D). Raises CapacityError for one that is longer than the decoder's capacity."""
        whole = replace(self, searcher=to_the_end(self.searcher))
        state = whole.init_state(embeddings.size(0), embeddings.size(1), embeddings.device, embeddings.dtype)
        emission, _ = whole.step(embeddings, lens, torch.ones_like(lens, dtype=torch.bool), state)
        if emission.exhausted is not None and bool(emission.exhausted.any()):
            raise CapacityError(
                f"stream {int(emission.exhausted.nonzero()[0])} of {len(lens)} needs more than the decoder's capacity of "
                f"{self.capacity} positions: split it, or {more_room(self.decoder)}"
            )
        return emission
