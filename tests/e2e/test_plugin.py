"""An encoder of another package: installed by pip, found by its entry point, checked, and trained in a recipe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from reallm import resources
from tests.dummies.data import write_corpus

PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "outside-encoder"
version = "1.0"
[project.entry-points."reallm.plugins"]
outside = "outside_encoder"
[tool.setuptools]
py-modules = ["outside_encoder"]
""",
    "outside_encoder.py": '''
"""An encoder that no file of reallm knows."""

from reallm.encoders.lstm import LSTMEncoder
from reallm.registry import register


@register("encoder", "outside")
class OutsideEncoder(LSTMEncoder):
    """The causal LSTM, narrower and without dropout.

    Args:
        input_dim: features.
        dim: width.
        layers: depth.
        chunk_size: encoder frames of a streaming step.
    """

    def __init__(self, input_dim: int, dim: int = 16, layers: int = 2, chunk_size: int = 4) -> None:
        super().__init__(input_dim, dim, layers, chunk_size=chunk_size, dropout=0.0)

    @classmethod
    def tiny(cls):
        return cls(8)
''',
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, target = tmp_path_factory.mktemp("outside"), tmp_path_factory.mktemp("site")
    for name, text in PACKAGE.items():
        (source / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", "--no-index", "--target", str(target)]
    subprocess.run([*pip, str(source)], check=True)
    return target


def reallm(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-m", "reallm.cli", *arguments], env=environment, capture_output=True, text=True, check=False)


def test_it_passes_the_contract(site: Path) -> None:
    checked = reallm(site, "check", "outside", "--kind", "encoder")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert reallm(Path("/nowhere"), "check", "outside", "--kind", "encoder").returncode == 2  # only because it is installed


def test_it_trains_in_the_recipe(site: Path, tmp_path: Path) -> None:
    manifests = write_corpus(tmp_path / "corpus", train_strings=40, epochs=1)
    tokenizer = tmp_path / "tokenizer.json"
    made = reallm(site, "tokenizer", "character", "--train", str(manifests / "train.jsonl.gz"), "--out", str(tokenizer))
    assert made.returncode == 0, made.stderr
    text = resources.path("egs/digits/conf/ctc.yaml").read_text()
    included = "encoder: !include:../../../hparams/encoder/conformer.yaml"
    assert included in text
    text = text.replace(included, "encoder: !new:outside_encoder.OutsideEncoder")
    conf = tmp_path / "conf.yaml"
    conf.write_text(text.replace("!include:../../../hparams", f"!include:{resources.path('hparams')}"))
    overrides = ["dim=16", "layers=2", "epochs=1", "batch_seconds=8", "warmup=2", f"tokenizer_path={tokenizer}"]
    options = [part for override in overrides for part in ("--override", override)]
    data = ["--train", str(manifests / "train.jsonl.gz"), "--dev", str(manifests / "dev.jsonl.gz")]
    trained = reallm(site, "train", str(conf), "--exp", str(tmp_path / "exp"), *data, *options)
    assert trained.returncode == 0, trained.stderr
    exported = reallm(site, "export", str(tmp_path / "exp"), "--out", str(tmp_path / "bundle"))
    assert exported.returncode == 0, exported.stderr
    assert '"name": "outside"' in (tmp_path / "bundle" / "bundle.json").read_text()
