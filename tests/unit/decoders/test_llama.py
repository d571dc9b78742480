"""The Llama decoder against Hugging Face's, and its streaming twin."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from reallm.decoders.llama import LlamaDecoder
from reallm.errors import InputError
from reallm.streaming.state import clone


def hugging_face_twin(ours: LlamaDecoder) -> LlamaForCausalLM:
    attention = ours.layers[0].attention
    theirs = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=ours.vocab_size,
            hidden_size=ours.input_dim,
            intermediate_size=ours.layers[0].feed_forward.gate.out_features,
            num_hidden_layers=len(ours.layers),
            num_attention_heads=attention.heads,
            num_key_value_heads=attention.kv_heads,
            rms_norm_eps=1e-5,
            rope_parameters={"rope_type": "default", "rope_theta": ours.rope_base},
            tie_word_embeddings=False,
        )
    )
    names = {
        "token_embedding": "model.embed_tokens",
        "norm": "model.norm",
        "output": "lm_head",
        "attention_norm": "input_layernorm",
        "feed_forward_norm": "post_attention_layernorm",
        "attention.query": "self_attn.q_proj",
        "attention.key": "self_attn.k_proj",
        "attention.value": "self_attn.v_proj",
        "attention.out": "self_attn.o_proj",
        "feed_forward.gate": "mlp.gate_proj",
        "feed_forward.up": "mlp.up_proj",
        "feed_forward.down": "mlp.down_proj",
    }
    weights = {}
    for name, value in ours.state_dict().items():
        stem = name.removesuffix(".weight")
        if stem.startswith("layers."):
            layer, part = stem.removeprefix("layers.").split(".", 1)
            weights[f"model.layers.{layer}.{names[part]}.weight"] = value
        else:
            weights[f"{names[stem]}.weight"] = value
    theirs.load_state_dict(weights)
    return theirs.double().eval()


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_equals_hugging_face(kv_heads: int) -> None:
    torch.manual_seed(0)
    ours = LlamaDecoder(vocab_size=31, dim=32, layers=3, heads=4, kv_heads=kv_heads, window=64).double().eval()
    theirs = hugging_face_twin(ours)
    inputs = torch.randn(2, 20, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(inputs_embeds=inputs).logits
        actual = ours(inputs, torch.tensor([20, 20]))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)  # theirs has RoPE tables in float32


@pytest.mark.parametrize("window", [1, 3, 7, 64])
def test_streams_with_rows_that_rest_equal_the_parallel_pass(window: int) -> None:
    torch.manual_seed(1)
    decoder = LlamaDecoder(vocab_size=9, dim=16, layers=3, heads=2, window=window).double().eval()
    inputs = torch.randn(3, 25, 16, dtype=torch.float64)
    expected = decoder(inputs, torch.tensor([25, 25, 25]))
    state = decoder.init_state(3, dtype=torch.float64)
    at = torch.zeros(3, dtype=torch.int64)
    seen = torch.zeros(3, 25, 9, dtype=torch.float64)
    while bool((at < 25).any()):
        active = (torch.rand(3) < 0.6) & (at < 25)
        position = at.clamp(max=24)
        logits, state = decoder.step(inputs[torch.arange(3), position], active, state)
        seen[active, position[active]] = logits[active]
        at = at + active
    torch.testing.assert_close(seen, expected, rtol=1e-9, atol=1e-9)


def test_nothing_before_the_window_matters() -> None:
    torch.manual_seed(2)
    decoder = LlamaDecoder(vocab_size=9, dim=16, layers=2, heads=2, window=4).double().eval()
    inputs = torch.randn(1, 20, 16, dtype=torch.float64)
    reach = 2 * (4 - 1)  # a layer reaches window - 1 further back
    other = inputs.clone()
    other[:, : 19 - reach] += 1
    lens = torch.tensor([20])
    torch.testing.assert_close(decoder(inputs, lens)[:, 19], decoder(other, lens)[:, 19], rtol=0, atol=1e-12)
    other[:, 19 - reach] += 1
    assert not torch.allclose(decoder(inputs, lens)[:, 19], decoder(other, lens)[:, 19], atol=1e-12)


def test_an_age_of_months_keeps_the_angles() -> None:
    """RoPE depends on differences only, so logits at position 10^9 equal those at position 0 for the same window."""
    torch.manual_seed(3)
    decoder = LlamaDecoder(vocab_size=9, dim=16, layers=2, heads=2, window=4).eval()
    inputs = torch.randn(1, 12, 16)
    young, old = decoder.init_state(1), decoder.init_state(1)
    old.position += 4 * 10**9
    # The empty ring of an old stream counts as heard zeros: after window · layers positions nothing of it is left.
    for step in range(12):
        a, young = decoder.step(inputs[:, step], torch.tensor([True]), young)
        b, old = decoder.step(inputs[:, step], torch.tensor([True]), old)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_full_attention_has_a_capacity() -> None:
    decoder = LlamaDecoder(vocab_size=9, dim=16, layers=2, heads=2, window=0, capacity=3)
    state, active = decoder.init_state(1), torch.tensor([True])
    for _ in range(3):
        _, state = decoder.step(torch.randn(1, 16), active, state)
    with pytest.raises(InputError, match="3 positions"):
        decoder.step(torch.randn(1, 16), active, state)
    with pytest.raises(InputError, match="window"):
        LlamaDecoder(vocab_size=9, window=0)


@pytest.mark.parametrize("limit", [{"window": 5}, {"window": 0, "capacity": 40}])
@torch.inference_mode()
def test_positions_in_one_pass_are_those_one_by_one(limit: dict[str, int]) -> None:
    torch.manual_seed(0)
    decoder = LlamaDecoder(vocab_size=11, dim=16, layers=2, heads=4, kv_heads=2, **limit).double().eval()
    stepped, rows, ahead = decoder.init_state(3, dtype=torch.float64), torch.arange(3), 4
    for number in range(3):  # of different age
        _, stepped = decoder.step(torch.randn(3, 16, dtype=torch.float64), rows <= number, stepped)
    extended = clone(stepped)
    for _ in range(6):
        inputs, count = torch.randn(3, ahead, 16, dtype=torch.float64), torch.randint(0, ahead + 1, (3,))
        logits, extension = decoder.extend(inputs, extended)
        extended = decoder.accept(extension, count, extended)
        for number in range(ahead):
            answer, stepped = decoder.step(inputs[:, number], number < count, stepped)
            torch.testing.assert_close(logits[number < count, number], answer[number < count], atol=1e-12, rtol=0)
    assert torch.equal(extended.position, stepped.position)
