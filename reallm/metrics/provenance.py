"""Where a result came from."""

import json
import subprocess
from pathlib import Path
from typing import Any

from reallm.data.record import read_record


def git_revision() -> str | None:
    """The commit of the toolkit's checkout, with ``+`` where tracked files differ from it; None outside of a checkout."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        # An installed copy may lie inside of somebody else's checkout.
        if not git("ls-files", "--error-unmatch", str(Path(__file__).resolve())):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def corpus_of(manifest: Path) -> dict[str, Any]:
    """What ``corpus.json`` beside the manifest says of the recordings; their being real or synthetic is said plainly."""
    known = read_record(Path(manifest).parent)
    if known is None:
        return {"name": Path(manifest).resolve().parent.name, "kind": "unknown: no corpus.json beside the manifest"}
    kinds: dict[Any, str] = {True: "real recordings", False: "SYNTHETIC speech"}
    corpus = {"name": known.get("corpus"), "kind": kinds.get(known.get("real"), "unknown"), "licence": known.get("licence")}
    if "mixed_into_training" in known:
        corpus["mixed_into_training"] = known["mixed_into_training"]
    return corpus


def split_of(manifest: Path) -> str:
    """The manifest's name without its suffixes."""
    return Path(manifest).name.removesuffix(".gz").removesuffix(".jsonl")


def delays_of(system: Any) -> dict[str, Any]:
    """Of a system that was trained to wait: ``delay`` in token periods, ``training_delays`` where it was trained for several, and the
    seconds of a ``token_period``."""
    from reallm.registry import spec_of

    if getattr(system, "delay", None) is None:
        return {}
    found = {"delay": system.delay, "training_delays": spec_of(system).kwargs.get("training_delays")}
    found["token_period"] = float(system.period_samples / system.sample_rate)
    return {name: value for name, value in found.items() if value is not None}


def training_facts(model: Path) -> dict[str, Any]:
    """How a model was trained: ``seed`` and ``alignment_backend``, None where it is not known or there was no alignment.

    An experiment's come from its configuration and its training manifest, a bundle's from its metadata.
    """
    model = Path(model)
    facts: dict[str, Any] = {"seed": None, "alignment_backend": None}
    if (model / "bundle.json").is_file():
        metadata = json.loads((model / "bundle.json").read_text(encoding="utf-8")).get("metadata", {})
        return {name: metadata.get(name) for name in facts}
    if not (model / "config.yaml").is_file():
        return facts
    from lhotse.serialization import deserialize_item

    from reallm.config import Config
    from reallm.data.alignments import token_meta
    from reallm.data.cuts import read_lines

    config = Config.read(model / "config.yaml")
    facts["seed"] = config.value("training", "seed", default=1)
    train = config.value("train")
    if train and Path(train).is_file():
        meta = next((token_meta(deserialize_item(line)) for line in read_lines(Path(train))), None)
        if meta:
            facts["alignment_backend"] = f"{meta['backend']} {meta['version']}"
    return facts
