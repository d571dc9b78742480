#!/usr/bin/env bash
# A Speech ReaLLM on your own recordings: copy this folder to egs/NAME and change what differs.
#
#   ./run.sh --data DIR [--exp DIR] [--stage STAGE] [--stop-stage STAGE] [--nj N]
#
# DIR holds train.tsv, dev.tsv and test.tsv (README.md). Stages, by number or name:
#   1 data       manifests of the three splits
#   2 tokenizer  learned from the training transcripts
#   3 teacher    a CTC model, for the alignment
#   4 align      when each token of the training data was spoken
#   5 train      the Speech ReaLLM
#   6 export     a bundle that `reallm transcribe --model` takes
#   7 decode     the test split, streamed
#   8 score      results.json and a table
#   9 report     curves, pictures, error tables
# A stage that is done is skipped; a run that was stopped goes on where it was.
set -euo pipefail

data=               # folder of the recordings (else $REALLM_DATA/<name of the recipe's folder>)
exp=                # where everything is written (else exp/ here)
stage=1             # first stage
stop_stage=9        # last stage
nj=2                # CPU cores to use
seed=1              # of everything that is drawn
delay=1             # token periods between the end of a token and its speech embedding
force=false         # run again what is done
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=${data:-${REALLM_DATA:+$REALLM_DATA/$(basename "$here")}}
exp=${exp:-$here/exp}
. "$here/path.sh"
. "$here/../../tools/stages.sh"

begin data tokenizer teacher align train export decode score report
settings seed delay

if stage data; then
  for split in train dev test; do
    reallm data tsv "$data/$split.tsv" --out "$exp/data" --split $split
  done
  finish
fi
