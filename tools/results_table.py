#!/usr/bin/env python3
"""Prints decoded experiments as the table of a RESULTS.md: results_table.py [--mean] [--against SYSTEM] FILE_OR_FOLDER…

Folders are searched for results.json. Real and synthetic recordings never share a table, nor do delays
against different reference times: that is an error. --against needs the environment of the toolkit, and the
hyps.jsonl beside each results.json.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
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


def reference_times(read: list[tuple[Path, dict[str, Any]]]) -> list[str]:
    """What the emission delays of the results that have some are against."""
    return [results.get("reference_times") or "the true times" for _, results in read if results.get("emission_delay_ms")]


def read_alike(places: list[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """All results below ``places``; ends the program where they may not share a table."""
    read = [(file, json.loads(file.read_text(encoding="utf-8"))) for file in files_of(places)]
    kinds = sorted({results["corpus"]["kind"] for _, results in read})
    if len(kinds) > 1:
        sys.exit(f"error: these results are of {' and of '.join(kinds)}: give each kind a table of its own")
    # Where words end is another matter for each aligner: delays against different ones are not comparable.
    times = sorted(set(reference_times(read)))
    if len(times) > 1:
        sys.exit(f"error: these delays are against {' and against '.join(times)}: give each a table of its own")
    return read


def name_of(results: dict[str, Any]) -> str:
    """A system and its size, which tells apart two of one kind; one whose delay was chosen is one, whatever its delay."""
    size = "" if results["parameters"] is None else f" {results['parameters'] / 1e6:.2f} M"
    chosen = " of any delay" if "delay" in (results.get("settings") or {}) else ""
    return f"{results['system'] or '–'}{size}{chosen}"


def print_means(read: list[tuple[Path, dict[str, Any]]]) -> None:
    print("\n| system | split | mean WER % | lowest – highest | mean of mean emission delays ms |\n|---|---|---|---|---|")
    for system, split in sorted({(name_of(results), results["split"]) for _, results in read}):
        those = [results for _, results in read if (name_of(results), results["split"]) == (system, split)]
        wers = [results["wer"] for results in those]
        delays = [results["emission_delay_ms"]["mean"] for results in those if results.get("emission_delay_ms")]
        delay = f"{statistics.mean(delays):.0f}" if delays else "–"
        print(f"| {system} | {split} | {statistics.mean(wers):.2f} ({len(wers)} runs) | {min(wers):.2f} – {max(wers):.2f} | {delay} |")


def print_differences(read: list[tuple[Path, dict[str, Any]]], against: str) -> None:
    """Paired bootstrap over utterances; errors of several runs of a system are averaged first."""
    from reallm.errors import InputError
    from reallm.metrics.paired import compare, mean_errors, utterance_errors

    print(f"\n| system | split | runs | WER % − that of {against}, points (95 %) | probability of fewer errors |\n|---|---|---|---|---|")
    for split in sorted({results["split"] for _, results in read}):
        folders: dict[str, list[Path]] = defaultdict(list)
        for file, results in read:
            if results["split"] == split:
                folders[name_of(results)].append(file.parent)
        named = [name for name in folders if against in (name, name.partition(" ")[0])]
        if len(named) != 1:
            sys.exit(f"error: --against '{against}': {len(named) or 'no'} such systems in {split}, where there are {', '.join(folders)}")
        try:
            errors = {name: mean_errors([utterance_errors(folder) for folder in found]) for name, found in folders.items()}
            for name in sorted(set(folders) - set(named)):
                difference, low, high, better = compare(errors[name], errors[named[0]])
                print(f"| {name} | {split} | {len(folders[name])} | {difference:+.2f} ({low:+.2f} to {high:+.2f}) | {better:.3f} |")
        except InputError as error:
            sys.exit(f"error: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--mean", action="store_true", help="also the mean over the files, of each system and split")
    parser.add_argument("--against", metavar="SYSTEM", help="also each system's difference to this one, by paired bootstrap")
    arguments = parser.parse_args()
    read = read_alike(arguments.places)
    times = reference_times(read)
    print(read[0][1]["corpus"]["kind"] + (f", delays against {times[0]}" if times else "") + f"\n\n{HEAD}")
    for file, results in read:
        print(row(file, results))
    if arguments.mean:
        print_means(read)
    if arguments.against:
        print_differences(read, arguments.against)


if __name__ == "__main__":
    main()
