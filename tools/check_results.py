"""Fails when a decoded experiment is worse than it may be: check_results.py EXP --max-wer PERCENT."""

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("exp", type=Path)
    parser.add_argument("--max-wer", type=float, required=True)
    arguments = parser.parse_args()
    files = sorted(arguments.exp.rglob("results*.json"))
    if not files:
        sys.exit(f"error: no results*.json below {arguments.exp}: the recipe scored nothing")
    bad = 0
    for file in files:
        results = json.loads(file.read_text())
        fine = results["wer"] <= arguments.max_wer  # NaN is not fine
        bad += not fine
        print(
            f"{'ok  ' if fine else 'FAIL'} {file.relative_to(arguments.exp)}: {results['system']} on {results['split']} "
            f"({results['corpus']['kind']}): WER {results['wer']:.2f} %, {results['words']} words, at most {arguments.max_wer:g} % allowed"
        )
    if bad:
        sys.exit(f"error: {bad} of {len(files)} results are worse than {arguments.max_wer:g} % WER")


main()
