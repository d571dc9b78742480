"""The steps of a streaming system as modules over named tensors. Legend: reallm/types.py."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.exporting.flat_state import FlatState
from reallm.protocols import Interleaver, System, streams
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.state import StreamingState
from reallm.systems._acoustic import AcousticModel
from reallm.systems.ctc import CTC
from reallm.systems.speech_reallm import SpeechReaLLM
from reallm.systems.transducer import Transducer

NEXT = "next."
"""A state's tensor ``x`` comes out as ``next.x``."""

Tensors = dict[str, Tensor]


class Program(nn.Module):
    """One step of B streams over named tensors; nothing is written into what it is given.

    Args:
        name: of the program.
        initial: the state of one new stream.
        parts: the modules whose weights it needs.
    """

    def __init__(self, name: str, initial: StreamingState, *parts: Any) -> None:
        super().__init__()
        self.name, self.states = name, FlatState(initial)
        self.parts = nn.ModuleList(part for part in parts if isinstance(part, nn.Module))

    def example(self, batch: int, generator: torch.Generator) -> Tensors:
        """Inputs of ``batch`` rows as they may be, the states aside."""
        raise NotImplementedError

    def step(self, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        """Outputs, and the next state; ``state`` may be written into."""
        raise NotImplementedError

    def initial(self, batch: int) -> Tensors:
        """The states of ``batch`` new streams."""
        return {name: tensor.expand(batch, *tensor.shape[1:]).clone() for name, tensor in self.states.initial.items()}

    def forward(self, inputs: Tensors) -> Tensors:
        """Inputs and states by name → outputs by name, and each state's tensor x as ``next.x``."""
        state = self.states.restored(inputs, next(iter(inputs.values())).size(0))
        outputs, after = self.step(inputs, state)
        return {**outputs, **{NEXT + name: tensor for name, tensor in self.states.named(after).items()}}


@dataclass
class ListeningState(StreamingState):
    """Streaming states of what hears."""

    acoustic: StreamingState
    adapter: StreamingState


class EncoderProgram(Program):
    """Frontend, encoder, and what its frames become: wav (B, S_c), lens (B,) samples, final (B,) → frames (B, N_c, …), of which
    ``count`` (B,) are valid.

    A row brings a whole chunk, nothing (0 samples), or, flushed with ``final``, less than a chunk; then it must begin anew.
    """

    def __init__(self, system: AcousticModel, *parts: Any) -> None:
        adapter: Any = getattr(system, "adapter", None)
        state = ListeningState(
            system.init_acoustic_state(1, "cpu", torch.float32), StreamingState() if adapter is None else adapter.init_state(1)
        )
        super().__init__("encoder", state, system.frontend, system.encoder, adapter, *parts)
        self._system: Any = (system,)  # in a tuple, so that weights which are not needed are no part of the program

    def example(self, batch: int, generator: torch.Generator) -> Tensors:
        size = self._system[0].chunk_samples
        busy, final = (torch.rand(2, batch, generator=generator) > torch.tensor([[0.3], [0.8]])).unbind()
        lens = torch.where(final, torch.randint(size, (batch,), generator=generator), torch.where(busy, size, 0))
        return {"wav": 0.1 * torch.randn(batch, size, generator=generator), "lens": lens, "final": final}

    def step(self, inputs: Tensors, state: ListeningState) -> tuple[Tensors, ListeningState]:
        final = inputs["final"]
        enc, lens, acoustic = self._system[0].encode_step(inputs["wav"], inputs["lens"], final, state.acoustic)
        outputs, adapter = self.put_out(enc, lens, inputs, state.adapter)
        return outputs, ListeningState(acoustic, adapter)

    def put_out(self, enc: Tensor, lens: Tensor, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        """Encoder frames (B, N_c, D), lens (B,) → the outputs, and the adapter's state."""
        raise NotImplementedError


class SpeechEmbeddings(EncoderProgram):
    """→ embeddings (B, M_c, D_lm). A system that was trained for several delays takes in the ``delay`` (B,) of each row too."""

    def __init__(self, system: SpeechReaLLM) -> None:
        super().__init__(system, system.delay_embedding)
        self._delays = None if system.delay_embedding is None else system.delays

    def example(self, batch: int, generator: torch.Generator) -> Tensors:
        inputs = super().example(batch, generator)
        if self._delays is not None:
            inputs["delay"] = torch.randint(self._delays[0], self._delays[1] + 1, (batch,), generator=generator)
        return inputs

    def put_out(self, enc: Tensor, lens: Tensor, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        system = self._system[0]
        speech, lens, state = system.adapter.step(enc, lens, inputs["final"], state)
        return {"embeddings": system._told(speech, inputs.get("delay")), "count": lens}, state


class JoinerInputs(EncoderProgram):
    """→ embeddings (B, N_c, D), what the transducer's decoder step takes in of each encoder frame."""

    def __init__(self, system: Transducer) -> None:
        super().__init__(system, system.joiner.audio)

    def put_out(self, enc: Tensor, lens: Tensor, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        return {"embeddings": self._system[0]._decoder.hear(enc), "count": lens}, state


class LabelScores(EncoderProgram):
    """→ log_probs (B, N_c, V) of CTC labels."""

    def __init__(self, system: CTC) -> None:
        super().__init__(system, system.output)

    def put_out(self, enc: Tensor, lens: Tensor, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        return {"log_probs": self._system[0]._log_probs(enc), "count": lens}, state


class DecoderProgram(Program):
    """One position of each active row → log_probs (B, V).

    embedding (B, D), zeros where none is heard; token (B,), -1 where none is read; active (B,).
    """

    def __init__(self, decoder: Any, *parts: Any) -> None:
        super().__init__("decoder", decoder.init_state(1), *parts)
        self._decoder = (decoder,)

    def example(self, batch: int, generator: torch.Generator) -> Tensors:
        decoder = self._decoder[0]
        token = torch.randint(-1, decoder.vocab_size - 1, (batch,), generator=generator)
        embedding = torch.randn(batch, decoder.input_dim, generator=generator) * (token < 0).unsqueeze(1)
        return {"embedding": embedding, "token": token, "active": torch.rand(batch, generator=generator) > 0.3}

    def step(self, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        decoder, token = self._decoder[0], inputs["token"]
        read = torch.where((token >= 0).unsqueeze(1), decoder.embed(token.clamp(min=0)), 0)
        logits, after = decoder.step(inputs["embedding"] + read, inputs["active"], state)
        return {"log_probs": torch.log_softmax(logits.float(), dim=-1)}, after


class PolicyProgram(Program):
    """What is fed next: the answer ``output`` (B,) of the rows that are ``active`` (B,) → is_token (B,), whether it is text.

    The states say what the next position takes in: ``token_ids`` (-1 = none), and an embedding where ``wants_audio``.
    """

    def __init__(self, interleaver: Interleaver) -> None:
        super().__init__("policy", interleaver.init_policy(1))
        self._interleaver = interleaver

    def example(self, batch: int, generator: torch.Generator) -> Tensors:
        output = torch.randint(self._interleaver.blank_id + 1, (batch,), generator=generator)
        return {"output": output, "active": torch.rand(batch, generator=generator) > 0.3}

    def step(self, inputs: Tensors, state: Any) -> tuple[Tensors, StreamingState]:
        is_token, after = self._interleaver.advance(inputs["output"], inputs["active"], state)
        return {"is_token": is_token}, after


@torch.no_grad()
def programs_of(system: System) -> list[Program]:
    """The programs that a streaming client of ``system`` runs: encoder; but for CTC, decoder and policy too.

    Raises InputError for a system that has none: it does not stream, is of another kind, does not search greedily, or its streams end
    at a capacity.
    """
    name = getattr(system, "component_name", type(system).__name__)
    if not streams(system) or not isinstance(system, SpeechReaLLM | Transducer | CTC):
        raise InputError(f"system '{name}' has no steps to export: only speech_reallm, transducer and ctc have")
    if isinstance(system, CTC):
        return [LabelScores(system)]
    searcher: Any = system.searcher
    if getattr(type(searcher), "choose", None) is not GreedySearcher.choose:
        raise InputError(
            f"searcher '{searcher.component_name}': exported programs are searched greedily: give the system the searcher 'greedy'"
        )
    if isinstance(system, Transducer):
        return [
            JoinerInputs(system),
            DecoderProgram(system._decoder, system.predictor, system.joiner),
            PolicyProgram(system._model.interleaver),
        ]
    capacity = system._model.capacity
    if capacity:
        raise InputError(f"the decoder has full attention, and its streams end after {capacity} positions: export one with a window")
    return [SpeechEmbeddings(system), DecoderProgram(system.decoder, system.decoder), PolicyProgram(system.interleaver)]
