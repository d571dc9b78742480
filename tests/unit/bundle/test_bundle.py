"""Bundles: what comes back is what went in, and nothing but registered components is ever built."""

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from reallm import registry
from reallm.bundle import export, load, load_shared, load_system
from reallm.errors import InputError
from reallm.protocols import ChunkSpec
from reallm.registry import catalogue, register, spec_of
from reallm.streaming.recognizer import Recognizer
from reallm.tokenizers.character import CharacterTokenizer
from tests.dummies.level_bundle import METADATA, registered_level_system
from tests.dummies.recognizer import LevelSystem, say, text_of


@pytest.fixture
def level_system() -> Iterator[type[LevelSystem]]:
    with registered_level_system() as cls:
        yield cls


@pytest.fixture
def system(level_system: type[LevelSystem], tmp_path: Path) -> LevelSystem:
    torch.manual_seed(0)
    return level_system(CharacterTokenizer.tiny(tmp_path), chunk_frames=4).eval()


@pytest.fixture
def bundle(system: LevelSystem, tmp_path: Path) -> Path:
    export(system, tmp_path / "bundle", METADATA)
    return tmp_path / "bundle"


def edit(bundle: Path, change: Any) -> None:
    description = json.loads((bundle / "bundle.json").read_text())
    change(description["system"])
    (bundle / "bundle.json").write_text(json.dumps(description))


def test_round_trip(system: LevelSystem, bundle: Path) -> None:
    loaded = load(bundle)
    assert isinstance(loaded, LevelSystem)
    assert loaded.chunk_samples == system.chunk_samples
    assert loaded.tokenizer.fingerprint == system.tokenizer.fingerprint
    assert not loaded.training
    for name, weight in system.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight.half().float())
    stream = Recognizer(loaded).stream()
    stream.accept_waveform(say([2, 4]), 8000)
    assert stream.finish().text == text_of([2, 4])
    assert {p.name for p in bundle.iterdir()} == {"bundle.json", "model.safetensors", "README.md", "tokenizer.path.json"}
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in bundle.iterdir())
    assert load_file(bundle / "model.safetensors")["linear.weight"].dtype == torch.float16


def test_full_precision(system: LevelSystem, tmp_path: Path) -> None:
    export(system, tmp_path / "full", METADATA, half=False)
    assert all(torch.equal(a, b) for a, b in zip(load(tmp_path / "full").state_dict().values(), system.state_dict().values(), strict=True))


def test_a_moved_bundle_needs_nothing_of_where_it_was_made(bundle: Path, tmp_path: Path) -> None:
    shutil.move(bundle, tmp_path / "elsewhere")
    (tmp_path / "characters.json").unlink()
    again = tmp_path / "again"
    export(load(tmp_path / "elsewhere"), again, METADATA)
    assert load(again).tokenizer.decode([1]) == "a"


def test_model_card(bundle: Path) -> None:
    card = (bundle / "README.md").read_text()
    for line in ("# Levels", "| training data | none at all |", "| licence | CC0 |", "| wer | 0.1 % |"):
        assert line in card


def test_every_system_round_trips(tmp_path: Path) -> None:
    assert catalogue("system")
    for name, cls in catalogue("system").items():
        torch.manual_seed(1)
        original: Any = cls.tiny().eval()  # type: ignore[attr-defined]
        export(original, tmp_path / name, METADATA, half=False)
        loaded = load(tmp_path / name)
        wav = torch.randn(2, 3 * original.chunk_samples) * 0.1
        lens = torch.tensor([wav.size(1), wav.size(1) - 700])
        before, after = original.recognize(wav, lens), loaded.recognize(wav, lens)
        assert torch.equal(before.token_ids, after.token_ids)
        assert torch.equal(before.log_probs, after.log_probs)
        assert spec_of(loaded).kwargs.keys() == spec_of(original).kwargs.keys()


def test_all_kinds_of_arguments(level_system: type[LevelSystem], tmp_path: Path) -> None:
    @register("encoder", "holder")
    class Holder(torch.nn.Module):
        def __init__(self, file: Path | None, values: Any, inner: Any = None) -> None:
            super().__init__()
            self.file, self.values, self.inner = file, values, inner

        def encode(self, text: str) -> list[int]:
            return list(self.inner.encode(text))

    try:
        (tmp_path / "notes.txt").write_text("hello")
        shared = Holder(None, [1, (2.5, "x", None, True), {"a": [ChunkSpec(4, 8, 2), None]}])
        # HyperPyYAML gives paths as text
        holder: Any = Holder(str(tmp_path / "notes.txt"), [shared, shared], CharacterTokenizer.tiny(tmp_path))  # type: ignore[arg-type]
        export(level_system(holder), tmp_path / "bundle", METADATA)
        inner: Any = load(tmp_path / "bundle").tokenizer
    finally:
        del registry._components["encoder", "holder"]
    assert inner.file.read_text() == "hello"
    assert inner.file.parent == tmp_path / "bundle"
    assert inner.values[0] is inner.values[1]
    assert inner.values[0].values == [1, (2.5, "x", None, True), {"a": [ChunkSpec(4, 8, 2), None]}]


def unknown_component(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"]["name"] = "charakter"


def unknown_argument(s: dict[str, Any]) -> None:
    s["kwargs"]["chunk_frame"] = 3


def wrong_argument(s: dict[str, Any]) -> None:
    s["kwargs"]["chunk_frames"] = None


def missing_argument(s: dict[str, Any]) -> None:
    del s["kwargs"]["tokenizer"]


def unknown_kind(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"]["kind"] = "tokeniser"


def not_a_system(s: dict[str, Any]) -> None:
    s.update(s["kwargs"]["tokenizer"])


def outside_asset(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"]["kwargs"]["path"] = {"asset": "../characters.json"}


def outside_path(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"]["kwargs"]["path"] = "/etc/passwd"


def a_class_path(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"] = {"kind": "tokenizer", "name": "os.system", "kwargs": {}}


def a_tag_that_is_none(s: dict[str, Any]) -> None:
    s["kwargs"]["chunk_frames"] = {"!apply:os.system": "true"}


def impossible_chunk(s: dict[str, Any]) -> None:
    s["kwargs"]["chunk_frames"] = {"chunk": {"size": 0, "left": 1}}


def a_kind_that_is_a_list(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"]["kind"] = ["tokenizer"]


def a_component_of_another_kind(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"] = {"kind": "interleaver", "name": "blank", "kwargs": {"blank_id": 3}}


def a_negative_width(s: dict[str, Any]) -> None:
    s["kwargs"]["tokenizer"] = {"kind": "decoder", "name": "lstm", "kwargs": {"vocab_size": -1}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (a_kind_that_is_a_list, "kind and name must be text"),
        (a_component_of_another_kind, "system 'levels' does not take the arguments given"),
        (a_negative_width, "decoder 'lstm': vocab_size is -1: at least 1"),
        (unknown_component, "unknown tokenizer 'charakter' .did you mean 'character'"),
        (unknown_argument, "no argument 'chunk_frame' .did you mean 'chunk_frames'"),
        (wrong_argument, "system 'levels' does not take the arguments given"),
        (missing_argument, "tokenizer"),
        (unknown_kind, "unknown component kind 'tokeniser' .did you mean 'tokenizer'"),
        (not_a_system, "tokenizer 'character' is not a system"),
        (outside_asset, "asset '../characters.json' is not in the folder"),
        (outside_path, "'/etc/passwd' outside of the bundle"),
        (a_class_path, "unknown tokenizer 'os.system'"),
        (a_tag_that_is_none, "neither a value nor a component"),
        (impossible_chunk, "needs size >= 1"),
    ],
)
def test_a_wrong_description_is_refused(bundle: Path, change: Any, message: str) -> None:
    edit(bundle, change)
    with pytest.raises(InputError, match=message) as error:
        load(bundle)
    assert str(error.value).startswith(f"bundle {bundle}: ")
    assert "\n" not in str(error.value)


def test_a_package_that_is_missing_is_named(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchaudio", None)
    monkeypatch.setitem(sys.modules, "torchaudio.models", None)

    def with_emformer(s: dict[str, Any]) -> None:
        s["kwargs"]["chunk_frames"] = {"kind": "encoder", "name": "emformer", "kwargs": {"input_dim": 16}}

    edit(bundle, with_emformer)
    with pytest.raises(InputError, match=r"encoder 'emformer' needs torchaudio: pip install '\.\[train\]' in your clone of reallm$"):
        load(bundle)


def change_weights(bundle: Path, change: Any) -> None:
    weights = load_file(bundle / "model.safetensors")
    change(weights)
    save_file(weights, bundle / "model.safetensors")


def test_wrong_weights_are_refused(bundle: Path) -> None:
    whole = (bundle / "model.safetensors").read_bytes()
    cases = [
        (lambda w: w.pop("gain"), "lacks 1 weights, such as 'gain'"),
        (lambda w: w.update(gain=torch.zeros(3)), r"'gain' has shape \(3,\), the system needs \(2,\)"),
        (lambda w: w.update(extra=torch.zeros(3)), "has 1 weights that the system does not know, such as 'extra'"),
        (lambda w: w["gain"].fill_(float("nan")), "weight 'gain' holds NaN or infinity: copy or export it again"),
    ]
    for change, message in cases:
        change_weights(bundle, change)
        with pytest.raises(InputError, match=message):
            load(bundle)
        (bundle / "model.safetensors").write_bytes(whole)
    (bundle / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        load(bundle)
    (bundle / "model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors is missing"):
        load(bundle)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "extra/weights.pt", "tokenizer.path.json", "innocent.txt"])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_no_pickle_is_ever_opened(bundle: Path, tmp_path: Path, name: str, how: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    bomb = Bomb(tmp_path / "exploded")
    if how == "pickle":
        (bundle / name).write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, bundle / name)
    with pytest.raises(InputError, match="is a pickle or archive"):
        load(bundle)
    assert not (tmp_path / "exploded").exists()


def test_broken_folders(bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no bundle"):
        load(tmp_path / "nothing")
    with pytest.raises(InputError, match="neither a bundle"):
        load_system(tmp_path / "nothing")
    text = (bundle / "bundle.json").read_text()
    for broken in (text[:-20], "[" * 100_000):
        (bundle / "bundle.json").write_text(broken)
        with pytest.raises(InputError, match="not valid JSON"):
            load(bundle)
    (bundle / "bundle.json").write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(InputError, match="format"):
        load(bundle)


def test_the_bundle_of_an_experiment(bundle: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    shutil.copytree(bundle, exp / "bundle")
    assert isinstance(load_system(exp), LevelSystem)
    for folder in (bundle, exp):
        with pytest.raises(InputError, match="no checkpoints to average 2 of"):
            load_system(folder, average=2)


def test_what_others_share_runs_no_configuration(bundle: Path, tmp_path: Path) -> None:
    exp = tmp_path / "exp"
    exp.mkdir()
    (exp / "config.yaml").write_text(f"system: !apply:pathlib.Path.touch [!new:pathlib.Path [{tmp_path / 'exploded'}]]\n")
    with pytest.raises(InputError, match="an experiment that is not exported"):
        load_shared(exp)
    assert not (tmp_path / "exploded").exists()
    shutil.copytree(bundle, exp / "bundle")
    assert isinstance(load_shared(exp), LevelSystem)
    assert isinstance(load_shared(bundle), LevelSystem)
    with pytest.raises(InputError, match="neither a bundle"):
        load_shared(tmp_path / "nothing")


def test_export_refuses_and_leaves_nothing(
    system: LevelSystem, tmp_path: Path, level_system: type[LevelSystem], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "bundle"
    with pytest.raises(InputError, match="metadata has no 'license'"):
        export(system, out, {"training_data": "x"})
    with torch.no_grad():
        system.gain[0] = 1e6
    with pytest.raises(InputError, match="too large for half precision"):
        export(system, out, METADATA)
    with torch.no_grad():
        system.gain[0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        export(system, out, METADATA)
    odd = level_system(system.tokenizer, chunk_frames=torch.tensor(4))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="chunk_frames is a Tensor"):
        export(odd, out, METADATA)
    with torch.no_grad():
        system.gain[0] = 1.0

    def full(weights: dict[str, torch.Tensor], file: Path) -> None:  # what it says on a full disk
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr("reallm.bundle.writer.save_file", full)
        with pytest.raises(InputError, match=f"{out}: model.safetensors cannot be written .*No space left.*: free some space"):
            export(system, out, METADATA)
    assert list(out.parent.iterdir()) == []
    with pytest.raises(InputError, match="is no bundle: choose another folder"):
        export(system, tmp_path, METADATA)


def test_export_replaces_a_bundle_whole(system: LevelSystem, bundle: Path) -> None:
    (bundle / "old.txt").write_text("left over")
    export(system, bundle, {**METADATA, "title": "Second"})
    assert not (bundle / "old.txt").exists()
    assert "# Second" in (bundle / "README.md").read_text()
    assert not [p for p in bundle.parent.iterdir() if p.name.startswith(".bundle")]


def test_loading_needs_no_training_stack() -> None:
    """Only the base install: the import of anything of the training extra fails here."""
    program = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "lhotse speechbrain torchaudio hyperpyyaml jiwer matplotlib tensorboard k2 scipy".split():
            raise ImportError(f"{name} is not part of the base install")
sys.meta_path.insert(0, Refuse())
from reallm.bundle import load
from reallm.registry import KINDS, catalogue
from reallm.streaming.recognizer import Recognizer
for kind in KINDS:
    catalogue(kind)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
