#!/usr/bin/env python3
"""Prints decoded experiments as the table of a RESULTS.md: results_table.py [--mean] [--against SYSTEM [--by speaker]] FILE_OR_FOLDER…

Folders are searched for results.json. Real and synthetic recordings never share a table, nor do delays
against different reference times: that is an error. --against needs the environment of the toolkit, and the
hyps.jsonl beside each results.json; --by speaker also the manifests that were decoded.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

HEAD = (
    "| experiment | system | split | WER % (95 %) | errors / words | ins / del / sub | emission delay ms: mean / p50 / p90 / p99 "
    "| RTF | parameters |\n|---|---|---|---|---|---|---|---|---|"
)
NEEDED = (
    "system",
    "split",
    "corpus",
    "wer",
    "wer_ci95",
    "errors",
    "words",
    "insertions",
    "deletions",
    "substitutions",
    "rtf",
    "parameters",
)

Read = list[tuple[Path, dict[str, Any]]]


def fail(message: object) -> NoReturn:
    """What a user can mend: one line, exit code 2."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)


class Parser(argparse.ArgumentParser):
    """Wrong arguments are one line too."""

    def error(self, message: str) -> NoReturn:
        fail(f"{message} (see --help)")


def add_comparison(parser: argparse.ArgumentParser, what: str) -> None:
    """--against, which prints ``what``, and how it draws."""
    parser.add_argument("--against", metavar="SYSTEM", help=f"also {what}, with a 95 %% interval by paired bootstrap")
    parser.add_argument(
        "--by",
        choices=["utterance", "speaker"],
        default="utterance",
        help="what --against draws: utterances (or the recordings that they were made of, where the results know these), or speakers with "
        "all that they said, which is not independent (default: %(default)s)",
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = parser.parse_args()
    if arguments.by != "utterance" and not arguments.against:
        fail(f"--by {arguments.by} is what --against draws: name a system with --against")
    return arguments


def no_environment(missing: ModuleNotFoundError) -> NoReturn:
    fail(f"no Python package '{missing.name}' here: activate the environment first (. tools/activate.sh)")


def files_of(places: list[Path]) -> list[Path]:
    files: dict[Path, Path] = {}
    for place in places:
        found = sorted(place.rglob("results.json")) if place.is_dir() else [place]
        if not all(file.is_file() for file in found) or not found:
            fail(f"no results.json in {place}: run the score stage first")
        for file in found:
            if file.resolve() in files:
                fail(f"{file} is given twice (as {files[file.resolve()]} before): name it once")
            files[file.resolve()] = file
    return list(files.values())


def read_results(file: Path) -> dict[str, Any]:
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fail(f"{file} cannot be read ({error}): run the score stage again")
    absent = [key for key in NEEDED if key not in results] if isinstance(results, dict) else list(NEEDED)
    if absent or "kind" not in results["corpus"]:
        fail(f"{file} has no {', '.join(absent) or 'kind of corpus'}: it is not what `reallm score` writes; run the score stage again")
    return dict(results)


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


def reference_times(read: Read) -> list[str]:
    """What the emission delays of the results that have some are against."""
    return [results.get("reference_times") or "the true times" for _, results in read if results.get("emission_delay_ms")]


def read_alike(places: list[Path]) -> Read:
    """All results below ``places``; ends the program where they may not share a table."""
    read = [(file, read_results(file)) for file in files_of(places)]
    kinds = sorted({results["corpus"]["kind"] for _, results in read})
    if len(kinds) > 1:
        fail(f"these results are of {' and of '.join(kinds)}: give each kind a table of its own")
    # Where words end is another matter for each aligner: delays against different ones are not comparable.
    times = sorted(set(reference_times(read)))
    if len(times) > 1:
        fail(f"these delays are against {' and against '.join(times)}: give each a table of its own")
    return read


def name_of(results: dict[str, Any]) -> str:
    """A system and its size, which tells apart two of one kind; one whose delay was chosen is one, whatever its delay."""
    size = "" if results["parameters"] is None else f" {results['parameters'] / 1e6:.2f} M"
    chosen = " of any delay" if "delay" in (results.get("settings") or {}) else ""
    return f"{results['system'] or '–'}{size}{chosen}"


def trained_delay(results: dict[str, Any]) -> str:
    """In token periods, as ``reallm decode`` found it in the system: one, or the least and the most that training drew from."""
    several = results.get("training_delays")
    if several:
        return f"delays {several[0]}–{several[1]}"
    return f"delay {results['delay']}" if "delay" in results else ""


def names(read: Read) -> dict[Path, str]:
    """Of each file, its system's; with the delay that it was trained with, where those of the same system and size differ in it."""
    delays = defaultdict(set)
    for _, results in read:
        delays[name_of(results)].add(trained_delay(results))
    return {
        file: f"{name_of(results)} {trained_delay(results)}".strip() if len(delays[name_of(results)]) > 1 else name_of(results)
        for file, results in read
    }


def refuse_same_runs(read: Read) -> None:
    """The mean of two decodings of one run would count it twice, and that of two configurations is neither's."""
    known: dict[Any, Path] = {}
    for file, results in read:
        if results.get("seed") is None:
            continue
        run = json.dumps([names(read)[file], results["seed"], *(results.get(key) for key in ("split", "manifest", "settings"))])
        if run in known:
            fail(f"{known[run]} and {file} are both {names(read)[file]} of seed {results['seed']}: a mean is over seeds, leave one out")
        known[run] = file


def means(read: Read) -> Iterator[str]:
    yield "\n| system | split | mean WER % | lowest – highest | mean of mean emission delays ms |\n|---|---|---|---|---|"
    named = names(read)
    for system, split in sorted({(named[file], results["split"]) for file, results in read}):
        those = [results for file, results in read if (named[file], results["split"]) == (system, split)]
        wers = [results["wer"] for results in those]
        delays = [results["emission_delay_ms"]["mean"] for results in those if results.get("emission_delay_ms")]
        delay = f"{statistics.mean(delays):.0f}" if delays else "–"
        yield f"| {system} | {split} | {statistics.mean(wers):.2f} ({len(wers)} runs) | {min(wers):.2f} – {max(wers):.2f} | {delay} |"


def reference_of(folders: dict[str, list[Path]], read: Read, against: str, split: str) -> str:
    """The system that --against names; of one that was trained with several delays, that of the first place."""
    plain = {name: name_of(results) for file, results in read for name in [names(read)[file]] if name in folders}
    found = [name for name in folders if against in (name, plain[name], name.partition(" ")[0])]
    if len({plain[name] for name in found}) != 1:
        fail(f"--against '{against}': {len(found) or 'no'} such systems in {split}, where there are {', '.join(folders)}")
    return found[0]


def drawn(read: Read, by: str) -> str:
    """What the paired bootstrap draws."""
    return "speakers" if by == "speaker" else " or ".join(sorted({results.get("wer_ci95_over", "utterances") for _, results in read}))


def differences(read: Read, against: str, by: Any) -> Iterator[str]:
    """Paired bootstrap; errors of several runs of a system are averaged first."""
    try:
        from reallm.errors import InputError
        from reallm.metrics.paired import compare, group_errors, mean_errors
    except ModuleNotFoundError as missing:
        no_environment(missing)

    yield f"\n| system | split | runs | WER % − that of {against}, points (95 %) | probability of fewer errors |\n|---|---|---|---|---|"
    for split in sorted({results["split"] for _, results in read}):
        folders: dict[str, list[Path]] = defaultdict(list)
        for file, results in read:
            if results["split"] == split:
                folders[names(read)[file]].append(file.parent)
        reference = reference_of(folders, read, against, split)
        try:
            errors = {name: mean_errors([group_errors(folder, by) for folder in found]) for name, found in folders.items()}
            for name in sorted(set(folders) - {reference}):
                difference, low, high, better = compare(errors[name], errors[reference])
                yield f"| {name} | {split} | {len(folders[name])} | {difference:+.2f} ({low:+.2f} to {high:+.2f}) | {better:.3f} |"
        except InputError as error:
            fail(error)


def note(read: Read, by: str) -> str:
    """What the intervals hold."""
    differences_over, but = (", of differences over its speakers", ", but for differences,") if by == "speaker" else ("", "")
    return (
        f"\n95 %: by bootstrap over the {drawn(read, 'utterance')} of the test{differences_over}. How much another seed of the training "
        f"would change is not in it; nor{but} that the words of one speaker are alike."
    )


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("places", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    parser.add_argument("--mean", action="store_true", help="also the mean over the files, of each system and split")
    add_comparison(parser, "each system's difference to this one")
    arguments = parse(parser)
    read = read_alike(arguments.places)
    times = reference_times(read)
    lines = [read[0][1]["corpus"]["kind"] + (f", delays against {times[0]}" if times else "") + f"\n\n{HEAD}"]
    lines += [row(file, results) for file, results in read]
    if arguments.mean or arguments.against:
        refuse_same_runs(read)
    if arguments.mean:
        lines += means(read)
    if arguments.against:
        lines += differences(read, arguments.against, arguments.by)
    print("\n".join([*lines, note(read, arguments.by)]))


if __name__ == "__main__":
    main()
