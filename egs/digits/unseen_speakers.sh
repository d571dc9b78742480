#!/usr/bin/env bash
# How well speakers are recognized that were never heard: each of the six is held out once, and the mean is printed. Five speakers
# are few, so 40 espeak-ng voices speak 40 % of the training strings (--synthetic-voices 0: none).
#
#   ./unseen_speakers.sh [--exp DIR] [--speakers "NAME NAME"] [options of run.sh]
#
# A run of its own for each, DIR/NAME (DIR: exp.unseen here): three hours on two cores. Stopped and started again, it goes on
# where it was.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exp=$here/exp.unseen
speakers="george jackson lucas nicolas theo yweweler"
others=(--synthetic-voices 40 --synthetic-share 0.4)
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"; exit ;;
    --exp | --speakers)
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      declare "${1#--}=$2"
      shift 2
      ;;
    *) others+=("$1"); shift ;;
  esac
done

results=() scored=true
for speaker in $speakers; do
  "$here/run.sh" --held-out-speaker "$speaker" --exp "$exp/$speaker" ${others[@]+"${others[@]}"}
  results+=("$exp/$speaker"/*/decode) # the Speech ReaLLM's, and the teacher's, whichever it is
  [ -f "$exp/$speaker/.done/score" ] || scored=false
done
if [ "$scored" = false ]; then
  echo "no table yet: the stage score is not done"
  exit
fi
nj=1
. "$here/path.sh"
python "$here/../../tools/results_table.py" --mean "${results[@]}"
