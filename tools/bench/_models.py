"""The models that the benchmarks measure, with random weights, of the sizes ``80m`` and ``tiny``."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reallm import resources
from reallm.config import load
from reallm.layers.int8_linear import Int8Linear
from reallm.streaming.compiled.linear import PackedLinear
from reallm.streaming.state import StreamingState

VOCABULARY = {"80m": 1000, "tiny": 50}  # tokens, BLANK aside
TOKENS_A_SECOND = 4.0  # of English speech, in pieces of a vocabulary of 1,000

TINY = {
    "speech_reallm": (
        *("encoder:", "    dim: 16", "    layers: 2", "    heads: 2", "    hidden: 32", "    kernel: 3"),
        *("    chunk_size: 6", "    left: 24"),
        *("adapter:", "    output_dim: 32"),
        *("decoder:", "    layers: 2", "    heads: 2"),
    ),
}


def build(config: str, name: str = "speech_reallm", lines: Sequence[str] = ()) -> Any:
    """The system of hparams/systems/NAME.yaml or NAME_80m.yaml with the keys ``lines`` beside, in training mode; ``tiny``: a small one."""
    lines = (*(TINY[name] if config == "tiny" else ()), *lines)
    with tempfile.TemporaryDirectory() as folder:
        words, conf = Path(folder, "words.json"), Path(folder, "conf.yaml")
        words.write_text(json.dumps([f"w{number}" for number in range(VOCABULARY[config])]))
        head = f"tokenizer: !new:reallm.tokenizers.word.WordTokenizer\n    path: {words}\n"
        stem = name if name[-2:] == "0m" else f"{name}_80m"
        system = f"system: !include:{resources.root() / 'hparams/systems' / f'{stem}.yaml'}\n    tokenizer: !ref <tokenizer>\n"
        conf.write_text(head + system + "".join(f"    {line}\n" for line in lines))
        return load(conf).build("system")["system"]


def parameters(module: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(tensor.numel() for tensor in (*module.parameters(), *fixed_weights(module)))


def weight_bytes(*modules: nn.Module) -> int:
    """Bytes that one use of the modules reads: all their weights but embeddings, of which it takes rows."""
    tables = {id(m.weight) for module in modules for m in module.modules() if isinstance(m, nn.Embedding)}
    held = [tensor for module in modules for tensor in (*module.parameters(), *fixed_weights(module))]
    return sum(tensor.numel() * tensor.element_size() for tensor in held if id(tensor) not in tables)


def fixed_weights(module: nn.Module) -> list[Tensor]:
    """Those that are not learned any more."""
    return [part.weight for part in module.modules() if isinstance(part, (Int8Linear, PackedLinear))]


def speaking(inputs_a_second: float, length: int = 4096, seed: int = 0) -> Tensor:
    """(length,) bool, whether each position answers with a token: every input a random number of times, then BLANK.

    The numbers are Poisson's, 4 tokens a second: as uneven as speech is.
    """
    generator = torch.Generator().manual_seed(seed)
    said = torch.poisson(torch.full((length,), TOKENS_A_SECOND / inputs_a_second), generator=generator).long().tolist()
    return torch.tensor([answer for count in said for answer in (*[True] * count, False)][:length])


class Paced(nn.Module):
    """A decoder that says 4 tokens a second, whatever its weights: its logits of BLANK are overruled, at no cost to speak of.

    Args:
        decoder: any whose state has ``position`` (B,).
        blank_id: of the interleaver.
        inputs_a_second: speech embeddings.
    """

    def __init__(self, decoder: Any, blank_id: int, inputs_a_second: float) -> None:
        super().__init__()
        self.decoder, self.blank_id = decoder, blank_id
        self.vocab_size, self.input_dim = decoder.vocab_size, decoder.input_dim
        self.register_buffer("of_blank", torch.where(speaking(inputs_a_second), -1e4, 1e4))
        self.of_blank: Tensor

    @property
    def capacity(self) -> int:
        """The decoder's."""
        return int(getattr(self.decoder, "capacity", 0))

    def embed(self, token_ids: Tensor) -> Tensor:
        """The decoder's."""
        return self.decoder.embed(token_ids)

    def init_state(self, batch: int, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> StreamingState:
        """The decoder's."""
        return self.decoder.init_state(batch, device, dtype)

    def overrule(self, logits: Tensor, position: Tensor) -> Tensor:
        """Logits (…, V) of what is answered at ``position`` (…)."""
        logits[..., self.blank_id] = self.of_blank[position % self.of_blank.numel()]
        return logits

    def step(self, inputs: Tensor, active: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The decoder's, overruled."""
        position = state.position
        logits, state = self.decoder.step(inputs, active, state)
        return self.overrule(logits, position), state


class PacedAhead(Paced):
    """One that answers several positions in one pass."""

    def extend(self, inputs: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The decoder's, overruled."""
        logits, extension = self.decoder.extend(inputs, state)
        ahead = torch.arange(inputs.size(1), device=inputs.device)
        return self.overrule(logits, state.position.unsqueeze(1) + ahead), extension

    def accept(self, extension: Any, count: Tensor, state: Any) -> Any:
        """The decoder's."""
        return self.decoder.accept(extension, count, state)


def paced(system: Any) -> Any:
    """A Speech ReaLLM, in eval mode, that says 4 tokens a second."""
    kind = PacedAhead if hasattr(system.decoder, "extend") else Paced
    system.decoder = kind(system.decoder, system.interleaver.blank_id, system.sample_rate / system.period_samples)
    return system.eval()
