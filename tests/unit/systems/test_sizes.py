"""hparams/systems: systems of the paper's sizes, built without their weights."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from reallm import resources
from reallm.config import load
from reallm.encoders.conformer import ConformerEncoder
from reallm.errors import InputError
from reallm.protocols import streams
from reallm.training.initialize import take_weights

SYSTEMS = sorted((resources.root() / "hparams/systems").glob("*.yaml"))
VOCABULARY = 1000


def build(folder: Path, file: Path, *lines: str) -> Any:
    """The system on the meta device, with a vocabulary of its own and what ``lines`` set."""
    (folder / "words.json").write_text(json.dumps([f"w{n}" for n in range(VOCABULARY)]))
    conf = folder / "conf.yaml"
    head = f"tokenizer: !new:reallm.tokenizers.word.WordTokenizer\n    path: {folder / 'words.json'}\n"
    conf.write_text("\n".join([f"{head}system: !include:{file}", "    tokenizer: !ref <tokenizer>", *(f"    {line}" for line in lines)]))
    with torch.device("meta"):
        return load(conf, []).build("system")["system"]


def table() -> dict[str, dict[str, str]]:
    """Of egs/librispeech/RESULTS.md: system → column → cell."""
    section = resources.path("egs/librispeech/RESULTS.md").read_text().partition("## Sizes")[2].partition("\n## ")[0]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|"))
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def millions(module: torch.nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in module.parameters()) / 1e6:.1f} M"


def test_these_there_are() -> None:
    names = {"speech_reallm_80m", "ctc_80m", "transducer_80m", "decoder_only_80m", "aed_80m", "aed_240m"}
    assert {file.stem for file in SYSTEMS} == names == table().keys()


@pytest.mark.parametrize("file", SYSTEMS, ids=lambda file: file.stem)
def test_has_as_many_parameters_as_its_name_says(file: Path, tmp_path: Path) -> None:
    system = build(tmp_path, file)
    assert system.component_name == file.stem.rpartition("_")[0]
    size = float(file.stem.rpartition("_")[2].removesuffix("m"))
    parameters = sum(parameter.numel() for parameter in system.parameters()) / 1e6
    assert 0.975 * size <= parameters <= 1.025 * size, f"{parameters:.1f} million"
    found = {"parameters": millions(system), "encoder of them": millions(system.encoder), "streams": "yes" if streams(system) else "no"}
    assert {column: table()[file.stem][column] for column in found} == found
    assert type(system.encoder) is ConformerEncoder and len(system.encoder.layers) == 20, "one encoder family"
    assert system.sample_rate == 16000 and system.encoder.chunk.size * system.frame_samples == 0.96 * 16000


@pytest.mark.parametrize("file", SYSTEMS, ids=lambda file: file.stem)
def test_the_batch_that_fits_on_an_accelerator_is_the_recipes_and_the_tables(file: Path) -> None:
    said = re.search(r"On an accelerator of 80 GB, in bf16: batches of ([\d,]+) s of audio", file.read_text())
    assert said is not None
    trained_by = [conf for conf in resources.path("egs/librispeech/conf").glob("*.yaml") if f"systems/{file.name}" in conf.read_text()]
    batches = {conf.stem: int(load(conf, []).value("batch_seconds")) for conf in trained_by if not conf.stem.startswith("teacher_")}
    # The recipe's name for a system of 80 million leaves the size out.
    assert batches == {file.stem.removesuffix("_80m"): int(said[1].replace(",", ""))}
    assert int(table()[file.stem]["batch"].replace(",", "").split()[0]) == int(said[1].replace(",", ""))


@pytest.mark.parametrize("file", SYSTEMS, ids=lambda file: file.stem)
def test_begins_with_the_encoder_of_the_recipes_teacher_where_the_recipe_says_so(file: Path, tmp_path: Path) -> None:
    teacher = build(tmp_path, file.with_name("ctc_80m.yaml"), "encoder:", "    dim: 320", "    hidden: 1280")
    unlike = take_weights(build(tmp_path, file), teacher.state_dict()).unlike()
    assert ("encoder" not in unlike) == (file.stem in ("speech_reallm_80m", "aed_80m", "decoder_only_80m")), unlike


@pytest.mark.parametrize("stride", [6, 4, 2])
def test_the_token_period_is_that_of_the_paper_or_smaller(tmp_path: Path, stride: int) -> None:
    file = resources.root() / "hparams/systems/speech_reallm_80m.yaml"
    lines = () if stride == 6 else ("adapter:", f"    stride: {stride}")
    assert build(tmp_path, file, *lines).period_samples == stride * 0.04 * 16000


def test_a_token_period_that_does_not_divide_the_chunk(tmp_path: Path) -> None:
    file = resources.root() / "hparams/systems/speech_reallm_80m.yaml"
    with pytest.raises(InputError, match=r"chunk of 0.96 s .* is not a multiple of the token period 0.2 s"):
        build(tmp_path, file, "adapter:", "    stride: 5")
