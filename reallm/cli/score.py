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
    from reallm.data.cuts import read_cuts
    from reallm.metrics.hypotheses import read_hypotheses
    from reallm.metrics.results import decoding_facts, make_results, one_line, write_json

    recognized = read_hypotheses(hyps)
    facts = decoding_facts(hyps.parent)
    decoded = {utterance.id for utterance in recognized}
    # A decoding with --every or --limit is scored on what it decoded: those cuts, and the first of them.
    everything = list(read_cuts(cuts))[:: facts.get("every", 1)]
    scored = everything[: len(recognized)] if {cut.id for cut in everything[: len(recognized)]} == decoded else everything
    if times is not None:
        scored, timed = _timed(scored, times)
        facts |= timed
    results = make_results(recognized, scored, cuts, facts, normalize)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, results)
    typer.echo(f"{one_line(results)}\n{out}")


def _timed(cuts: list[Any], path: Path) -> tuple[list[Any], dict[str, Any]]:
    """The cuts with the word times of an aligned manifest, where they have none of their own; for results, what aligned it.

    Raises InputError for a manifest that lacks token alignments, or has those of several aligners, or times none of the cuts.
    """
    from reallm.aligners.retokenize import word_times
    from reallm.data.alignments import TOKEN, token_alignment, token_meta, with_words, words
    from reallm.data.cuts import read_cuts
    from reallm.errors import InputError

    spoken, made_by = {}, set()
    for cut in read_cuts(path):
        alignment, meta = token_alignment(cut, cut.sampling_rate), token_meta(cut)
        if alignment is None or meta is None:
            raise InputError(f"--times {path}: cut '{cut.id}' has no token alignment: name a manifest that `reallm align` wrote")
        pieces = [item.symbol for supervision in cut.supervisions for item in supervision.alignment[TOKEN]]
        if len(pieces) != len(alignment.token_ids):
            raise InputError(f"--times {path}: tokens of cut '{cut.id}' lie outside of it: name the whole cuts that `reallm align` wrote")
        spoken[cut.id] = word_times(alignment, pieces)
        # Two teachers are two references, though their aligner is one; a CTM file has none.
        made_by.add(" ".join(filter(None, (meta["aligner"], meta["backend"], meta["version"], (meta.get("teacher") or "")[:12]))))
    if len(made_by) > 1:
        raise InputError(f"--times {path} was aligned by {' and by '.join(sorted(made_by))}: align all of it alike")
    own = [bool(words(cut)) for cut in cuts]
    found = [cut if known or cut.id not in spoken else with_words(cut, spoken[cut.id]) for cut, known in zip(cuts, own, strict=True)]
    taken = sum(new is not old for new, old in zip(found, cuts, strict=True))
    if not taken and not any(own):
        raise InputError(f"--times {path} has none of the cuts that are scored, such as '{cuts[0].id}': align the manifest of --cuts")
    return found, {"reference_times": made_by.pop(), "reference_times_cuts": taken} if taken else {}
