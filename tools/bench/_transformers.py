"""A decoder of reallm written with ``transformers``: LlamaForCausalLM and its dynamic cache, with the same weights."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import DynamicSlidingWindowLayer

from reallm.streaming.state import StreamingState


def llama_of(decoder: Any) -> LlamaForCausalLM:
    """LlamaForCausalLM with the weights of a LlamaDecoder."""
    attention = decoder.layers[0].attention
    config = LlamaConfig(
        vocab_size=decoder.vocab_size,
        hidden_size=decoder.input_dim,
        intermediate_size=decoder.layers[0].feed_forward.gate.out_features,
        num_hidden_layers=len(decoder.layers),
        num_attention_heads=attention.heads,
        num_key_value_heads=attention.kv_heads,
        rms_norm_eps=decoder.norm.eps,
        rope_theta=decoder.rope_base,
        max_position_embeddings=1 << 20,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        attn_implementation="sdpa",
    )
    names = {
        "token_embedding.": "model.embed_tokens.",
        "layers.": "model.layers.",
        "norm.": "model.norm.",
        "output.": "lm_head.",
        ".attention_norm.": ".input_layernorm.",
        ".feed_forward_norm.": ".post_attention_layernorm.",
        **{f".attention.{part}.": f".self_attn.{part[0]}_proj." for part in ("query", "key", "value", "out")},
        **{f".feed_forward.{part}.": f".mlp.{part}_proj." for part in ("gate", "up", "down")},
    }

    def named(key: str) -> str:
        for ours, theirs in names.items():
            if key.startswith(ours) if not ours.startswith(".") else ours in key:
                key = key.replace(ours, theirs, 1)
        return key

    parameter = next(decoder.parameters())
    with torch.device(parameter.device):
        llama = LlamaForCausalLM(config).to(parameter.dtype).eval()
    llama.load_state_dict({named(key): value for key, value in decoder.state_dict().items()})
    return llama


@dataclass
class Position(StreamingState):
    """Where each row stands; the cache is the decoder's."""

    position: Tensor  # (B,) int64


class TransformersDecoder(nn.Module):
    """A LlamaDecoder's twin, one position at a time, for rows that never rest: as a dynamic cache is used.

    Args:
        decoder: the LlamaDecoder, with a window, whose weights are taken.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.vocab_size, self.input_dim, self.window = decoder.vocab_size, decoder.input_dim, decoder.window
        self.llama = llama_of(decoder)
        self.cache = Cache(layers=[])

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (…) → embeddings (…, D)."""
        return self.llama.get_input_embeddings()(token_ids)

    def init_state(self, batch: int, device: Any = "cpu", dtype: torch.dtype = torch.float32) -> Position:
        """New streams, all at once."""
        layers = self.llama.config.num_hidden_layers
        self.cache = Cache(layers=[DynamicSlidingWindowLayer(sliding_window=self.window) for _ in range(layers)])
        return Position(torch.zeros(batch, dtype=torch.int64, device=device))

    def step(self, inputs: Tensor, active: Tensor, state: Position) -> tuple[Tensor, Position]:
        """One position of all rows: inputs (B, D) → logits (B, V), state."""
        output = self.llama(
            inputs_embeds=inputs.unsqueeze(1), past_key_values=self.cache, use_cache=True, position_ids=state.position.unsqueeze(1)
        )
        return output.logits[:, 0], Position(state.position + active)
