"""``reallm score``: errors and delays of what was decoded."""

from pathlib import Path
from typing import Annotated

import typer


def score(
    hyps: Annotated[Path, typer.Argument(metavar="HYPS", help="hyps.jsonl, as reallm decode writes it.")],
    cuts: Annotated[Path, typer.Option("--cuts", help="The manifest that was decoded.")],
    out: Annotated[Path, typer.Option("--out", help="The results.json to write.")],
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
    results = make_results(recognized, scored, cuts, facts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out) as file:
        file.write(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    typer.echo(f"{one_line(results)}\n{out}")
