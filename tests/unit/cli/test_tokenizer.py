"""``reallm tokenizer`` on manifests that it can make nothing of."""

from pathlib import Path

import pytest
from lhotse.utils import fastcopy

from reallm.cli.tokenizer import tokenizer
from reallm.data.cuts import read_cuts, write_cuts
from reallm.errors import InputError
from tests.dummies.command import run_data
from tests.dummies.own_data import table, write_audio


@pytest.mark.parametrize("kind", ["character", "word", "sentencepiece"])
def test_a_manifest_without_transcripts_is_named(kind: str, tmp_path: Path) -> None:
    write_audio(tmp_path, ["u"])
    run_data("tsv", table(tmp_path / "t.tsv", [("path", "text"), ("u.wav", "one")]), "--out", tmp_path)
    manifest = tmp_path / "t.jsonl.gz"
    write_cuts(read_cuts(manifest), tmp_path / "with.jsonl.gz")
    write_cuts([fastcopy(cut, supervisions=[]) for cut in read_cuts(manifest)], manifest)
    with pytest.raises(InputError, match=rf"^{manifest} holds no transcripts: give cuts that have some$"):
        tokenizer(kind, [tmp_path / "with.jsonl.gz", manifest], tmp_path / "out" / "tokens")
    assert not (tmp_path / "out").exists()
