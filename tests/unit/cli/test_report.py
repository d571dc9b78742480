"""``reallm report``: whole, from what an experiment folder holds, and legible where a test can tell."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from reallm.bundle import export
from reallm.data.cuts import read_cuts, write_cuts
from reallm.metrics import plots
from reallm.metrics.report import confusions, group_errors
from reallm.metrics.score import pair_up
from reallm.systems.ctc import CTC
from reallm.systems.transducer import Transducer
from reallm.types import Word
from tests.dummies.command import run
from tests.dummies.hypotheses import recognized, reference
from tests.dummies.level_bundle import registered_level_system, write_level_bundle
from tests.dummies.level_strings import make_cut


def journal(exp: Path) -> None:
    place = {"kind": "train", "epoch": 1, "lr": 1e-4}
    lines: list[dict[str, Any]] = [
        {**place, "update": update, "seconds": update, "loss": 3 / update, "loss_text": 4 / update, "loss_blank": 1 / update}
        for update in (10, 20)
    ]
    lines.append({"kind": "validation", "update": 20, "epoch": 1, "seconds": 20, "wer": 12.5, "errors": 1, "words": 8})
    exp.mkdir(exist_ok=True)
    (exp / "train_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def exp(tmp_path: Path) -> Iterator[Path]:
    """An experiment that was trained and decoded."""
    write_cuts([make_cut(tmp_path, number) for number in range(10)], tmp_path / "test.jsonl.gz")
    with registered_level_system():
        bundle = write_level_bundle(tmp_path / "bundle")
        out = tmp_path / "exp" / "test"
        assert run("decode", bundle, "--cuts", tmp_path / "test.jsonl.gz", "--out", out, "--rtf-utterances", 0) == 0
    journal(tmp_path / "exp")
    yield tmp_path / "exp"


@pytest.mark.parametrize("teacher", [CTC, Transducer])
def test_report(exp: Path, tmp_path: Path, teacher: Any) -> None:
    # One wrong word, so that there is an error table.
    hyps = (exp / "test" / "hyps.jsonl").read_text().splitlines()
    first = json.loads(hyps[0])
    first["words"][0]["word"] = first["text"] = "wrong"
    (exp / "test" / "hyps.jsonl").write_text("\n".join([json.dumps(first), *hyps[1:]]) + "\n")
    manifest = tmp_path / "test.jsonl.gz"
    assert run("score", exp / "test" / "hyps.jsonl", "--cuts", manifest, "--out", exp / "test" / "results.json") == 0
    export(teacher.tiny().eval(), tmp_path / "teacher", {"training_data": "none", "license": "CC0"})
    assert run("report", exp, "--teacher", tmp_path / "teacher") == 0
    text = (exp / "report" / "report.md").read_text()
    for name in ("training", "test_utterance", "test_delay", "test_length", "test_speaker"):
        assert f"({name}.png)" in text
        image = matplotlib.image.imread(exp / "report" / f"{name}.png")
        assert min(image.shape[:2]) > 300
        assert image[..., :3].std() > 0.03
    assert "unknown: no corpus.json" in text
    assert f"| 1 | {first['ref']} | wrong |" in text
    assert f"| string-00 | speaker-0 | {first['ref']} | wrong |" in text
    assert "--teacher" not in text
    assert run("report", exp, "--utterance", "string-03") == 0  # over the one that is there
    assert "is not drawn: none was named (`--teacher`)" in (exp / "report" / "report.md").read_text()


def test_an_utterance_whose_text_the_teacher_does_not_know(exp: Path, tmp_path: Path) -> None:
    cuts = [cut.map_supervisions(lambda s: s.transform_text(str.upper)) for cut in read_cuts(tmp_path / "test.jsonl.gz")]
    write_cuts(cuts, tmp_path / "test.jsonl.gz")
    export(CTC.tiny().eval(), tmp_path / "teacher", {"training_data": "none", "license": "CC0"})
    assert run("report", exp, "--teacher", tmp_path / "teacher") == 0
    text = (exp / "report" / "report.md").read_text()
    assert "The teacher's alignment is not drawn: cut 'string-0" in text and "LATIN CAPITAL LETTER" in text and "test_speaker.png" in text


def test_what_cannot_be_reported(exp: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "nothing").mkdir()
    capsys.readouterr()
    for arguments, message in (
        ([tmp_path / "nothing"], "neither a training journal nor decodings"),
        ([tmp_path / "none"], "no such experiment"),
        ([exp, "--utterance", "string-99"], "'string-99' was not decoded"),
        ([exp, "--out", tmp_path], "is there and is no report"),
    ):
        assert run("report", *arguments) == 2
        assert message in capsys.readouterr().err
    assert not (exp / "report").exists()
    (exp / "test" / "results.json").unlink()
    assert run("report", exp) == 2
    assert "run reallm score" in capsys.readouterr().err


def test_training_alone_is_worth_a_report(tmp_path: Path) -> None:
    journal(tmp_path / "exp")
    assert run("report", tmp_path / "exp") == 0
    assert sorted(p.name for p in (tmp_path / "exp" / "report").iterdir()) == ["report.md", "training.png"]


def test_groups_and_confusions() -> None:
    references = {r.id: r for r in (reference("u1", "one two"), reference("u2", "two"), reference("u3", "one"))}
    hyps = [
        recognized("u1", ("one", 0.6, 0.9, 0.9), ("too", 1.6, 2.0, 0.3)),
        recognized("u2", ("too", 0.6, 0.9, 0.9)),
        recognized("u3", ("one", 0.6, 0.9, 0.9), ("six", 0.9, 1.0, 0.9)),
    ]
    scored = pair_up(hyps, references)
    assert confusions(scored) == [(2, "two", "too"), (1, "", "six")]
    groups = group_errors(scored, lambda u: str(len(u.reference.words)))
    assert list(groups) == ["1", "2"]
    assert (groups["1"][0], groups["1"][3]) == (100.0, 2)
    assert (groups["2"][0], groups["2"][3]) == (50.0, 2)


def test_the_spectrogram_shows_where_a_tone_is() -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000)
    power, hop = plots.spectrogram(tone, 8000)
    assert power.shape[1] * hop == pytest.approx(1.0)
    peak = power[:, 100].argmax() / (power.shape[0] - 1) * 4000
    assert peak == pytest.approx(1000, abs=20)


def test_emissions_are_drawn_where_they_were() -> None:
    words = [Word("one", 0.1, 0.4, 1.0, 0.72), Word("two", 0.5, 0.8, 1.0, 0.98)]
    figure = plots.utterance(np.random.default_rng(0).normal(size=8000), 8000, words, [Word("o", 0.1, 0.2)], words, "u")
    texts = [(t.get_text(), t.get_position()[0]) for t in figure.axes[1].texts if t.get_color() == plots.ORANGE]
    assert texts == [("one", 0.72), ("two", 0.98)]
    lanes = [label.get_text().split()[0] for label in figure.axes[1].get_yticklabels()]
    assert lanes == ["truth", "teacher's", "recognized", "end"]
