#!/usr/bin/env bash
# Speech ReaLLM on LibriSpeech, and the systems that the paper compares it with.
#
#   ./run.sh [--corpus DIR] [--exp DIR] [--train-sets 100|460|960] [--system NAME] [--alignments DIR] [--stage STAGE] [--stop-stage STAGE]
#   ./run.sh --config conf/small.sh          # four hours of synthesized speech, on two CPU cores
#
# DIR holds LibriSpeech/train-clean-100 and so on; else $REALLM_DATA/librispeech, else it is downloaded (60 GB for 960 hours).
# Stages, by number or name:
#   1 download   the parts of LibriSpeech that are needed, unless --corpus names them; or synthesized speech
#   2 data       manifests, by lhotse's recipe; the training set also at 0.9 and 1.1 of its speed; its features, if they are stored
#   3 tokenizer  sentencepiece
#   4 teacher    a CTC model, or a transducer, which aligns, and gives those of its width their first encoder
#   5 align      when each token of the training data was spoken; of the other parts too, to measure delays
#   6 train      the system
#   7 export     a bundle that `reallm transcribe --model` takes
#   8 decode     dev-clean, dev-other, test-clean, test-other (--parts), streamed in pieces of 20 ms
#   9 score      results.json of each
#   10 report    curves, pictures, error tables
# A stage that is done is skipped; a run that was stopped goes on where it was.
set -euo pipefail

corpus=             # folder of LibriSpeech (else $REALLM_DATA/librispeech, or a download)
subset=false        # take of --corpus what is there, also where it is not all of LibriSpeech
synthetic=          # in place of LibriSpeech: so many hours of training speech from espeak-ng
text=               # what it says: a folder of train.txt, dev.txt and test.txt (else $REALLM_DATA/text)
eval_utterances=50  # synthesized utterances in each of dev-clean, dev-other, test-clean, test-other
exp=                # where everything is written (else exp/ here)
stage=1             # first stage
stop_stage=10       # last stage
nj=2                # CPU cores to use
dask=               # address of a dask scheduler: its workers prepare, speak, align and decode
device=             # cpu or cuda (else: training takes an accelerator where there is one, the rest the CPU)
devices=1           # accelerators of this machine that train together; on the CPU, processes
train_sets=960      # hours of training data: 100, 460 or 960
system=speech_reallm # what is trained: conf/NAME.yaml
teacher=ctc         # what aligns: ctc or rnnt
alignments=         # in place of a teacher: a folder of CTM files, TextGrids, or the public LibriSpeech alignments
from=               # another run's --exp, whose data, teacher and alignments are used
conf=conf           # folder of the configurations
parts="dev-clean dev-other test-clean test-other" # what is decoded and scored
features=online     # where features come from: online, or stored once, by the frontend of the system
vocab=1000          # pieces of the sentencepiece model
seed=1              # of everything that is drawn
delay=1             # token periods between the end of a token and its speech embedding
teacher_epochs=15   # passes over the training data, of the teacher
epochs=20           # likewise, of the system
tunables=           # of conf/SYSTEM.yaml, set otherwise, such as "stride=3 flush_periods=8" (a token period of 0.12 s)
force=false         # run again what is done
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exp=${exp:-$here/exp}
. "$here/../../tools/stages.sh"

whole 1 - nj eval_utterances vocab teacher_epochs epochs
whole 0 - seed
whole 1 - devices
[ -z "$synthetic" ] || number 0.001 - synthetic
if [ -n "$synthetic" ]; then
  ! given corpus || _error "--corpus '$corpus': --synthetic makes the corpus: give one of them"
else
  for option in text eval_utterances; do
    ! given $option || [ -n "$from" ] || _error "--${option//_/-} '${!option}': of what --synthetic speaks: give that too"
  done
fi
one_of train_sets 100 460 960
one_of features online stored
some parts
for part in $parts; do
  [[ $part =~ ^(dev|test)-(clean|other)$ ]] || _error "--parts '$part': of dev-clean, dev-other, test-clean and test-other"
done
device_is_known
dask_is_known
folder text alignments
[ -z "$alignments" ] || [ -n "$(find -L "$alignments" \( -name '*.ctm' -o -name '*.TextGrid' -o -name '*.alignment.txt' \) -print -quit)" ] ||
  _error "--alignments '$alignments': no *.ctm, *.TextGrid or *.alignment.txt in it"
known=$(systems_in "$here/$conf") || exit 2
[[ " $known " == *" $system "* ]] || _error "--system '$system': of $known"
teachers=$(cd "$here/$conf" && ls | sed -n 's/^teacher_\(.*\)\.yaml$/\1/p')
one_of teacher $teachers
tunables_are_of "$here/$conf/$system.yaml" "tokenizer_path train dev seed features epochs delay"
if [ "$system" = speech_reallm ]; then
  [[ " ${changes[*]}" == *" flush_periods="* ]] || delay_fits "$here/$conf/speech_reallm.yaml"
else
  ! given delay || _error "--delay '$delay': $system has none: leave it out"
fi

begin download data tokenizer teacher align train export decode score report
base=${from:-$exp}
# What data, teacher and alignments were made with is a matter of that run.
[ -z "$from" ] || take_over align corpus subset synthetic text eval_utterances train_sets teacher teacher_epochs alignments features vocab
settings corpus subset synthetic text eval_utterances train_sets from seed
since data features conf system
since tokenizer vocab
since teacher teacher alignments teacher_epochs
since train delay epochs tunables
reopens align parts
. "$here/path.sh"
if [ "$system" = speech_reallm ]; then tunables_fit "$here/$conf/$system.yaml" delay="$delay"; else tunables_fit "$here/$conf/$system.yaml"; fi
on=${device:+--device $device}
share="--jobs $nj"
[ -z "$dask" ] || share="--dask $dask"
# Processes do not share an accelerator.
models="$share $on"
[[ -n $dask || $device != cuda* ]] || models=$on
training="--devices $devices $on"
pieces=$base/tokenizer.model
[ -z "$synthetic" ] || corpus=$base/corpus

# reallm_data OPTION…: LibriSpeech from where it is, or where it is downloaded to.
reallm_data() {
  local options=(--out "$exp/data" --train-sets "$train_sets" $share)
  if [ -n "$corpus" ]; then options+=(--corpus "$corpus"); else options+=(--download-to "$exp/corpus"); fi
  if [ "$subset" = true ]; then options+=(--subset); fi
  reallm data librispeech "${options[@]}" "$@"
}

# take_parts: of a corpus that is not all of LibriSpeech, the parts that stage 2 found.
take_parts() {
  [ "$subset" = true ] || return 0
  local part found=
  for part in train dev-clean; do
    [ -f "$base/data/$part.jsonl.gz" ] || _error "the corpus has no part for $part: with --subset too, a training part and dev-clean are needed"
  done
  for part in $parts; do
    if [ -f "$base/data/$part.jsonl.gz" ]; then found+="$part "; fi
  done
  parts=${found% }
  [ -n "$parts" ] || _error "the corpus has none of --parts: name one that $base/data holds"
}

# store_features MANIFEST: with --features stored, the features of its cuts; those that lie there already are taken.
store_features() {
  [ "$features" = online ] || reallm data features "$1" --conf "$here/$conf/$system.yaml" --store "$exp/features" --out "$1" $share
}

# align SPLIT: data/SPLIT with the times of its tokens, in align/.
align() {
  if [ -n "$alignments" ]; then
    reallm data alignments --cuts "$exp/data/$1.jsonl.gz" --alignments "$alignments" --out "$exp/align/$1.jsonl.gz" \
      --tokenizer sentencepiece="$pieces" $share
  else
    reallm align "$exp/teacher" --cuts "$exp/data/$1.jsonl.gz" --out "$exp/align/$1.jsonl.gz" $models
  fi
}

if [ -z "$from" ]; then
  if stage download; then
    if [ -n "$synthetic" ]; then
      reallm data synthetic-librispeech --out "$corpus" --hours "$synthetic" --eval-utterances "$eval_utterances" --seed "$seed" \
        ${text:+--text "$text"} $share
    else
      reallm_data --download-only
    fi
    finish
  fi

  if stage data needs download; then
    reallm_data
    take_parts
    reallm data speed "$exp/data/train.jsonl.gz" --out "$exp/data/train_sp.jsonl.gz" --factor 0.9 --factor 1.1
    store_features "$exp/data/train_sp.jsonl.gz"
    finish
  fi

  if stage tokenizer needs data; then
    reallm tokenizer sentencepiece --train "$exp/data/train.jsonl.gz" --out "$pieces" --vocab-size "$vocab"
    finish
  fi

  if stage teacher needs tokenizer; then
    if [ -n "$alignments" ]; then
      echo "alignments are taken from $alignments: no teacher is trained"
    else
      reallm train "$here/$conf/teacher_$teacher.yaml" --exp "$exp/teacher" \
        --train "$exp/data/train_sp.jsonl.gz" --dev "$exp/data/dev-clean.jsonl.gz" \
        --override tokenizer_path="$pieces" --override seed="$seed" --override epochs="$teacher_epochs" --override features="$features" $training
    fi
    finish
  fi

  if stage align needs teacher; then
    take_parts
    for split in train $parts; do align $split; done
    reallm data speed "$exp/align/train.jsonl.gz" --out "$exp/align/train_sp.jsonl.gz" --factor 0.9 --factor 1.1
    store_features "$exp/align/train_sp.jsonl.gz"
    finish
  fi
fi

[ ! -f "$base/.done/data" ] || take_parts
aligned="needs align"
[ -z "$from" ] || aligned=
if stage train $aligned; then
  # Every system gets the same cuts; those whose encoder is as wide as the teacher's begin with its weights (those of ctc, transducer
  # and aed_240m are wider, which the training warns of). Only the Speech ReaLLM has a delay.
  options=(--override tokenizer_path="$pieces" --override seed="$seed" --override epochs="$epochs" --override features="$features")
  [ "$system" != speech_reallm ] || options+=(--override delay="$delay")
  for tunable in "${changes[@]}"; do options+=(--override "$tunable"); done
  if [ -z "$alignments" ]; then
    options+=(--init "$base/teacher")
  elif grep -q '^frozen_updates:' "$here/$conf/$system.yaml" && [[ " ${changes[*]}" != *" frozen_updates="* ]]; then
    options+=(--override frozen_updates=0) # nobody's encoder: there is nothing to forget
  fi
  reallm train "$here/$conf/$system.yaml" --exp "$exp/$system" --train "$base/align/train_sp.jsonl.gz" \
    --dev "$base/data/dev-clean.jsonl.gz" "${options[@]}" $training
  finish
fi

if stage export needs train; then
  reallm export "$exp/$system" --out "$exp/$system/bundle"
  finish
fi

if stage decode needs export; then
  for split in $parts; do
    reallm decode "$exp/$system/bundle" --cuts "$base/data/$split.jsonl.gz" --out "$exp/$system/decode/$split" $models
  done
  finish
fi

if stage score needs decode; then
  for split in $parts; do
    decoded=$exp/$system/decode/$split
    reallm score "$decoded/hyps.jsonl" --cuts "$base/data/$split.jsonl.gz" --times "$base/align/$split.jsonl.gz" \
      --normalize librispeech --out "$decoded/results.json"
  done
  finish
fi

if stage report needs score; then
  if [ -n "$alignments" ]; then reallm report "$exp/$system"; else reallm report "$exp/$system" --teacher "$base/teacher"; fi
  finish
fi
