"""Language models of transformers as decoders: against transformers' own forward, as published folders, with LoRA, and what goes wrong."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from reallm.bundle import export, load
from reallm.contract.decoder import CHECKS
from reallm.decoders import _huggingface_llm as llms
from reallm.decoders.huggingface import HuggingFaceDecoder
from reallm.errors import CapacityError, InputError
from reallm.interleavers.blank import BlankInterleaver
from reallm.layers.endless_rotary import EndlessRotary
from reallm.registry import find
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.engine import Engine
from reallm.streaming.recognizer import Recognizer
from reallm.systems.reallm import ReaLLM
from reallm.training.initialize import take_weights

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


def lora(folders: dict[str, Path], name: str = "llama", **options: Any) -> HuggingFaceDecoder:
    """With maps that are not 0."""
    decoder = decoder_of(name, folders, lora_rank=2, **options)
    torch.manual_seed(5)
    for parameter in decoder.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    return decoder.eval()


def test_only_lora_and_blank_are_trained_and_kept(folders: dict[str, Path]) -> None:
    decoder = lora(folders, lora_targets=["q_proj", "v_proj"])
    trained = {name for name, parameter in decoder.named_parameters() if parameter.requires_grad}
    assert len(trained) == 3 * 2 * 2 + 1 and all("lora_" in name or "blank" in name for name in trained)
    assert all("q_proj" in name or "v_proj" in name for name in trained if "lora_" in name)
    assert set(decoder.state_dict()) == {*trained, "base_fingerprint"}
    before = {name: value.clone() for name, value in decoder.named_parameters()}
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=0.1)
    decoder(torch.randn(1, 9, 16), torch.tensor([9])).square().sum().backward()
    optimizer.step()
    assert {name for name, value in decoder.named_parameters() if not torch.equal(value, before[name])} == trained


def test_a_checkpoint_of_lora_fits_its_base_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    state = lora(folders).state_dict()
    again = decoder_of("llama", folders, lora_rank=2).eval()
    again.load_state_dict(state)
    inputs, lens = torch.randn(1, 9, 16), torch.tensor([9])
    assert torch.equal(again(inputs, lens), lora(folders)(inputs, lens))
    other = published(LLMS["llama"][0], tmp_path / "other", seed=1)
    beside = HuggingFaceDecoder(TOKENS + 1, other / "config.json", str(other), window=7, lora_rank=2)
    with pytest.raises(InputError, match=r"trained beside another LLM than the one in .*other \(fingerprint"):
        beside.load_state_dict(state)
    incomplete = {name: value for name, value in state.items() if "lora_A" not in name}
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*lora_A"):
        again.load_state_dict(incomplete)


def test_the_fingerprint_is_of_the_weights_not_of_their_files(folders: dict[str, Path], tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    model.save_pretrained(tmp_path / "shards", max_shard_size="5KB")
    assert len(llms.weight_files(tmp_path / "shards")) > 2
    assert llms.fingerprint(tmp_path / "shards") == llms.fingerprint(folders["llama"])
    inputs, lens = torch.randn(1, 9, 16), torch.tensor([9])
    config = folders["llama"] / "config.json"
    of_shards, of_one = (HuggingFaceDecoder(TOKENS + 1, config, str(at), window=7).eval() for at in (tmp_path / "shards", folders["llama"]))
    text = slice(None, TOKENS)  # the row of BLANK is new, and random
    assert torch.equal(of_shards(inputs, lens)[..., text], of_one(inputs, lens)[..., text])
    with torch.no_grad():
        model.model.layers[2].mlp.up_proj.weight[-1, 3] += 1e-3
    model.save_pretrained(tmp_path / "changed")
    assert llms.fingerprint(tmp_path / "changed") != llms.fingerprint(folders["llama"])


def system_of(decoder: HuggingFaceDecoder, folder: Path, tokenizer: Any = None) -> Any:
    encoder = find("encoder", "conformer").tiny()
    tokenizer = tokenizer or find("tokenizer", "word").train(["zero one two three four five six seven eight nine"], folder / "words.json")
    return find("system", "speech_reallm")(
        frontend=find("frontend", "log_mel")(sample_rate=8000, mels=encoder.input_dim),
        encoder=encoder,
        adapter=find("adapter", "stack")(input_dim=encoder.output_dim, output_dim=decoder.input_dim, stride=2),
        decoder=decoder,
        interleaver=find("interleaver", "blank")(blank_id=tokenizer.vocab_size),
        searcher=find("searcher", "greedy").tiny(),
        tokenizer=tokenizer,
    ).eval()


CARD = {"license": "none", "training_data": "none"}


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_bundle_holds_an_llm_that_was_trained(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    system = system_of(decoder_of(name, folders), tmp_path)
    export(system, tmp_path / "bundle", CARD, half=False)
    assert str(folders[name]) not in (tmp_path / "bundle/bundle.json").read_text()
    loaded: Any = load(tmp_path / "bundle")
    inputs, lens = torch.randn(2, 9, 16), torch.tensor([9, 4])
    assert torch.equal(loaded.decoder(inputs, lens), system.decoder(inputs, lens))
    wav, samples = torch.randn(1, 1280), torch.tensor([1280])
    assert torch.equal(loaded.recognize(wav, samples).token_ids, system.recognize(wav, samples).token_ids)


def test_a_bundle_of_lora_names_its_base(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "base"
    shutil.copytree(folders["llama"], base)
    monkeypatch.chdir(tmp_path)
    system = system_of(lora({"llama": Path("base")}), tmp_path)
    export(system, tmp_path / "bundle", CARD, half=False)
    monkeypatch.undo()
    assert not any(name.startswith("decoder.llm.model.embed") for name in load_file(tmp_path / "bundle/model.safetensors"))
    inputs, lens = torch.randn(2, 9, 16), torch.tensor([9, 4])
    loaded: Any = load(tmp_path / "bundle")
    assert torch.equal(loaded.decoder(inputs, lens), system.decoder(inputs, lens))
    published(LLMS["llama"][0], base, seed=1)
    needed = llms.fingerprint(folders["llama"])[:12]
    with pytest.raises(InputError, match=rf"decoder 'huggingface'.*another LLM than the one in .*base .*needed {needed}"):
        load(tmp_path / "bundle")
    shutil.rmtree(base)
    with pytest.raises(InputError, match=rf"no LLM in .*base.*; needed is the LLM of fingerprint {needed}"):
        load(tmp_path / "bundle")


def test_init_from_lora_beside_another_base_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    other = published(LLMS["llama"][0], tmp_path / "other", seed=1)
    stored = system_of(lora(folders), tmp_path).state_dict()
    with pytest.raises(InputError, match="trained beside another LLM"):
        take_weights(system_of(lora({"llama": other}), tmp_path), stored)


def test_a_frozen_llm_may_be_bfloat16(folders: dict[str, Path]) -> None:
    decoder, full = lora(folders, dtype="bfloat16"), lora(folders)
    assert decoder.llm.get_input_embeddings().weight.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in decoder.parameters() if parameter.requires_grad)
    inputs = torch.randn(2, 12, 16)
    parallel = decoder(inputs, torch.tensor([12, 12]))
    assert parallel.dtype == torch.float32
    torch.testing.assert_close(parallel, full(inputs, torch.tensor([12, 12])), rtol=0.1, atol=0.1)
    torch.testing.assert_close(streamed(decoder, inputs), parallel, rtol=0.1, atol=0.1)
    parallel.sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in decoder.parameters() if p.requires_grad and p.grad is not None)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_gradient_checkpointing_changes_no_gradient(name: str, folders: dict[str, Path]) -> None:
    gradients = []
    for twice in (False, True):
        decoder = lora(folders, name, gradient_checkpointing=twice).train()
        inputs = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0)).requires_grad_()
        torch.manual_seed(0)
        computed: list[Any] = []
        first = next(module for key, module in decoder.llm.named_modules() if key.endswith(".0.mlp"))
        first.register_forward_pre_hook(lambda *call, done=computed: done.append(call))
        decoder(inputs, torch.tensor([9, 9])).square().sum().backward()
        assert len(computed) == (2 if twice else 1)
        gradients.append([inputs.grad, *(p.grad for p in decoder.parameters() if p.requires_grad)])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_an_age_of_months_keeps_the_angles(folders: dict[str, Path]) -> None:
    """Rotary positions depend on differences only, so logits at position 28 · 10^8 equal those at position 0 for the same window."""
    decoder = decoder_of("llama", folders).eval()
    inputs, active = torch.randn(1, 30, 16), torch.tensor([True])
    young, old = decoder.init_state(1), decoder.init_state(1)
    old.position += 4 * 7 * 10**8
    for step in range(30):  # after window · layers positions nothing of the old stream's empty ring is left
        a, young = decoder.step(inputs[:, step], active, young)
        b, old = decoder.step(inputs[:, step], active, old)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_angles_go_on_where_those_of_the_model_end() -> None:
    model = AutoModelForCausalLM.from_config(LLMS["llama"][0])
    own = model.model.rotary_emb
    positions = torch.arange(4000, 4200).unsqueeze(0)
    for mine, theirs in zip(EndlessRotary(own)(torch.zeros(1), positions), own(torch.zeros(1), positions), strict=True):
        assert torch.equal(mine[:, :96], theirs[:, :96])
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("capacity", "fix"),
    [
        (3, "raise the capacity up to gpt2's table of 32 positions"),
        (32, "take an LLM without gpt2's table of 32 positions, such as Llama"),
    ],
)
def test_a_stream_longer_than_the_table_of_positions(capacity: int, fix: str, folders: dict[str, Path]) -> None:
    decoder = decoder_of("gpt2", folders, capacity=capacity).eval()
    assert decoder.capacity == capacity
    state, active = decoder.init_state(1), torch.tensor([True])
    for _ in range(capacity):
        _, state = decoder.step(torch.randn(1, 16), active, state)
    with pytest.raises(InputError, match=f"longer than the {capacity} positions of full attention: {fix}"):
        decoder.step(torch.randn(1, 16), active, state)
    _, resting = decoder.step(torch.randn(1, 16), ~active, state)
    assert resting.position.tolist() == [capacity]


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "options", "advice"),
    [
        ("gpt2", {"capacity": 32}, "take an LLM without gpt2's table of 32 positions, such as Llama"),
        ("gpt2", {"capacity": 12}, "raise the capacity up to gpt2's table of 32 positions"),
        ("llama_full", {}, "raise the capacity or give the decoder a window"),
    ],
)
def test_what_a_user_reads_whose_stream_is_longer_than_the_llm_has_room_for(
    name: str, options: dict[str, int], advice: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    system = system_of(decoder_of(name, folders, **options), tmp_path)
    with pytest.raises(CapacityError, match=f"^stream 0 of 1 needs more than .* positions: split it, or {advice}$"):
        system.recognize(torch.randn(1, 80000), torch.tensor([80000]))
    audio, refused = 0.1 * torch.randn(80000), pytest.raises(CapacityError, match=f"the decoder's capacity: split the audio, or {advice}$")
    stream, other = Recognizer(system).stream(), Engine(system, slots=1).stream()
    with refused:
        stream.accept_waveform(audio, 8000)
        stream.finish()
    with refused:
        other.push(audio, 8000)
        other.finish()


def test_sequences_and_settings_beyond_the_table_of_positions(folders: dict[str, Path]) -> None:
    decoder = decoder_of("gpt2", folders)
    with pytest.raises(InputError, match="a sequence of 33 positions is longer than the 32 of gpt2's table"):
        decoder(torch.randn(1, 33, 16), torch.tensor([33]))
    for options in ({"window": 7, "capacity": 0}, {"capacity": 33}):
        with pytest.raises(InputError, match="gpt2 has a table of 32 positions: set window to 0 and capacity to at most 32"):
            decoder_of("gpt2", folders, **options)


def test_blank_has_an_input_row_only_where_it_is_asked_for(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="no input row for it: set its blank_input to true"):
        decoder_of("llama", folders).embed(torch.tensor([TOKENS]))
    for name in ("blank_fed", "delayed_stream"):
        interleaver: Any = find("interleaver", name)(blank_id=TOKENS)
        with pytest.raises(InputError, match=f"^interleaver '{name}' feeds BLANK, and decoder 'huggingface' has no input row"):
            ReaLLM(decoder_of("llama", folders), interleaver, GreedySearcher())
        ReaLLM(decoder_of("llama", folders, blank_input=True), interleaver, GreedySearcher())
    ReaLLM(decoder_of("llama", folders), BlankInterleaver(blank_id=TOKENS), GreedySearcher())
    fed = decoder_of("llama", folders, blank_input=True)
    assert fed.embed(torch.tensor([[0, TOKENS]])).shape == (1, 2, 16)
    assert "blank_embedding" in dict(fed.named_parameters())


def edited(folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(folder, target)
    values = json.loads((folder / "config.json").read_text()) | changes
    (target / "config.json").write_text(json.dumps({key: value for key, value in values.items() if value is not None}))
    return target


def test_folders_that_are_no_llm(folders: dict[str, Path], tmp_path: Path) -> None:
    def build(folder: Path, tokens: int = TOKENS, **options: Any) -> None:
        HuggingFaceDecoder(tokens + 1, folder / "config.json", str(folder), **{"window": 7, **options})

    llama = folders["llama"]
    with pytest.raises(InputError, match=r"config.json does not exist"):
        build(tmp_path)
    bare = edited(llama, tmp_path / "bare")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"has no weights \(model.safetensors is not there\); pickled weights are not loaded"):
        build(bare)
    with pytest.raises(InputError, match=r"has a vocabulary of 10, the tokenizer one of 11"):
        build(llama, tokens=11)
    with pytest.raises(InputError, match=r"has a vocabulary of 1034, the tokenizer one of 9"):
        build(edited(llama, tmp_path / "padded", vocab_size=1034), tokens=9)
    with pytest.raises(InputError, match=r"model_type 'lama' \(did you mean 'llama'"):
        build(edited(llama, tmp_path / "unknown", model_type="lama"))
    with pytest.raises(InputError, match="weights of this LLM are quantized"):
        build(edited(llama, tmp_path / "quantized", quantization_config={"quant_method": "gptq"}))
    with pytest.raises(InputError, match=r"lacks 9 weights of llama, such as 'model\.layers\.3"):
        build(edited(llama, tmp_path / "deeper", num_hidden_layers=4))
    with pytest.raises(InputError, match=r"9 weights have other sizes than its config.json says, such as 'model\.layers\.0"):
        build(edited(llama, tmp_path / "wider", intermediate_size=48))
    cut = edited(llama, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut/model.safetensors is damaged"):
        build(cut)
    adapter = edited(llama, tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="holds an adapter of peft, not an LLM"):
        build(adapter)
    with pytest.raises(InputError, match="gemma3 is more than a language model"):
        build(edited(llama, tmp_path / "images", model_type="gemma3"))
    with pytest.raises(InputError, match=r"bloom computes its attention by itself"):
        build(edited(llama, tmp_path / "alibi", model_type="bloom"))
    with pytest.raises(InputError, match=r"do not fit each other"):
        build(edited(llama, tmp_path / "odd", num_key_value_heads=3))
    with pytest.raises(InputError, match=r"lora_targets: llama has no 'q_porj' \(did you mean 'q_proj'"):
        build(llama, lora_rank=2, lora_targets=["q_porj"])
    with pytest.raises(InputError, match="lora_rank 2 without weights"):
        HuggingFaceDecoder(TOKENS + 1, llama / "config.json", lora_rank=2)
    with pytest.raises(InputError, match="dtype 'bfloat16': float32, or, with lora_rank above 0"):
        build(llama, dtype="bfloat16")
    with pytest.raises(InputError, match="window 7, capacity 7"):
        build(llama, capacity=7)


def test_a_tokenizer_that_is_not_the_llms(folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def build(folder: Path, tokens: int) -> HuggingFaceDecoder:
        return HuggingFaceDecoder(tokens + 1, folder / "config.json", str(folder), window=7)

    bare = folders["llama"]
    build(bare, TOKENS)
    assert not caplog.text, "nothing is left over"
    build(bare, TOKENS - 1)
    assert f"{bare} has a vocabulary of 10, the tokenizer one of 9, and no tokenizer.json to compare with" in caplog.text
    caplog.clear()
    padded = published(LlamaConfig(**{**SIZES, "vocab_size": 300}), tmp_path / "padded")
    own = find("tokenizer", "huggingface").tiny(padded)
    assert llms.tokenizer_size(padded) == own.vocab_size == 291
    assert build(padded, 291).vocab_size == 292
    with pytest.raises(InputError, match=r"the tokenizer in .*padded has 291 tokens, the one that is used 200: take the tokenizer of this"):
        build(padded, 200)
    assert not caplog.text
    (padded / "tokenizer.json").write_text('{"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"id": 4}]}')
    assert llms.tokenizer_size(padded) == 5
    (padded / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"padded/tokenizer\.json is damaged"):
        build(padded, 291)


def test_a_tokenizer_of_as_many_tokens_as_the_llms_own_is_told_from_it(tmp_path: Path) -> None:
    llm = published(LlamaConfig(**{**SIZES, "vocab_size": 291}), tmp_path / "llm")
    own, equal, other = (find("tokenizer", "huggingface").tiny(folder) for folder in (llm, tmp_path, None))
    content = json.loads(other.path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    other.path.write_text(json.dumps(content))
    other = type(other)(other.path)
    assert own.vocab_size == other.vocab_size == 291

    def system(tokenizer: Any, **options: Any) -> Any:
        return system_of(HuggingFaceDecoder(292, llm / "config.json", window=7, **options), tmp_path, tokenizer)

    system(equal, weights=str(llm))
    with pytest.raises(InputError, match=f"another tokenizer \\(fingerprint {own.fingerprint[:12]}\\) than the one given"):
        system(other, weights=str(llm))
    system(other)  # random weights mean no tokens
    trained = system(equal, weights=str(llm), lora_rank=2)
    export(trained, tmp_path / "bundle", CARD)
    shutil.copy(other.path, llm / "tokenizer.json")
    assert load(tmp_path / "bundle").tokenizer.fingerprint == own.fingerprint, "the bundle has its own tokenizer, and these weights"


def test_weights_that_memory_has_no_room_for(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(folders["llama"]).parameters())
    monkeypatch.setattr(llms, "free_memory", lambda: 3.0 * weights)
    needed = r"float32 needs 0.0 GiB, 0.0 are free"
    with pytest.raises(InputError, match=f"{needed}; bfloat16 needs 0.0: set dtype to bfloat16$"):
        decoder_of("llama", folders, lora_rank=2)
    with pytest.raises(InputError, match=f"{needed}; bfloat16 needs 0.0: set lora_rank above 0, .* and dtype to bfloat16$"):
        decoder_of("llama", folders)
    with pytest.raises(InputError, match=f"weights of a llama: {needed}; take a machine with more, or a smaller LLM$"):
        HuggingFaceDecoder(TOKENS + 1, folders["llama"] / "config.json", window=7)
    decoder_of("llama", folders, lora_rank=2, dtype="bfloat16")
    monkeypatch.setattr(llms, "free_memory", lambda: 1.0 * weights)
    with pytest.raises(InputError, match="take a machine with more, or a smaller LLM"):
        decoder_of("llama", folders, lora_rank=2, dtype="bfloat16")
