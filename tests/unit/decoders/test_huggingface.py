"""Language models of transformers as decoders: against transformers' own forward, as published folders, with LoRA, and what goes wrong."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from reallm.contract.decoder import CHECKS
from reallm.decoders.huggingface import HuggingFaceDecoder

TOKENS = 10
SIZES: dict[str, Any] = {"vocab_size": TOKENS, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
LLMS: dict[str, tuple[PretrainedConfig, dict[str, int]]] = {
    "llama": (LlamaConfig(**SIZES, num_key_value_heads=2), {"window": 7}),
    "llama_full": (LlamaConfig(**SIZES), {"window": 0, "capacity": 40}),
    "mistral": (MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=4), {"window": 7}),
    "qwen2": (Qwen2Config(**SIZES, num_key_value_heads=4, use_sliding_window=True, sliding_window=3, max_window_layers=1), {"window": 7}),
    "qwen3": (Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True), {"window": 7}),
    "gpt2": (
        GPT2Config(vocab_size=TOKENS, n_embd=16, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=0),
        {"window": 0, "capacity": 30},
    ),
}


def published(config: PretrainedConfig, folder: Path, seed: int = 0) -> Path:
    """A folder like those that are published: config.json and model.safetensors."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)  # an LLM's own 0.02 would leave attention nearly even
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: published(config, tmp_path_factory.mktemp(name)) for name, (config, _) in LLMS.items()}


def decoder_of(name: str, folders: dict[str, Path], **options: Any) -> HuggingFaceDecoder:
    folder = folders[name]
    return HuggingFaceDecoder(TOKENS + 1, folder / "config.json", str(folder), **{**LLMS[name][1], **options})


def streamed(decoder: HuggingFaceDecoder, inputs: torch.Tensor) -> torch.Tensor:
    """Logits (B, L, V), step by step, in rows that rest at random, with garbage in the inputs of those."""
    rows, length = inputs.shape[:2]
    state, at = decoder.init_state(rows, dtype=inputs.dtype), torch.zeros(rows, dtype=torch.int64)
    seen = torch.zeros(rows, length, decoder.vocab_size, dtype=inputs.dtype)
    generator = torch.Generator().manual_seed(1)
    while bool((at < length).any()):
        active = (torch.rand(rows, generator=generator) < 0.6) & (at < length)
        position = at.clamp(max=length - 1)
        logits, state = decoder.step(torch.where(active[:, None], inputs[torch.arange(rows), position], 1e3), active, state)
        seen[active, position[active]] = logits[active].to(inputs.dtype)
        at = at + active
    return seen


@pytest.mark.parametrize("name", LLMS)
@torch.no_grad()
def test_streams_what_transformers_computes(name: str, folders: dict[str, Path]) -> None:
    """Float64, against the model that transformers loads from the same folder, untouched; our window by its own sliding-window masks."""
    decoder = decoder_of(name, folders).double().eval()
    theirs: Any = AutoModelForCausalLM.from_pretrained(folders[name]).double().eval()
    inputs = torch.randn(3, 25, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    age = torch.arange(25)[:, None] - torch.arange(25)

    def mask(window: int) -> torch.Tensor:
        return ((age >= 0) & (age < window))[None, None]

    own, ours = getattr(theirs.config, "sliding_window", None) or 99, decoder.window or 99
    masks = {"full_attention": mask(ours), "sliding_attention": mask(min(own, ours))}
    wanted = masks if name == "qwen2" else masks["sliding_attention"]
    expected = theirs(inputs_embeds=inputs, attention_mask=wanted).logits
    parallel = decoder(inputs, torch.tensor([25, 25, 25]))
    torch.testing.assert_close(parallel[..., :TOKENS], expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(streamed(decoder, inputs), parallel, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "qwen3", "gpt2"])
def test_keeps_the_contract(name: str, folders: dict[str, Path]) -> None:
    cls = SimpleNamespace(tiny=lambda: decoder_of(name, folders, blank_input=True), __qualname__=name)
    for check in CHECKS:
        check(cls)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_lora_keeps_the_contract(name: str, folders: dict[str, Path]) -> None:
    def tiny() -> HuggingFaceDecoder:
        decoder = decoder_of(name, folders, lora_rank=2, blank_input=True)
        for parameter_name, parameter in decoder.named_parameters():
            if "lora_B" in parameter_name:  # 0 at first, so that nothing else of LoRA would have a gradient
                torch.nn.init.normal_(parameter)
        return decoder

    for check in CHECKS:
        check(SimpleNamespace(tiny=tiny, __qualname__=name))
