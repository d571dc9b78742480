#!/usr/bin/env bash
# The flow of time: whether a decoder-only model knows how much of it went by. Three experiments, in minutes on a CPU.
#
#   ./run.sh [--data DIR] [--exp DIR] [--stage STAGE] [--stop-stage STAGE] [--model BUNDLE] [--teacher EXP] [--full-model BUNDLE]
#
# A clock: a ReaLLM without speech, whose inputs say nothing, ticks after every k-th of them, for far longer than it was trained.
# Words: when a Speech ReaLLM says them, against its teacher and the truth, of audio that is played slower and faster.
# Long audio: strings joined to ten times the training length, and a minute of something else between them.
# DIR holds the Free Spoken Digit Dataset, as for egs/digits; else $REALLM_DATA/fsdd, else it is downloaded. Stages, by number or name:
#   1 clock   train two clocks: with a window, and with full attention
#   2 ticks   run them for many times the training length
#   3 data    test strings of digits, as they are and at each speed
#   4 decode  stream them through the digits model
#   5 align   the teacher's times, if there is one
#   6 long    strings joined in one stream: errors, memory and operations against its length, as trained and with the window lifted
#   7 report  tables and pictures, in EXP/report; those of stage long are there already
# A stage that is done is skipped; a run that was stopped goes on where it was, stage long at the next row of its table.
set -euo pipefail

data=                                      # folder of the recordings (else $REALLM_DATA/fsdd, or a download)
exp=                                       # where everything is written (else exp/ here)
stage=1                                    # first stage
stop_stage=7                               # last stage
nj=2                                       # CPU cores to use
dask=                                      # address of a dask scheduler: its workers align and decode
seed=1                                     # of everything that is drawn
updates=1200                               # of each clock
times=30                                   # times the training length that the windowed clock runs
full_times=10                              # likewise, with full attention, whose positions must all be held
model=                                     # a digits bundle, or an experiment with one (else the packaged one)
teacher=                                   # the CTC experiment that aligned for it, such as egs/digits/exp/ctc; none: no teacher's times
test_strings=100                           # strings of digits at each speed
speeds="0.7 0.8 0.9 1.1 1.2 1.3 1.4"       # of the audio, beside 1
full_model=                                # a digits bundle trained with full attention, or an experiment with one; none: a row less
long_strings=200                           # strings that are joined
long_seconds="1 10 90"                     # least lengths of a stream of them: the longest training string has 9.2
long_between=60.0                          # seconds of silence, tones and noise between strings
long_between_strings=10                    # strings that have these between them, in one stream
force=false                                # run again what is done
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exp=${exp:-$here/exp}
. "$here/../../tools/stages.sh"

dask_is_known
whole 1 - nj updates times full_times test_strings long_strings long_between_strings
number 0 3600 long_between
numbers 0 3600 long_seconds
some long_seconds
whole 0 - seed
numbers 0.5 2 speeds
[ -z "$teacher" ] || [ -d "$teacher" ] || _error "--teacher '$teacher': no such folder: name the CTC experiment of egs/digits"
[ -z "$model" ] || [ -d "$model" ] || _error "--model '$model': no such folder: name a bundle, or an experiment with one"
[ -z "$full_model" ] || [ -d "$full_model" ] || _error "--full-model '$full_model': no such folder: name a bundle, or an experiment with one"
model=${model:-$here/../../reallm/bundles/digits}
[ ! -d "$model/bundle" ] || model=$model/bundle

begin clock ticks data decode align long report
settings seed updates times full_times model teacher test_strings speeds
reopens long full_model long_strings long_seconds long_between long_between_strings
. "$here/path.sh"
share="--jobs $nj"
[ -z "$dask" ] || share="--dask $dask"

# Full attention holds all positions: the prompt, the inputs, and a tick for every two of them at most.
inputs=$(sed -n 's/^inputs: *\([0-9]*\).*/\1/p' "$here/conf/clock.yaml")
if stage clock; then
  python "$here/local/clock.py" train "$here/conf/clock.yaml" --exp "$exp/clock/window" \
    --override seed="$seed" --override updates="$updates"
  python "$here/local/clock.py" train "$here/conf/clock.yaml" --exp "$exp/clock/full" \
    --override seed="$seed" --override updates="$updates" --override window=0 --override capacity=$((64 + full_times * inputs * 3 / 2))
  finish
fi

if stage ticks needs clock; then
  python "$here/local/clock.py" run "$exp/clock/window" --times "$times" --out "$exp/clock/window.json"
  python "$here/local/clock.py" run "$exp/clock/full" --times "$full_times" --out "$exp/clock/full.json"
  finish
fi

if stage data; then
  reallm data digits ${data:+--data "$data"} --out "$exp/data" --train-strings 1 --epochs 1 --dev-strings 1 --test-strings "$test_strings"
  reallm data speed "$exp/data/test.jsonl.gz" --out "$exp/data/speeds.jsonl.gz" $(printf -- '--factor %s ' $speeds)
  finish
fi

if stage decode needs data; then
  reallm decode "$model" --cuts "$exp/data/speeds.jsonl.gz" --out "$exp/decode" $share
  finish
fi

if stage align needs data; then
  if [ -n "$teacher" ]; then
    reallm align "$teacher" --cuts "$exp/data/speeds.jsonl.gz" --out "$exp/aligned.jsonl.gz" \
      --tokenizer word="$model/tokenizer.path.json" $share
  else
    rm -f "$exp/aligned.jsonl.gz"
    echo "no --teacher: words are compared with the truth alone"
  fi
  finish
fi

if stage long; then
  [ "$force" = false ] || rm -f "$exp/report/joined.json" # whose rows would be taken as they are
  reallm data digits ${data:+--data "$data"} --out "$exp/long" --train-strings 1 --epochs 1 --dev-strings 1 --test-strings "$long_strings"
  full=()
  [ -z "$full_model" ] || full=(--model "full=$full_model")
  python "$here/../../tools/bench/joined_strings.py" "$exp/long/test.jsonl.gz" --out "$exp/report" --strings "$long_strings" \
    $(printf -- '--seconds %s ' $long_seconds) --between "$long_between" --between-strings "$long_between_strings" \
    --if-they-attend --model "as trained=$model" --model "window lifted=$model:0" "${full[@]}"
  finish
fi

if stage report needs ticks decode align; then
  python "$here/local/report_clock.py" window="$exp/clock/window.json" full="$exp/clock/full.json" --out "$exp/report" \
    --at 1 --at "$full_times" --at "$times"
  python "$here/local/emission_times.py" "$exp/decode/hyps.jsonl" --cuts "$exp/data/speeds.jsonl.gz" --model "$model" --out "$exp/report" \
    ${teacher:+--aligned "$exp/aligned.jsonl.gz"}
  finish
fi
