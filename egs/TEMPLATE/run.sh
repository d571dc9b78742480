#!/usr/bin/env bash
# A Speech ReaLLM on your own recordings: copy this folder to egs/NAME and change what differs.
#
#   ./run.sh --data DIR [--exp DIR] [--stage STAGE] [--stop-stage STAGE] [--nj N]
#
# DIR holds train.tsv, dev.tsv and test.tsv (README.md); else $REALLM_DATA/NAME is taken. Stages, by number or name:
#   1 data       manifests of the three splits
#   2 tokenizer  from the training transcripts
#   3 teacher    a CTC model, which aligns
#   4 align      when each token of the training data was spoken
#   5 train      the Speech ReaLLM
#   6 export     a bundle that `reallm transcribe --model` takes
#   7 decode     the test split, streamed in pieces of 20 ms
#   8 score      results.json
#   9 report     curves, pictures, error tables
# A stage that is done is skipped; a run that was stopped goes on where it was.
set -euo pipefail

data=               # folder of the recordings (else $REALLM_DATA/NAME)
exp=                # where everything is written (else exp/ here)
stage=1             # first stage
stop_stage=9        # last stage
nj=2                # CPU cores to use
dask=               # address of a dask scheduler: its workers prepare, align and decode
seed=1              # of everything that is drawn
teacher=ctc         # what aligns and gives the first encoder: ctc, or rnnt (the system 'transducer')
delay=1             # token periods between the end of a token and its speech embedding
teacher_epochs=30   # passes over the training data, of the teacher
epochs=30           # likewise, of the Speech ReaLLM
init=               # a bundle to fine-tune, instead of the teacher's encoder
license=unknown     # of the weights, for the model card: what the recordings' licence asks for
force=false         # run again what is done
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
data=${data:-${REALLM_DATA:+$REALLM_DATA/$(basename "$here")}}
exp=${exp:-$here/exp}
. "$here/../../tools/stages.sh"

whole 1 - nj teacher_epochs epochs
whole 0 - seed
one_of teacher ctc rnnt
dask_is_known
delay_fits "$here/conf/speech_reallm.yaml"
[ -z "$init" ] || [ -d "$init" ] || _error "--init '$init': no such folder: name a bundle or an experiment"

begin data tokenizer teacher align train export decode score report
settings seed
since teacher teacher teacher_epochs
since train delay init epochs
. "$here/path.sh"
share="--jobs $nj"
[ -z "$dask" ] || share="--dask $dask"
teacher_system=ctc
[ "$teacher" = ctc ] || teacher_system=transducer

if stage data; then
  [ -n "$data" ] || _error "no recordings: name their folder with --data DIR, or set REALLM_DATA"
  for split in train dev test; do
    reallm data tsv "$data/$split.tsv" --out "$exp/data" --name "$split" --corpus "$(basename "$here")" $share
  done
  finish
fi

if stage tokenizer needs data; then
  reallm tokenizer character --train "$exp/data/train.jsonl.gz" --out "$exp/tokenizer.json"
  finish
fi

if stage teacher needs tokenizer; then
  reallm train "$here/conf/$teacher_system.yaml" --exp "$exp/$teacher_system" --train "$exp/data/train.jsonl.gz" --dev "$exp/data/dev.jsonl.gz" \
    --override tokenizer_path="$exp/tokenizer.json" --override seed="$seed" --override epochs="$teacher_epochs"
  finish
fi

if stage align needs teacher; then
  reallm align "$exp/$teacher_system" --cuts "$exp/data/train.jsonl.gz" --out "$exp/align/train.jsonl.gz" $share
  finish
fi

if stage train needs align; then
  reallm train "$here/conf/speech_reallm.yaml" --exp "$exp/speech_reallm" --init "${init:-$exp/$teacher_system}" \
    --train "$exp/align/train.jsonl.gz" --dev "$exp/data/dev.jsonl.gz" \
    --override tokenizer_path="$exp/tokenizer.json" --override seed="$seed" --override epochs="$epochs" --override delay="$delay"
  finish
fi

if stage export needs train; then
  reallm export "$exp/speech_reallm" --out "$exp/speech_reallm/bundle" \
    --training-data "$(basename "$here"), $data" --license "$license"
  finish
fi

if stage decode needs export; then
  reallm decode "$exp/speech_reallm/bundle" --cuts "$exp/data/test.jsonl.gz" --out "$exp/speech_reallm/decode/test" $share
  finish
fi

if stage score needs decode; then
  reallm score "$exp/speech_reallm/decode/test/hyps.jsonl" --cuts "$exp/data/test.jsonl.gz" --out "$exp/speech_reallm/decode/test/results.json"
  finish
fi

if stage report needs score; then
  reallm report "$exp/speech_reallm" --teacher "$exp/$teacher_system"
  finish
fi
