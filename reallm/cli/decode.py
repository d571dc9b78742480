"""``reallm decode``: a manifest through the recognizer that users hold."""

from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.cli._cpu_layers import Compiled, Int8, use_cpu_layers
from reallm.cli._settings import PhraseBonus, Phrases
from reallm.cli._workers import Dask, Jobs
from reallm.errors import InputError


def decode(
    model: Annotated[Path, typer.Argument(metavar="EXP_OR_BUNDLE", help="An experiment or a bundle.")],
    cuts: Annotated[Path, typer.Option("--cuts", help="The manifest to decode.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for hyps.jsonl and results.json.")],
    piece_ms: Annotated[float, typer.Option(help="Audio is pushed in pieces of so many milliseconds.")] = 20.0,
    streams: Annotated[int, typer.Option(min=1, help="Utterances decoded at a time.")] = 32,
    limit: Annotated[int | None, typer.Option(min=1, help="Decode the first so many utterances only.")] = None,
    every: Annotated[int, typer.Option(min=1, help="Decode one of so many utterances only, from the first on, before --limit.")] = 1,
    average: Annotated[int | None, typer.Option(min=1, help="Average so many checkpoints of EXP; default: its bundle.")] = None,
    beam: Annotated[int | None, typer.Option(min=1, help="Search with so many hypotheses; default: as the model was exported.")] = None,
    n_best: Annotated[
        int | None, typer.Option("--n-best", min=1, help="Write so many of each utterance's best texts to hyps.jsonl; needs --beam.")
    ] = None,
    delay: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds that words wait, of a model that was trained for several; default: its own.")
    ] = None,
    phrases: Phrases = None,
    phrase_bonus: PhraseBonus = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="PART.NAME=NUMBER, as searcher.blank_penalty=2, or system.ctc_search_weight=0.4 of aed and decoder_only."
        ),
    ] = None,
    input_rate: Annotated[int | None, typer.Option(min=1000, help="Resample the audio to this rate first.")] = None,
    compare_offline: Annotated[bool, typer.Option("--compare-offline", help="List texts that differ from the offline pass.")] = False,
    rtf_utterances: Annotated[int, typer.Option(min=0, help="Measure the real-time factor on so many.")] = 20,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16: of all weights; default: as the model has them.")] = None,
    int8: Int8 = False,
    compiled: Compiled = False,
    jobs: Jobs = 1,
    dask: Dask = None,
) -> None:
    """Stream a manifest through a trained system; write what was recognized and when, and score it where there are transcripts.

    What lies in OUT of the same model, manifest and options, by the same revision of the toolkit, stays as it is.

    The real-time factor is measured afterwards, with one stream on one thread of this process: CPU seconds per second of audio.
    """
    if n_best and n_best > (beam or 0):
        too_many = f": --beam {beam} keeps {beam} texts at most: raise it to {n_best}, or ask for fewer"
        raise InputError(f"--n-best {n_best}{too_many if beam else f' is for a beam search: add --beam {n_best}'}")
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise InputError(f"--dtype {dtype}: float32, bfloat16 or float16")
    if compiled and dask:
        raise InputError("--compiled is for the processor of this machine, and --dask for others: leave one out")
    import shutil

    import torch
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from reallm import __version__, fingerprints
    from reallm.bundle import load_system
    from reallm.cli._memory import memory_told
    from reallm.cli._settings import apply_settings, use_beam, use_delay, use_phrases
    from reallm.data.cuts import read_cuts, text_of
    from reallm.jobs import Workers, in_shards
    from reallm.metrics.hypotheses import from_json, read_hypotheses, write_hypotheses
    from reallm.metrics.provenance import delays_of, git_revision, training_facts
    from reallm.metrics.results import DECODING, finished, make_results, one_line, write_json
    from reallm.protocols import keeps_n_best, times_known
    from reallm.registry import spec_of
    from reallm.streaming.decoding import ShardDecoder
    from reallm.streaming.measurement import real_time_factor

    workers = Workers(jobs, dask)
    manifest = list(read_cuts(cuts))[::every][:limit]
    known = any(text_of(cut).split() for cut in manifest)
    system: Any = load_system(model, average)
    delays = delays_of(system)
    chosen = {} if delay is None else use_delay(system, delay)
    settings = {**chosen, **(use_beam(system, beam) if beam else {}), **apply_settings(system, set_ or [])}
    settings |= use_phrases(system, phrases, phrase_bonus)  # last: a searcher that is built anew has none
    if n_best and not keeps_n_best(system):
        raise InputError(f"--n-best {n_best}: the search of system '{spec_of(system).name}' gives its best text alone: leave it out")
    if dtype is not None:
        settings |= {"dtype": dtype}
        system.to(getattr(torch, dtype))
    lack: dict[str, Any] = {"system": system, "device": device, "jobs": jobs, "streams": streams, "precisions": True}
    try:
        with memory_told(**lack):
            system.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {device}: {str(error).splitlines()[0]}") from None
    parameters = sum(p.numel() for p in system.parameters())  # int8 and packed weights are buffers
    settings |= use_cpu_layers(system, int8, compiled)

    decoder = ShardDecoder(system, streams, piece_ms / 1000, input_rate, n_best or 0, compare_offline)
    parts = out.resolve().with_name(f".{out.resolve().name}.parts")
    key = decoder.key(cuts, settings)
    asked = {"model": str(model), "utterances": len(manifest), "rtf_utterances": rtf_utterances, "every": every}
    made_by = fingerprints.of_json({**key, **asked, "reallm": [__version__, git_revision()]})
    if finished(out, made_by, known):
        shutil.rmtree(parts, ignore_errors=True)
        typer.echo(f"{out} is finished, with the same model, manifest and options: remove it to decode again")
        return
    columns = (TextColumn("decoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, transient=True, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("decode", total=len(manifest))
        with memory_told(**lack, dask=dask):
            shards = in_shards(decoder, manifest, decoder.shard, parts, key, workers, lambda count: bar.advance(task, count))
    facts: dict[str, Any] = {
        "system": spec_of(system).name,
        "times_known": times_known(system),
        "parameters": parameters,
        "model": str(model),
        **training_facts(model),
        **delays,
        "settings": settings,
        "device": device,
        **({"jobs": jobs} if dask is None else {"dask": dask}),
        "piece_ms": piece_ms,
        "input_rate": input_rate or manifest[0].sampling_rate,
    }
    if n_best:
        facts["n_best"] = n_best
    if every > 1:
        facts["every"] = every
    if rtf_utterances:
        facts["rtf"] = round(real_time_factor(system, [decoder.audio(cut) for cut in manifest[:rtf_utterances]], piece_ms / 1000), 4)
    if compare_offline:
        facts["offline_mismatches"] = [name for shard in shards for name in shard["mismatches"]]
    out.mkdir(parents=True, exist_ok=True)
    (out / DECODING).unlink(missing_ok=True)  # written last: it says that the rest is there
    write_hypotheses(out / "hyps.jsonl", (from_json(line) for shard in shards for line in shard["hypotheses"]))
    # Scored as written, with rounded times: reallm score gives the same numbers.
    scored = make_results(read_hypotheses(out / "hyps.jsonl"), manifest, cuts, facts) if known else None
    if scored is None:
        (out / "results.json").unlink(missing_ok=True)  # of another decoding
    else:
        write_json(out / "results.json", scored)
    write_json(out / DECODING, {"key": made_by, **facts})
    shutil.rmtree(parts)
    if scored is None:
        unscored = f"{cuts} holds no words to score against: {len(manifest)} utterances were decoded, and not scored"
        typer.echo(f"{unscored}\n{out / 'hyps.jsonl'}")
    else:
        typer.echo(f"{one_line(scored)}\n{out / 'results.json'}")
