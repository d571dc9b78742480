"""``reallm score``: errors and delays of what was decoded."""

from pathlib import Path
from typing import Annotated, Any

import typer


def score(
    hyps: Annotated[Path, typer.Argument(metavar="HYPS", help="hyps.jsonl, as reallm decode writes it.")],
    cuts: Annotated[Path, typer.Option("--cuts", help="The manifest that was decoded.")],
    out: Annotated[Path, typer.Option("--out", help="The results.json to write.")],
    normalize: Annotated[
        str, typer.Option(help="Of the words on both sides: none, or librispeech (upper case, no punctuation but apostrophes).")
    ] = "none",
    times: Annotated[
        Path | None,
        typer.Option(
            metavar="MANIFEST", help="The same cuts as `reallm align` wrote them: when words were spoken, if the true times are unknown."
        ),
    ] = None,
) -> None:
    """Score hypotheses against a manifest. What decode.json beside HYPS says of the system is taken over."""
    import json

    from reallm.data.cuts import read_cuts
    from reallm.data.files import atomic_write
    from reallm.metrics.hypotheses import read_hypotheses
    from reallm.metrics.results import make_results, one_line

    recognized = read_hypotheses(hyps)
    known = hyps.parent / "decode.json"
    facts = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else {}
    decoded = {utterance.id for utterance in recognized}
    everything = list(read_cuts(cuts))
    # A decoding with --limit is scored on what it decoded: the first cuts of the manifest.
    scored = everything[: len(recognized)] if {cut.id for cut in everything[: len(recognized)]} == decoded else everything
    if times is not None:
        scored, facts["reference_times"] = _timed(scored, times)
    results = make_results(recognized, scored, cuts, facts, normalize)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    typer.echo(f"{one_line(results)}\n{out}")


def _timed(cuts: list[Any], path: Path) -> tuple[list[Any], str]:
    """The cuts with the word times of an aligned manifest, where they have none of their own; and what aligned it.

    Raises InputError for a manifest without token alignments.
    """
    from reallm.aligners.retokenize import word_times
    from reallm.data.alignments import TOKEN, token_alignment, token_meta, with_words, words
    from reallm.data.cuts import read_cuts
    from reallm.errors import InputError

    spoken, made_by = {}, ""
    for cut in read_cuts(path):
        alignment, meta = token_alignment(cut, cut.sampling_rate), token_meta(cut)
        if alignment is None or meta is None:
            raise InputError(f"--times {path}: cut '{cut.id}' has no token alignment: name a manifest that `reallm align` wrote")
        pieces = [item.symbol for supervision in cut.supervisions for item in supervision.alignment[TOKEN]]
        spoken[cut.id], made_by = word_times(alignment, pieces), f"{meta['aligner']} {meta['backend']} {meta['version']}".strip()
    return [cut if words(cut) or cut.id not in spoken else with_words(cut, spoken[cut.id]) for cut in cuts], made_by
