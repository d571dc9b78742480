"""``reallm export``: a trained system as a bundle, or its steps as programs."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reallm.errors import InputError


def export(
    exp: Annotated[Path, typer.Argument(metavar="EXP", help="The experiment folder; for programs, one that is exported, or a bundle.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; a bundle, or programs, that are there are replaced.")],
    kind: Annotated[
        Literal["bundle", "torch_export", "onnx"],
        typer.Option("--format", help="A bundle; or the encoder's and the decoder's step as programs that run without reallm."),
    ] = "bundle",
    streams: Annotated[int | None, typer.Option(min=1, help="Of programs: for so many streams exactly; default: any number.")] = None,
    average: Annotated[int | None, typer.Option(min=1, help="Average so many checkpoints; default: as configured.")] = None,
    title: Annotated[str | None, typer.Option(help="First line of the model card.")] = None,
    training_data: Annotated[str | None, typer.Option(help="For the model card; default: corpus.json beside the cuts.")] = None,
    license: Annotated[str | None, typer.Option(help="Of the weights; default: the corpus' licence.")] = None,
    full_precision: Annotated[bool, typer.Option("--full-precision", help="Store 32-bit weights.")] = False,
) -> None:
    """Write a trained system as a folder that is safe to share: weights, tokenizer, statistics, model card; or as programs."""
    if kind != "bundle":
        chosen = {"--average": average, "--title": title, "--training-data": training_data, "--license": license}
        for option in [name for name, value in {**chosen, "--full-precision": full_precision or None}.items() if value is not None]:
            raise InputError(f"{option} is for bundles: programs are made of one, and have what it has")
        return write_programs(exp, out, kind, streams)
    if streams is not None:
        raise InputError("--streams is for programs: add --format onnx or torch_export")
    from reallm.aligners.durations import with_token_durations
    from reallm.bundle import export as write_bundle
    from reallm.config import Config
    from reallm.metrics.provenance import corpus_of, git_revision, training_facts
    from reallm.training.experiment import load_trained

    if not (exp / "config.yaml").is_file():
        raise InputError(f"{exp} is no experiment (no config.yaml): train first")
    config = Config.read(exp / "config.yaml")
    system: Any = with_token_durations(load_trained(exp, average), Path(config.value("train", default="")))
    # Aligned training cuts lie elsewhere than the corpus, whose dev cuts are used as they are.
    manifests = [Path(value) for value in (config.value("train"), config.value("dev")) if value]
    described = [manifest for manifest in manifests if (manifest.parent / "corpus.json").is_file()]
    corpus: dict[str, Any] = corpus_of(described[0]) if described else {}
    about = f"{corpus['name']} ({corpus['kind']})" if corpus.get("licence") else None
    if about and "mixed_into_training" in corpus:
        about += f" and {corpus['mixed_into_training']}"
    metadata = {
        "title": title or f"{exp.name} ({type(system).component_name})",
        "training_data": training_data or about,
        "license": license or corpus.get("licence"),
        "git": git_revision(),
        **training_facts(exp),
    }
    for key, option in (("training_data", "--training-data"), ("license", "--license")):
        if not metadata[key]:
            raise InputError(f"the model card needs {option}: there is no corpus.json beside the training or dev cuts of {exp}")
    write_bundle(system, out, {key: value for key, value in metadata.items() if value is not None}, half=not full_precision)
    size = sum(file.stat().st_size for file in out.iterdir())
    typer.echo(f"{out}: {sum(p.numel() for p in system.parameters()):,} parameters, {size / 1e6:.1f} MB")


def write_programs(path: Path, out: Path, kind: str, streams: int | None) -> None:
    """The steps of a bundle's system, or of that of an experiment's bundle, as programs in the folder ``out``."""
    from reallm.bundle import DESCRIPTION, load_shared, read_description
    from reallm.exporting.writer import export_programs

    system = load_shared(path)
    folder = path if (path / DESCRIPTION).is_file() else path / "bundle"
    difference = export_programs(system, out, kind, {"metadata": read_description(folder)["metadata"]}, streams)
    sizes = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in sorted(out.iterdir()))
    typer.echo(f"{out}: {sizes}; differs from PyTorch by {difference:.1g} at most")
