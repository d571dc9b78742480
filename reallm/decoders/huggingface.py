"""A causal language model of ``transformers`` as a decoder: pre-trained, with LoRA, or from random weights."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from reallm.decoders import _huggingface_llm as llms
from reallm.errors import InputError, at_least
from reallm.layers.causal_attention import window_mask
from reallm.protocols import more_room
from reallm.registry import register, spec_of
from reallm.streaming.host import require_all
from reallm.streaming.state import StreamingState
from reallm.tokenizers.character import process_folder

MOST_PADDING = 1024
"""Rows that a published LLM may have beyond its tokenizer's tokens, to make their number round."""

logger = logging.getLogger(__name__)


class HeadWithBlank(nn.Module):
    """The LLM's own output layer for the tokens, and a row of its own for BLANK.

    Args:
        head: h (…, D) → logits (…, V or more).
        dim: D.
        tokens: how many of the head's outputs are tokens: V - 1.
    """

    def __init__(self, head: nn.Module, dim: int, tokens: int) -> None:
        super().__init__()
        self.head, self.tokens = head, tokens
        self.blank = nn.Linear(dim, 1, bias=False)
        nn.init.normal_(self.blank.weight, std=0.02)

    def forward(self, h: Tensor) -> Tensor:
        """h (…, D) → logits (…, V), BLANK last."""
        return torch.cat([self.head(h)[..., : self.tokens], self.blank(h.to(self.blank.weight.dtype))], dim=-1)


@dataclass
class RingState(StreamingState):
    """Rings of keys and values, W slots a row: position p lies in slot p mod W."""

    position: Tensor  # (B,) int64, positions that the row has consumed
    keys: tuple[Tensor, ...]  # a layer: (B, kv_heads, W, head_dim), in the LLM's own type
    values: tuple[Tensor, ...]  # likewise


@register("decoder", "huggingface")
class HuggingFaceDecoder(nn.Module):
    """A causal language model of ``transformers`` that reads embeddings, and answers its own tokens or BLANK.

    Llama, Qwen, Mistral, GPT-2 and others whose attention takes a mask. BLANK is a new output row, beside the LLM's own output layer;
    it has an input row only where it is fed back. Streaming keeps the last positions in rings of a fixed size.

    Args:
        vocab_size: V, the tokenizer's tokens and BLANK.
        config: the LLM's config.json, as published, or made by ``tools/llm_config.py``.
        weights: the folder with its pre-trained weights (safetensors); default: random ones. With LoRA a bundle has this name in
            their place.
        window: positions that a position attends to, itself included, in training and in streaming; a layer whose own sliding window is
            smaller keeps that. 0 = all.
        capacity: with window 0, the most positions that a stream may have. An LLM with a table of positions (GPT-2: 1,024) needs
            one, up to the table's.
        lora_rank: r of LoRA: the LLM is frozen, the low-rank maps and BLANK are trained. 0 = every weight is trained.
        lora_alpha: the low-rank maps are scaled by alpha / r.
        lora_targets: names of the linear maps that get one, such as [q_proj, v_proj]; default: all but the output layer.
        dtype: of a frozen LLM's weights.
        gradient_checkpointing: training computes each layer twice, and stores its input alone.
        blank_input: BLANK has an input row, for an interleaver that feeds it back.
        fingerprint: of the weights that LoRA was trained beside; a bundle says it.

    Raises InputError for sizes out of range; a window and a capacity, or neither; a config.json or weights that are missing or
    damaged, not each other's, or not those of ``fingerprint``; a vocabulary that is not the tokenizer's; an LLM that cannot be streamed;
    LoRA without weights; and where memory is too small.
    """

    def __init__(
        self,
        vocab_size: int,
        config: Path,
        weights: str | None = None,
        window: int = 1024,
        capacity: int = 0,
        lora_rank: int = 0,
        lora_alpha: float = 32.0,
        lora_targets: Sequence[str] | None = None,
        dtype: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: bool = False,
        blank_input: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        at_least(2, vocab_size=vocab_size)
        at_least(0, window=window, capacity=capacity, lora_rank=lora_rank)
        super().__init__()
        if (window > 0) == (capacity > 0):
            raise InputError(f"window {window}, capacity {capacity}: give a window, or window 0 and the capacity of full attention")
        if lora_rank and weights is None:
            raise InputError(f"lora_rank {lora_rank} without weights: LoRA goes beside pre-trained ones; name their folder as 'weights'")
        if dtype not in ("float32", "bfloat16") or (dtype != "float32" and not lora_rank):
            raise InputError(f"dtype '{dtype}': float32, or, with lora_rank above 0, bfloat16: weights that are trained are float32")
        read = llms.read_config(Path(config))
        tokens, rows = vocab_size - 1, int(read.vocab_size)
        if not tokens <= rows <= tokens + MOST_PADDING:
            raise InputError(f"{config} has a vocabulary of {rows}, the tokenizer one of {tokens}: take the tokenizer of this very LLM")
        if weights is not None:
            _check_tokenizer(Path(weights), tokens, rows)
        # Weights of a known fingerprint are those that the bundle was trained beside, with its tokenizer.
        self.tokenizer_fingerprint = None if weights is None or fingerprint else llms.tokenizer_fingerprint(Path(weights))
        self.vocab_size, self.window, self.capacity = vocab_size, window, capacity
        self.lora = lora_rank > 0
        self.layer_windows = llms.windows(read)
        self.cache_shapes = llms.cache_shapes(read)
        torch_dtype: torch.dtype = getattr(torch, dtype)
        llm: Any
        if weights is None:
            llm = llms.empty(read)
        else:
            own = llms.check_fingerprint(Path(weights), fingerprint) if self.lora else ""
            llm = llms.load(read, Path(weights), torch_dtype, trained=not self.lora)
        if self.lora:
            llms.add_lora(llm, lora_rank, lora_alpha, lora_targets)
            self.register_buffer("base_fingerprint", torch.tensor(list(bytes.fromhex(own)), dtype=torch.uint8))
            self.weights = str(weights)
        self.positions = llms.make_endless(llm)
        if self.positions and not 0 < capacity <= self.positions:
            raise InputError(
                f"window {window}, capacity {capacity}: {read.model_type} has a table of {self.positions} positions: "
                f"set window to 0 and capacity to at most {self.positions}"
            )
        self.input_dim = int(llm.get_input_embeddings().weight.size(1))
        head = llm.get_output_embeddings()
        llm.set_output_embeddings(HeadWithBlank(head, int(head.weight.size(1)), tokens))
        self.gradient_checkpointing = gradient_checkpointing
        if gradient_checkpointing:
            llms.compute_layers_twice(llm)
        self.llm: Any = llm
        self.blank_embedding = nn.Parameter(torch.randn(self.input_dim) * 0.02) if blank_input else None
        self.reads_blank = blank_input
        self.trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad}
        if self.lora:
            self.register_state_dict_post_hook(_keep_what_is_trained)
            self.register_load_state_dict_pre_hook(_refuse_another_base)
            self.register_load_state_dict_post_hook(_base_is_not_missing)

    @classmethod
    def tiny(cls) -> "HuggingFaceDecoder":
        """A Llama of two layers, four query heads, two key heads, with a window of five positions."""
        from transformers import LlamaConfig

        folder = process_folder() / "tiny_llama"
        LlamaConfig(
            vocab_size=10, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
        ).save_pretrained(folder)
        return cls(vocab_size=11, config=folder / "config.json", window=5, blank_input=True)

    def bundle_kwargs(self) -> dict[str, Any]:
        """What a bundle builds the decoder from: weights that were trained are in the bundle, a frozen LLM is named."""
        given = dict(spec_of(self).kwargs)
        if not self.lora:
            return {name: value for name, value in given.items() if name != "weights"}
        stored: Any = self.base_fingerprint
        return {**given, "weights": str(Path(self.weights).resolve()), "fingerprint": bytes(stored.tolist()).hex()}

    @property
    def _table(self) -> nn.Embedding:
        table = self.llm.get_input_embeddings()
        assert isinstance(table, nn.Embedding)
        return table

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D_lm). Raises InputError for BLANK where it has no input row."""
        blank = token_ids == self.vocab_size - 1
        embedded: Tensor = self._table(token_ids.clamp(max=self.vocab_size - 2))
        if self.blank_embedding is not None:
            return torch.where(blank.unsqueeze(-1), self.blank_embedding.to(embedded.dtype), embedded)
        require_all(~blank, "BLANK is fed back, and the decoder has no input row for it: set its blank_input to true")
        return embedded

    def forward(self, inputs: Tensor, lens: Tensor) -> Tensor:
        """inputs (B, L, D_lm), lens (B,) → logits (B, L, V). What lies beyond a row's length cannot reach what lies before.

        Raises InputError for more positions than the LLM's table has.
        """
        length = inputs.size(1)
        if self.positions and length > self.positions:
            raise InputError(
                f"a sequence of {length} positions is longer than the {self.positions} of {self.llm.config.model_type}'s table: "
                "take shorter utterances, or an LLM with rotary positions"
            )
        masks = {kind: window_mask(length, self._limit(own) or None, inputs.device) for kind, own in self.layer_windows.items()}
        if len(masks) > 1 and any(mask is not None for mask in masks.values()):
            causal = torch.ones(length, length, dtype=torch.bool, device=inputs.device).tril()
            masks = {kind: causal if mask is None else mask for kind, mask in masks.items()}
        positions = torch.arange(length, device=inputs.device).unsqueeze(0)
        return self._run(inputs, {kind: None if mask is None else mask[None, None] for kind, mask in masks.items()}, positions)

    def init_state(self, batch: int, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> RingState:
        """The state of ``batch`` new streams. Keys and values have the type of the LLM's weights, whatever ``dtype`` is."""
        size = self.window or self.capacity
        kept = self._table.weight.dtype

        def rings(widths: list[tuple[int, int]]) -> tuple[Tensor, ...]:
            return tuple(torch.zeros(batch, heads, size, width, device=device, dtype=kept) for heads, width in widths)

        keys = rings([(heads, width) for heads, width, _ in self.cache_shapes])
        values = rings([(heads, width) for heads, _, width in self.cache_shapes])
        return RingState(torch.zeros(batch, dtype=torch.int64, device=device), keys, values)

    def step(self, inputs: Tensor, active: Tensor, state: RingState) -> tuple[Tensor, RingState]:
        """One position of each active row: inputs (B, D_lm), active (B,) → logits (B, V), state.

        Raises InputError for a row that is beyond the capacity.
        """
        from reallm.layers.transformers_cache import RingCache

        assert not (self.training and self.gradient_checkpointing), "it would leave the rings out"
        position = state.position
        if self.capacity:
            room = ~active | (position < self.capacity)
            require_all(room, f"a stream is longer than the {self.capacity} positions of full attention: {more_room(self)}")
        size = self.window or self.capacity
        age = (position.unsqueeze(1) - torch.arange(size, device=inputs.device)) % size  # (B, W), of what will lie in each slot
        filled = age <= position.unsqueeze(1)
        masks = {kind: (filled & (age < (self._limit(own) or size)))[:, None, None] for kind, own in self.layer_windows.items()}
        cache = RingCache(state.keys, state.values, position % size)
        at = position.clamp(max=self.positions - 1) if self.positions else position  # a full row, which rests, has no position
        logits = self._run(inputs.unsqueeze(1), masks, at.unsqueeze(1), past_key_values=cache, use_cache=True)
        return logits[:, 0], RingState(position + active, state.keys, state.values)

    @property
    def more_room(self) -> str | None:
        """See protocols.Decoder: a table of positions cannot be made longer, and goes with no window."""
        if not self.positions:
            return None
        table = f"{self.llm.config.model_type}'s table of {self.positions} positions"
        return f"raise the capacity up to {table}" if self.capacity < self.positions else f"take an LLM without {table}, such as Llama"

    def _limit(self, own: int) -> int:
        """Positions that a layer with a sliding window of its own attends to; 0 = all."""
        return min(filter(None, (own, self.window)), default=0)

    def _run(self, inputs: Tensor, masks: Mapping[str, Tensor | None], positions: Tensor, **cache: Any) -> Tensor:
        mask: Any = masks if len(masks) > 1 and None not in masks.values() else next(iter(masks.values()))
        inputs = inputs.to(self._table.weight.dtype)
        cache = cache or {"use_cache": False}
        logits: Tensor = self.llm(inputs_embeds=inputs, attention_mask=mask, position_ids=positions, **cache).logits
        return logits


def _check_tokenizer(folder: Path, tokens: int, rows: int) -> None:
    """Raises InputError where another tokenizer lies beside the weights; warns where none does, and rows are left that may be anything."""
    own = llms.tokenizer_size(folder)
    if own not in (None, tokens):
        raise InputError(f"the tokenizer in {folder} has {own} tokens, the one that is used {tokens}: take the tokenizer of this very LLM")
    if own is None and rows > tokens:
        logger.warning(
            "%s has a vocabulary of %d, the tokenizer one of %d, and no tokenizer.json to compare with: if it is not padding, the "
            "tokenizer is another LLM's",
            folder,
            rows,
            tokens,
        )


def _keep_what_is_trained(decoder: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    kept = {*decoder.trained, "base_fingerprint"}
    for name in [n for n in state if n.startswith(prefix) and n.removeprefix(prefix) not in kept]:
        del state[name]


def _refuse_another_base(decoder: Any, state: dict[str, Any], prefix: str, *rest: Any) -> None:
    stored = state.get(f"{prefix}base_fingerprint")
    if stored is not None and not torch.equal(stored.cpu(), decoder.base_fingerprint.cpu()):
        own, wanted = (bytes(t.tolist()).hex() for t in (decoder.base_fingerprint, stored))
        raise llms.another_base(decoder.weights, own, wanted)


def _base_is_not_missing(decoder: Any, keys: Any) -> None:
    """The frozen weights are in no checkpoint."""
    frozen = {name for name, _ in decoder.named_parameters(remove_duplicate=False)} - decoder.trained
    endings = tuple(f".{name}" for name in frozen)
    keys.missing_keys[:] = [key for key in keys.missing_keys if not f".{key}".endswith(endings)]
