#!/usr/bin/env python3
"""Prints decoded experiments as the table of a RESULTS.md: results_table.py [--mean] FILE_OR_FOLDER…

Folders are searched for results.json. Real and synthetic recordings never share a table, nor do delays
against different reference times: that is an error.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

HEAD = (
    "| experiment | system | split | WER % (95 %) | errors / words | ins / del / sub | emission delay ms: mean / p50 / p90 / p99 "
    "| RTF | parameters |\n|---|---|---|---|---|---|---|---|---|"
)


def files_of(places: list[Path]) -> list[Path]:
    files: list[Path] = []
    for place in places:
        found = sorted(place.rglob("results.json")) if place.is_dir() else [place]
        if not all(file.is_file() for file in found) or not found:
            sys.exit(f"error: no results.json in {place}: run the score stage first")
        files += found
    return files


def row(file: Path, results: dict[str, Any]) -> str:
    delay = results.get("emission_delay_ms") or {}
    delays = " / ".join(f"{delay[key]:.0f}" if key in delay else "–" for key in ("mean", "p50", "p90", "p99"))
    low, high = results["wer_ci95"]
    counts = " / ".join(str(results[key]) for key in ("insertions", "deletions", "substitutions"))
    cells = [
        str(file.parent),
        results["system"] or "–",
        results["split"],
        f"{results['wer']:.2f} ({low:.2f}–{high:.2f})",
        f"{results['errors']} / {results['words']}",
        counts,
        delays,
        "–" if results["rtf"] is None else f"{results['rtf']:.3f}",
        "–" if results["parameters"] is None else f"{results['parameters'] / 1e6:.2f} M",
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--mean", action="store_true", help="also the mean over the files, of each system and split")
    arguments = parser.parse_args()
    files = files_of(arguments.places)
    read = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    kinds = sorted({results["corpus"]["kind"] for results in read})
    if len(kinds) > 1:
        sys.exit(f"error: these results are of {' and of '.join(kinds)}: give each kind a table of its own")
    # Where words end is another matter for each aligner: delays against different ones are not comparable.
    measured = [results.get("reference_times") or "the true times" for results in read if results.get("emission_delay_ms")]
    if len(set(measured)) > 1:
        sys.exit(f"error: these delays are against {' and against '.join(sorted(set(measured)))}: give each a table of its own")
    print(f"{kinds[0]}" + (f", delays against {measured[0]}" if measured else "") + f"\n\n{HEAD}")
    for file, results in zip(files, read, strict=True):
        print(row(file, results))
    if arguments.mean:
        print("\n| system | split | mean WER % | lowest – highest | mean of mean emission delays ms |\n|---|---|---|---|---|")
        for system, split in sorted({(results["system"] or "–", results["split"]) for results in read}):
            those = [results for results in read if (results["system"] or "–", results["split"]) == (system, split)]
            wers = [results["wer"] for results in those]
            delays = [results["emission_delay_ms"]["mean"] for results in those if results.get("emission_delay_ms")]
            delay = f"{statistics.mean(delays):.0f}" if delays else "–"
            print(f"| {system} | {split} | {statistics.mean(wers):.2f} ({len(wers)} runs) | {min(wers):.2f} – {max(wers):.2f} | {delay} |")


main()
