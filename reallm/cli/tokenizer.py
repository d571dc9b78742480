"""``reallm tokenizer``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.errors import InputError


def tokenizer(
    name: Annotated[str, typer.Argument(metavar="TYPE", help="A component of kind 'tokenizer': character, sentencepiece, word …")],
    train: Annotated[list[Path], typer.Option(metavar="MANIFEST", help="Lhotse cuts, whose texts are taken; give it several times.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    vocab_size: Annotated[int | None, typer.Option(help="Number of tokens, where the type can choose it.")] = None,
) -> None:
    """Make a tokenizer from the transcripts of manifests. The same transcripts give the same file."""
    import inspect
    import tempfile

    from reallm.data.cuts import read_cuts, text_of
    from reallm.registry import find

    cls: Any = find("tokenizer", name)
    if not hasattr(cls, "train"):
        raise InputError(f"tokenizer '{name}' cannot be trained: give its file in the configuration")
    options = {} if vocab_size is None else {"vocab_size": vocab_size}
    if vocab_size is not None and "vocab_size" not in inspect.signature(cls.train).parameters:
        raise InputError(f"--vocab-size {vocab_size}: the vocabulary of '{name}' follows from the transcripts: leave it out")
    texts: list[str] = []
    for manifest in train:
        found = [text_of(cut) for cut in read_cuts(manifest)]
        if not "".join(found).strip():
            raise InputError(f"{manifest} holds no transcripts: give cuts that have some")
        texts += found
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = cls.train(texts, Path(folder) / out.name, **options)
        new = Path(folder) / out.name
        unchanged = out.is_file() and out.read_bytes() == new.read_bytes()
        if not unchanged:
            new.replace(out)
    typer.echo(f"{out}: {made.vocab_size} tokens from {len(texts)} transcripts{' (unchanged)' if unchanged else ''}")


def load_tokenizer(named: str) -> Any:
    """The tokenizer that TYPE=PATH names. Raises InputError for another form, an unknown type and a file that is no tokenizer."""
    from reallm.registry import find

    kind, equals, path = named.partition("=")
    if not equals:
        raise InputError(f"--tokenizer {named}: write TYPE=PATH, such as word=words.json")
    return find("tokenizer", kind)(path=Path(path))
