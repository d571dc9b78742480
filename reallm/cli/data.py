"""``reallm data``: manifests from corpora."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reallm.cli._workers import Dask, Jobs
from reallm.errors import InputError
from reallm.jobs import Workers

app = typer.Typer(help="Make lhotse manifests from a corpus.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", help="Folder that the manifests are written to.")]


def _bar(description: str, total: int | None) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(soft_wrap=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(description, total=total)
    return bar, lambda count: bar.advance(task, count)


def _download_row(bar: Any) -> tuple[Any, Callable[[int, int | None], None]]:
    """A row of a bar that shows when a download begins, and what is to be told of it: bytes that have come, and of how many."""
    row = bar.add_task("download (kB)", total=None, visible=False)

    def fetched(done: int, total: int | None) -> None:
        bar.update(row, completed=done // 1000, total=None if total is None else total // 1000, visible=True)

    return row, fetched


def _at_hand(corpus: str) -> Path | None:
    """The folder of a corpus in $REALLM_DATA, if there is one."""
    place = os.environ.get("REALLM_DATA")
    return Path(place) / corpus if place and (Path(place) / corpus).is_dir() else None


@app.command()
def digits(
    out: Out,
    data: Annotated[Path | None, typer.Option(help="The recordings; else $REALLM_DATA/fsdd, a download, or espeak-ng.")] = None,
    seed: Annotated[int, typer.Option(help="Of the training strings.")] = 1,
    train_strings: Annotated[int, typer.Option(min=1, help="Training strings an epoch.")] = 8000,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training strings.")] = 2,
    test_strings: Annotated[int, typer.Option(min=1, help="Test strings; fewer are the first ones of the 1,000.")] = 1000,
    dev_strings: Annotated[int, typer.Option(min=1, help="Development strings.")] = 200,
    held_out_speaker: Annotated[str | None, typer.Option(help="This speaker makes the test, and is nowhere else.")] = None,
    speed: Annotated[list[float] | None, typer.Option(help="Speed factor of training strings; give it several times.")] = None,
    synthetic_voices: Annotated[int, typer.Option(min=0, help="espeak-ng voices mixed into training, where recordings are real.")] = 0,
    synthetic_share: Annotated[float, typer.Option(min=0, max=1, help="Share of training strings that they speak.")] = 0.4,
    sounds_share: Annotated[float, typer.Option(min=0, max=1, help="Share of training strings with notes, knocks and hiss in them.")] = 0.2,
) -> None:
    """Connected digits, composed of the Free Spoken Digit Dataset's recordings."""
    from reallm.data.corpora.digits import DigitsOptions, prepare

    speeds = tuple(speed or [1.0])
    if not all(0.5 <= s <= 2 for s in speeds):
        raise InputError(f"--speed {min(speeds)}…{max(speeds)}: factors from 0.5 to 2 are possible")
    options = DigitsOptions(
        seed=seed,
        train_strings=train_strings,
        epochs=epochs,
        test_strings=test_strings,
        dev_strings=dev_strings,
        held_out_speaker=held_out_speaker,
        speeds=speeds,
        synthetic_voices=synthetic_voices,
        synthetic_share=synthetic_share,
        sounds_share=sounds_share,
    )
    bar, tick = _bar("strings", 2 * test_strings + dev_strings + epochs * train_strings)
    _, fetched = _download_row(bar)
    with bar:
        record = prepare(data or _at_hand("fsdd"), out, options, bar.console.print, tick, fetched)
    _summary(record)


Name = Annotated[str | None, typer.Option("--name", help="Of the manifest: OUT/NAME.jsonl.gz; else that of the folder or file.")]
Corpus = Annotated[str | None, typer.Option("--corpus", help="What results call the corpus; else the name of the folder or file.")]
Synthetic = Annotated[bool, typer.Option("--synthetic", help="The speech is not real: results will say so.")]
Lower = Annotated[bool, typer.Option("--lower", help="Transcripts in lower case.")]
Upper = Annotated[bool, typer.Option("--upper", help="Transcripts in upper case.")]


def _case(lower: bool, upper: bool) -> str | None:
    if lower and upper:
        raise InputError("--lower and --upper cannot be had together: choose one")
    return "lower" if lower else "upper" if upper else None


@app.command()
def kaldi(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A Kaldi data folder.")],
    out: Out,
    name: Name = None,
    corpus: Corpus = None,
    synthetic: Synthetic = False,
    lower: Lower = False,
    upper: Upper = False,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """A Kaldi data folder: wav.scp, text, and segments and utt2spk where they are there."""
    from reallm.data.corpora.kaldi import read_kaldi

    _table(read_kaldi(folder), folder, out, name, corpus, synthetic, _case(lower, upper), Workers(jobs, dask))


@app.command()
def tsv(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Columns path and text; id, speaker, start, end if wanted.")],
    out: Out,
    name: Name = None,
    corpus: Corpus = None,
    synthetic: Synthetic = False,
    lower: Lower = False,
    upper: Upper = False,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """A tab-separated table of recordings and transcripts, with a header line.

    An id that is not given is made of the path: a-1 of a/1.wav, and of its segments a-1-0001, a-1-0002.
    """
    from reallm.data.corpora.tsv import read_tsv

    _table(read_tsv(file), file, out, name, corpus, synthetic, _case(lower, upper), Workers(jobs, dask))


@app.command("lhotse")
def lhotse_dir(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of lhotse manifests.")],
    out: Out,
    corpus: Corpus = None,
    synthetic: Synthetic = False,
    lower: Lower = False,
    upper: Upper = False,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """A folder of lhotse manifests: cuts, or recordings with supervisions; each becomes OUT/NAME.jsonl.gz.

    Of manifests that this toolkit made, the name of the corpus and its being synthetic are kept.
    """
    from reallm.data.corpora.lhotse_dir import described, read_lhotse
    from reallm.data.corpora.manifest import change_case, check_files, write_manifest
    from reallm.data.cuts import audio_files

    case, workers = _case(lower, upper), Workers(jobs, dask)
    manifests, known = read_lhotse(folder), described(folder)
    real = not synthetic and known.get("real", True)
    files = {path for cuts in manifests.values() for cut in cuts for path in audio_files(cut)}
    bar, tick = _bar("files", len(files))
    with bar:
        broken = check_files(sorted(files), workers, tick, out)
    record: dict[str, Any] = {}
    for name, cuts in manifests.items():
        bad = {cut.id: broken[path] for cut in cuts for path in audio_files(cut) if path in broken}
        bad |= {cut.id: "no audio" for cut in cuts if cut.duration <= 0}
        good = change_case((cut for cut in cuts if cut.id not in bad), case)
        record = write_manifest(good, bad, folder, out, name, corpus or known.get("corpus"), real, known.get("licence"))
    _summary(record)


@app.command()
def librispeech(
    out: Out,
    corpus: Annotated[Path | None, typer.Option(help="LibriSpeech on disk; else $REALLM_DATA/librispeech, else it is downloaded.")] = None,
    train_sets: Annotated[str, typer.Option(help="Hours of training data: 100, 460 or 960.")] = "960",
    subset: Annotated[bool, typer.Option("--subset", help="Take what is there, also where it is not all of LibriSpeech.")] = False,
    download_to: Annotated[Path | None, typer.Option(help="Folder of a download; else OUT.")] = None,
    download_only: Annotated[
        bool, typer.Option("--download-only", help="Make no manifests; a corpus on disk is only looked through.")
    ] = False,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """LibriSpeech: train, dev-clean, dev-other, test-clean and test-other, by lhotse's recipe."""
    from reallm.data.corpora.librispeech import check_complete, download, find_root, parts_of, prepare

    parts, workers = parts_of(train_sets), Workers(jobs, dask)
    corpus = corpus or _at_hand("librispeech")
    bar, tick = _bar("files", None)
    row, fetched = _download_row(bar)
    with bar:
        root = find_root(corpus) if corpus is not None else download(download_to or out, parts, bar.console.print, fetched)
        if download_only:
            if corpus is not None:
                check_complete(root, parts, subset)
            bar.console.print(f"{root} is there")
            return
        bar.update(row, visible=False)
        record = prepare(root, out, train_sets, subset, workers, lambda files: bar.update(bar.task_ids[0], total=files), tick)
    _summary(record)


@app.command()
def speechocean762(
    out: Out,
    data: Annotated[Path | None, typer.Option(help="The corpus; else $REALLM_DATA/speechocean762.")] = None,
    dev_speakers: Annotated[int, typer.Option(min=2, help="Speakers taken out of train for dev: half of them children.")] = 8,
    seed: Annotated[int, typer.Option(help="Of the choice of these.")] = 1,
    subset: Annotated[bool, typer.Option("--subset", help="Take what is there, also where it is not all of speechocean762.")] = False,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """speechocean762: train, dev, test-adult (from 16 years on) and test-child."""
    from reallm.data.corpora.speechocean762 import prepare

    workers = Workers(jobs, dask)
    data = data or _at_hand("speechocean762")
    if data is None:
        raise InputError("no recordings: name the folder of speechocean762 with --data DIR, or set REALLM_DATA")
    bar, tick = _bar("files", None)
    with bar:
        record = prepare(
            data,
            out,
            dev_speakers,
            seed,
            subset,
            workers,
            lambda files: bar.update(bar.task_ids[0], total=files),
            tick,
            bar.console.print,
        )
    _summary(record)


Text = Annotated[Path | None, typer.Option(help="Folder of train.txt, dev.txt, test.txt; else $REALLM_DATA/text.")]


def _text_at_hand() -> Path:
    found = _at_hand("text")
    if found is None:
        raise InputError("no text to speak: name a folder with train.txt, dev.txt and test.txt with --text, or set REALLM_DATA")
    return found


@app.command()
def synthetic(
    out: Out,
    text: Text = None,
    hours: Annotated[float, typer.Option(min=0.001, help="Of training speech.")] = 1.0,
    voices: Annotated[int, typer.Option(min=0, help="Of training; 0 = all that are not held out.")] = 0,
    manner: Annotated[Literal["wide", "even"], typer.Option(help="How they speak: with every variation, or evenly.")] = "wide",
    dev_utterances: Annotated[int, typer.Option(min=1, help="By voices that are nowhere else.")] = 100,
    test_utterances: Annotated[int, typer.Option(min=1, help="By voices that are nowhere else.")] = 300,
    seed: Annotated[int, typer.Option(help="Of what is said, by whom and how.")] = 1,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """Sentences spoken by espeak-ng, in every English voice: train, and dev and test by voices that are heard nowhere else."""
    from reallm.data.corpora.synthetic import SyntheticOptions, prepare

    options = SyntheticOptions(hours, voices, manner, dev_utterances, test_utterances, seed=seed)
    text, workers = text or _text_at_hand(), Workers(jobs, dask)
    bar, tick = _bar("utterances", None)
    with bar:
        record = prepare(text, out, options, workers, tick)
    _summary(record)


@app.command("synthetic-librispeech")
def synthetic_librispeech(
    out: Out,
    text: Text = None,
    hours: Annotated[float, typer.Option(min=0.001, help="Of training speech.")] = 1.0,
    eval_utterances: Annotated[int, typer.Option(min=1, help="In each of dev-clean, dev-other, test-clean, test-other.")] = 50,
    train_voices: Annotated[int, typer.Option(min=1, help="Speakers of the training data.")] = 40,
    test_voices: Annotated[int, typer.Option(min=1, help="Speakers of each other part, in none but that.")] = 4,
    seed: Annotated[int, typer.Option(help="Of what is said, by whom and how.")] = 1,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """A corpus in LibriSpeech's folder layout, spoken by espeak-ng: OUT/LibriSpeech."""
    from reallm.data.corpora.librispeech_synthetic import write_corpus

    text, workers = text or _text_at_hand(), Workers(jobs, dask)
    bar, tick = _bar("utterances", None)
    with bar:
        root = write_corpus(out, text, hours, eval_utterances, train_voices, test_voices, seed, workers, tick)
    typer.echo(f"{root}: SYNTHETIC speech")


@app.command()
def speed(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Cuts, with or without alignments.")],
    out: Annotated[Path, typer.Option("--out", help="The manifest to write.")],
    factor: Annotated[list[float] | None, typer.Option(help="Give it several times; default: 0.9 and 1.1.")] = None,
) -> None:
    """Every cut of a manifest as it is, and once more for each speed, its alignments with it."""
    from reallm.data.cuts import read_cuts, write_cuts
    from reallm.data.speed import with_speeds

    typer.echo(f"{out}: {write_cuts(with_speeds(read_cuts(manifest), factor or [0.9, 1.1]), out)} cuts")


@app.command()
def features(
    manifest: Annotated[Path, typer.Argument(metavar="MANIFEST", help="Cuts, in any state of preparation.")],
    conf: Annotated[Path, typer.Option(help="Configuration whose system's frontend computes them.")],
    store: Annotated[Path, typer.Option(metavar="DIR", help="Where they are stored; those that lie there already are taken.")],
    out: Annotated[Path, typer.Option("--out", help="The manifest to write; it may be MANIFEST.")],
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """Compute and store the features of every cut, for training with `features: stored`."""
    from reallm.data.cuts import read_cuts, write_cuts
    from reallm.data.features import frontend_of, with_features

    workers = Workers(jobs, dask)
    frontend, cuts = frontend_of(conf), list(read_cuts(manifest))
    bar, tick = _bar("features", len(cuts))
    with bar:
        count = write_cuts(with_features(cuts, frontend, store, workers, tick), out)
    typer.echo(f"{out}: features of {count} cuts by {frontend.fingerprint}")


@app.command()
def alignments(
    cuts: Annotated[Path, typer.Option(help="Manifest of the cuts to align.")],
    alignments: Annotated[Path, typer.Option(metavar="DIR", help="Folder of CTM files, TextGrids or the public LibriSpeech alignments.")],
    tokenizer: Annotated[str, typer.Option(metavar="TYPE=PATH", help="Whose tokens the words' times are carried over to.")],
    out: Annotated[Path, typer.Option(help="Manifest to write; its report lies beside it, as NAME.report.json.")],
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """Alignments made elsewhere, in place of a teacher's. Utterances without one are listed; more than 1 % of them is an error."""
    from reallm.aligners.corpus import align_manifest, report_of
    from reallm.aligners.elsewhere import ElsewhereAligner
    from reallm.aligners.report import describe
    from reallm.aligners.word_times import NoTeacher
    from reallm.cli.tokenizer import load_tokenizer
    from reallm.data.cuts import read_cuts

    workers = Workers(jobs, dask)
    bar, _ = _bar("aligning", None)
    task = bar.task_ids[0]

    def progress(count: int, total: int) -> None:
        bar.update(task, completed=count, total=total)

    teacher = NoTeacher(load_tokenizer(tokenizer), next(iter(read_cuts(cuts))).sampling_rate)
    with bar:
        report = align_manifest(cuts, out, teacher, ElsewhereAligner(alignments), progress=progress, workers=workers)
    for failure in report["failures"]:
        typer.echo(f"left out: {failure['id']} ({failure['reason']})")
    for line in [*describe(report), f"{out}, report in {report_of(out)}"]:
        typer.echo(line)


def _table(
    utterances: Sequence[Any],
    source: Path,
    out: Path,
    name: str | None,
    corpus: str | None,
    synthetic: bool,
    case: str | None,
    workers: Workers,
) -> None:
    from reallm.data.corpora.manifest import make_manifest

    bar, tick = _bar("files", len({u.path for u in utterances}))
    with bar:
        record = make_manifest(utterances, source, out, name or source.resolve().stem, case, corpus, not synthetic, workers, tick)
    _summary(record)


def _summary(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{record['corpus']} ({'real' if record['real'] else 'SYNTHETIC'} speech)")
    table.add_column("manifest")
    for column in ("strings", "hours", "speakers"):
        table.add_column(column, justify="right")
    skipped = dict(record.get("skipped", {}))
    for name, sizes in record["splits"].items():
        table.add_row(name, str(sizes["strings"]), f"{sizes['hours']:.2f}", str(sizes["speakers"]))
        skipped |= sizes.get("skipped", {})
    console = Console()
    console.print(table)
    if skipped:
        console.print(f"{len(skipped)} skipped:")
        for name, why in skipped.items():
            console.print(f"  {name}: {why}", highlight=False, markup=False, soft_wrap=True)
