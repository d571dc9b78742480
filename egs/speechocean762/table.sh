#!/usr/bin/env bash
# The table of all systems below some --exp of run.sh: `table.sh EXP…`. Each test has a table of its own: results, means over seeds,
# differences to the Speech ReaLLM, error rates and differences at the same delay. Pictures of the curves go to the first EXP: curves/TEST.png.
set -euo pipefail

case ${1:-} in
  --help | -h) sed -n '2,/^[^#]/{ /^#/ s/^# \{0,1\}//p; }' "$0"; exit 0 ;;
  '') echo "error: name one or more folders that run.sh wrote: table.sh EXP…" >&2; exit 2 ;;
esac
for exp in "$@"; do
  compgen -G "$exp/*/decode/*/results.json" >/dev/null || { echo "error: '$exp' has no results: name folders where run.sh did its stage score" >&2; exit 2; }
done
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
nj=1
. "$here/path.sh"

for test in test-adult test-child test-synthetic test-digits; do
  results=() curves=()
  for exp in "$@"; do
    for folder in "$exp"/*/decode/"$test"; do
      [ ! -f "$folder/results.json" ] || results+=("$folder") curves+=("$folder")
    done
    for folder in "$exp"/*/decode/"$test".chunk*; do
      [ ! -f "$folder/results.json" ] || curves+=("$folder")
    done
  done
  [ ${#results[@]} -gt 0 ] || continue
  printf '\n## %s\n\n' "$test"
  against=
  for folder in "${results[@]}"; do
    [[ $folder != */speech_reallm.*/decode/* ]] || against="--against speech_reallm"
  done
  python "$here/../../tools/results_table.py" --mean $against "${results[@]}"
  if [ -n "$against" ]; then
    echo
    python "$here/../../tools/delay_curve.py" $against --picture "$1/curves/$test.png" "${curves[@]}"
  fi
done
