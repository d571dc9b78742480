"""Values that components refuse, and components that do not fit each other, are found without weights and without files."""

import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from reallm.cli import main
from reallm.config import check
from reallm.config.document import resolve
from reallm.config.trial import UNKNOWN, Trial, VocabularySize
from reallm.errors import InputError
from reallm.resources import root

RECIPE = root() / "egs/digits/conf/speech_reallm.yaml"
READS_LLM = "reallm.decoders.huggingface."  # the config.json of an LLM is read when it is built, and need not be there yet
READ_FILES = ("ctm.yaml", "elsewhere.yaml", "data.yaml")


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    """The digits' Speech ReaLLM, whose data and tokenizer are not there."""
    file = tmp_path / "conf.yaml"
    file.write_text(RECIPE.read_text().replace("../../../hparams", str(root() / "hparams")))
    return file


def problems(conf: Path, old: str, new: str) -> list[str]:
    text = conf.read_text()
    assert text.count(old) >= 1
    conf.write_text(text.replace(old, new, 1))
    return [str(problem).removeprefix(f"{conf}: ") for problem in check(conf)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 5", "epochs: 0", "training: epochs is 0: at least 1"),
        ("epochs: 5", "epochs: -3", "training: epochs is -3: at least 1"),
        ("    validate_utterances: 100", "    precision: fp61", "training: precision 'fp61' (did you mean 'fp16'?)"),
        ("    validate_utterances: 100", "    keep: 2", "training: keep is 2, but 3 checkpoints are to be averaged: set keep to 3"),
        ("noise: 0.4", "noise: 4", "data.augmentation: AdditiveNoise: probability is 4: a share from 0 to 1"),
        ("warmup: 100", "warmup: 0", "training.schedule: warmup is 0 updates: at least 1"),
        ("lr: 0.001", "lr: -1", "training.optimizer: Invalid learning rate: -1: give another value"),
        ("lr: 0.001", "lr: '1e-3'", "lr: the text '1e-3' is not a number: write 0.001, without quotes"),
        ("chunk_size: 8", "chunk_size: 7", "system: a chunk of 0.28 s (look-ahead 0 s) is not a multiple of the token period 0.08 s"),
        ("chunk_size: 8", "chunk_size: 0", "encoder: ChunkSpec(size=0, left=32, right=0): needs size >= 1"),
        ("stride: 2 ", "stride: 3 ", "system: a chunk of 0.32 s (look-ahead 0 s) is not a multiple of the token period 0.12 s"),
        ("stride: 2 ", "stride: 0 ", "adapter: stride is 0: at least 1"),
        ("stride: 2 ", "stride: -2 ", "adapter: stride is -2: at least 1"),
        ("decoder_layers: 4", "decoder_layers: 0", "decoder: layers is 0: at least 1"),
        ("sample_rate: 8000", "sample_rate: 8010", "frontend: shift_ms 10.0 is 80.1 samples at 8010 Hz"),
        ("vocal_tract: 0.0", "vocal_tract: 5", "frontend: vocal_tract 5: choose a share from 0 to 0.3"),
        ("delay: 0", "delay: 6", "system: delay 6, flush_periods 5: needs 0 <= delay <= flush_periods"),
        ("dim: 144 ", "dim: 143 ", "encoder: 4 heads of a model of width 143"),
        ("    output_dim: !ref <decoder_dim>", "    output_dim: 96", "system: widths do not fit: encoder 144"),
        ("    input_dim: !ref <mels>", "    input_dim: 80", "system: the encoder's input_dim 80 must be the frontend's 40"),
        ("vocab_size>, 1]", "vocab_size>, 2]", "system: decoder vocab_size V+2"),
    ],
)
def test_what_a_constructor_refuses(conf: Path, old: str, new: str, message: str) -> None:
    (found,) = problems(conf, old, new)
    assert found.startswith(message)


def test_a_number_in_place_of_the_vocabulary_may_be_right(conf: Path) -> None:
    assert problems(conf, "vocab_size: !apply:operator.add [!ref <tokenizer.vocab_size>, 1]", "vocab_size: 11") == []


def test_sizes_of_unknown_vocabularies() -> None:
    size = VocabularySize(VocabularySize.ASSUMED)
    number: int = 28
    assert all((size == number, number == size, size + 1 == number, number == size - 1))
    assert not any((size != number, number != size, size + 1 == size, size == size - 1, size == "V"))
    assert 1 + size == size + 1
    assert f"{size} {size + 1} {size - 2}" == "V V+1 V-2"


def test_nothing_is_allocated_and_no_number_drawn(conf: Path) -> None:
    check(conf)
    drawn, used = torch.random.get_rng_state(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert problems(conf, "dim: 144 ", "dim: 16384 ") == []  # 4 layers of 4 GB and more
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 100 * 1024  # kB


def files() -> list[Path]:
    found = [file for folder in ("hparams", "egs") for file in (root() / folder).rglob("*.yaml") if "exp" not in file.parts]
    return sorted(file for file in found if file.name not in READ_FILES)


@pytest.mark.parametrize("file", files(), ids=lambda file: str(file.relative_to(root())))
def test_all_that_recipes_are_made_of_is_judged(file: Path) -> None:
    tree: Any = YAML().load(resolve(file, {}))
    trial = Trial()
    built = trial.build(tree)
    reads_llm = READS_LLM in str(resolve(file, {}))
    for key in ("system", "training"):
        if built is UNKNOWN and key in tree:
            assert (trial.build(tree[key]) is UNKNOWN) == (key == "system" and reads_llm)
    assert built is not UNKNOWN or "system" in tree or reads_llm


ALL_ENCODERS = """
import gc, torch
from pathlib import Path
from reallm.config import check

for file in Path("hparams/encoder").glob("*.yaml"):
    assert check(file) == []
gc.collect()
print([tensor.shape for tensor in gc.get_objects() if type(tensor) is torch.Tensor and tensor.is_meta])
"""


def test_modules_that_are_imported_meanwhile_keep_their_values() -> None:
    done = subprocess.run([sys.executable, "-c", ALL_ENCODERS], cwd=root(), capture_output=True, text=True)  # nothing is imported yet
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@dataclass
class Foreign:
    """Settings of another package, which does more than to hold them."""

    path: str

    def __post_init__(self) -> None:
        Path(self.path).touch()
        raise InputError("is never said")


def test_what_another_package_does_with_its_settings_is_not_tried(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text(f"!new:{__name__}.Foreign\npath: {tmp_path / 'written'}\n")
    assert check(tmp_path / "conf.yaml") == []
    assert not (tmp_path / "written").exists()


def test_the_command_says_it_in_one_line(conf: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conf.write_text(conf.read_text().replace("chunk_size: 8", "chunk_size: 7"))
    with pytest.raises(SystemExit) as end:
        main(["config", "check", str(conf)])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{conf}: system: a chunk of 0.28 s")
