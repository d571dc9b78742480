#!/usr/bin/env bash
# Speech ReaLLM and its rivals on the read English of Mandarin speakers, adults and children: one table.
#
#   ./run.sh [--data DIR] [--exp DIR] [--systems "NAME…"] [--seeds "N…"] [--hours H] [--stage STAGE] [--stop-stage STAGE]
#   ./run.sh --exp EXP2 --from EXP [--systems "NAME…"] [--delay N]      # with the data, teacher and alignments of EXP
#
# DIR holds speechocean762 (its train/ and test/, or tables of them); else $REALLM_DATA/speechocean762. Stages, by number or name:
#   1 data       train, dev (speakers taken out of train), test-adult, test-child
#   2 synth      speech by espeak-ng to begin with: all English voices; dev and test by voices that are heard nowhere else; and easy speech, by
#                a few that speak evenly
#   3 tokenizer  sentencepiece, of both
#   4 teacher    a CTC model or a transducer, on the easy speech, on the synthetic, then on the real: it aligns, and gives all systems their
#                first encoder
#   5 align      when each token was spoken; of the tests too, to measure delays
#   6 pretrain   each system and seed, on the synthetic speech
#   7 finetune   … and on the real
#   8 export     bundles that `reallm transcribe --model` takes
#   9 decode     the tests, streamed in pieces of 20 ms, with each size of --chunks
#  10 score      results.json of each
#  11 report     curves, pictures and error tables of each
# A stage that is done is skipped; a run that was stopped goes on where it was. `./table.sh EXP…` prints the table of all systems.
set -euo pipefail

data=               # folder of speechocean762 (else $REALLM_DATA/speechocean762)
subset=false        # take of --data what is there, also where it is not all of speechocean762
text=               # what is synthesized: a folder of train.txt, dev.txt and test.txt (else $REALLM_DATA/text)
digits=             # folder of the Free Spoken Digit Dataset, for test-digits (else $REALLM_DATA/fsdd)
exp=                # where everything is written (else exp/ here)
stage=1             # first stage
stop_stage=11       # last stage
nj=2                # CPU cores to use
dask=               # address of a dask scheduler: its workers prepare, speak, align and decode
device=             # cpu or cuda (else: training takes an accelerator where there is one, the rest the CPU)
devices=1           # accelerators of this machine that train together; on the CPU, processes
from=               # another run's --exp, whose data, teacher and alignments are used
conf=conf           # folder of the configurations
systems="ctc transducer aed aed_large decoder_only speech_reallm" # what is trained: conf/NAME.yaml
seeds="1 2 3"       # of the systems: each is trained with each
seed=1              # of the data and the teacher
hours=10.0          # of synthetic training speech
voices=0            # that speak in it; 0 = all that are not held out
easy_hours=3.0      # of speech by 40 voices that speak evenly, which the teacher begins with
vocab=300           # pieces of the sentencepiece model
dev_speakers=8      # taken out of train
teacher=ctc         # what aligns: ctc or rnnt
teacher_easy_epochs=6 # passes over the easy speech, of the teacher: it must leave the plateau of answering nothing
teacher_epochs=4    # passes over the synthetic speech, of the teacher
teacher_finetune_epochs=8 # passes over the real speech, at all --speeds, of the teacher
pretrain_epochs=4   # passes over the synthetic speech, of each system
frozen_updates=500  # the first of pretrain's, in which what is the teacher's of the encoder stays: under a new decoder it would forget what it knows
finetune_epochs=8   # passes over the real speech, at all --speeds, of each system
speeds="0.9 1.1"    # that the real training speech is also played at; "" = none
finetune_lr=0.0003  # highest learning rate of the passes over the real speech; before, it is that of the configuration
teacher_easy_lr=0.002 # … over the easy speech
teacher_easy_batch=30 # seconds of speech a batch there: few make many updates, and it is updates that leave the plateau
minutes=            # of training at most: the teacher's on easy, synthetic and real speech, pretrain's, finetune's; none = the epochs' own
delay=1             # token periods between the end of a token and its speech embedding
tunables=           # of conf/speech_reallm.yaml, set otherwise, such as "time_jitter=1 blank_weight=0.5"
chunks="4 8 16"     # encoder frames of 40 ms: the streaming systems are decoded with each; the table has the one of conf/encoder.yaml
tests="test-adult test-child test-synthetic test-digits" # what is decoded and scored
test_utterances=300 # of test-synthetic and test-digits
dev_utterances=100  # of the synthetic speech, which passes over it are validated with
limit=0             # decode the first so many utterances of each test only; 0 = all
every=1             # decode one of so many utterances of test-adult and test-child only: some of each speaker
force=false         # run again what is done
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exp=${exp:-$here/exp}
. "$here/../../tools/stages.sh"

whole 1 - nj devices vocab teacher_easy_epochs teacher_epochs teacher_finetune_epochs pretrain_epochs finetune_epochs test_utterances dev_utterances every
whole 2 - dev_speakers
whole 0 - seed voices limit
whole 0 - frozen_updates
number 0.001 - hours
number 0.001 - easy_hours
number 0 1 finetune_lr
number 1 - teacher_easy_batch
number 0 1 teacher_easy_lr
numbers 0.001 1e6 minutes
[[ $(wc -w <<<"$minutes") =~ ^[05]$ ]] || _error "--minutes '$minutes': five numbers"
some systems seeds tests
wholes 0 1000000 seeds
numbers 0.5 2 speeds
folder text
for speed in $speeds; do
  [ "${speed%.}" != 1 ] && [[ ! $speed =~ ^1[.]0*$ ]] || _error "--speeds '$speed': the recordings are trained on as they are, too: leave it out"
done
device_is_known
dask_is_known
known=$(systems_in "$here/$conf") || exit 2
for system in $systems; do
  [[ " $known " == *" $system "* ]] || _error "--systems '$system': of $known"
done
[[ -z $tunables || " $systems " == *" speech_reallm "* ]] ||
  _error "--tunables '$tunables': are for speech_reallm, which --systems '$systems' has not: leave one of the two out"
tunables_are_of "$here/$conf/speech_reallm.yaml" "tokenizer_path train dev seed epochs minutes lr frozen_updates delay"
for test in $tests; do
  [[ $test =~ ^test-(adult|child|synthetic|digits)$ ]] || _error "--tests '$test': of test-adult, test-child, test-synthetic and test-digits"
done
one_of teacher ctc rnnt
whole 0 - delay
[[ " $systems " != *" speech_reallm "* || " ${changes[*]}" == *" flush_periods="* ]] || delay_fits "$here/$conf/speech_reallm.yaml"
# in_yaml FILE KEY: a whole number that stands on top of a configuration.
in_yaml() {
  local found
  found=$(sed -n "s/^$2: *\([1-9][0-9]*\) *\(#.*\)\{0,1\}$/\1/p" "$here/$conf/$1")
  [ -n "$found" ] || _error "--conf '$conf': $1 has no line '$2: N', with a whole number N"
  echo "$found"
}
period=$(in_yaml speech_reallm.yaml stride) || exit 2
default_chunk=$(in_yaml encoder.yaml chunk_size) || exit 2
for tunable in "${changes[@]}"; do
  [ "${tunable%%=*}" != stride ] || period=${tunable#*=}
done
[[ $period =~ ^[1-9][0-9]*$ ]] || _error "--tunables 'stride=$period': a whole number from 1 on"
wholes "$period" 1000 chunks
for chunk in $chunks; do
  ((chunk % period == 0)) || _error "--chunks '$chunk': a multiple of $period encoder frames, the token period"
done

begin data synth tokenizer teacher align pretrain finetune export decode score report
base=${from:-$exp}
# What data, teacher and alignments were made with is a matter of that run.
[ -z "$from" ] || take_over align data subset text digits hours voices easy_hours vocab dev_speakers speeds seed teacher teacher_easy_epochs \
  teacher_epochs teacher_finetune_epochs test_utterances dev_utterances
settings data subset digits dev_speakers seed test_utterances from
since synth text hours voices easy_hours dev_utterances
since tokenizer vocab
since teacher conf teacher teacher_easy_epochs teacher_easy_lr teacher_easy_batch teacher_epochs teacher_finetune_epochs speeds finetune_lr
since pretrain pretrain_epochs frozen_updates delay tunables
since finetune finetune_epochs
reopens data tests
reopens pretrain systems seeds
reopens decode chunks limit every
. "$here/path.sh"
on=${device:+--device $device}
share="--jobs $nj"
[ -z "$dask" ] || share="--dask $dask"
training="--devices $devices $on"
# Processes do not share an accelerator.
models="$share $on"
[[ -n $dask || $device != cuda* ]] || models=$on
pieces=$base/tokenizer.model
read -ra limits <<<"$minutes"

tunables_fit "$here/$conf/speech_reallm.yaml" delay="$delay"

# manifest TEST: what is decoded.
manifest() {
  case $1 in
    test-synthetic) echo "$base/synth/test.jsonl.gz" ;;
    test-digits) echo "$base/digits/test_noisy.jsonl.gz" ;;
    *) echo "$base/data/$1.jsonl.gz" ;;
  esac
}

# at_speeds IN OUT: a manifest with its cuts at all speeds.
at_speeds() {
  if [ -n "$speeds" ]; then
    reallm data speed "$1" --out "$2" $(printf -- '--factor %s ' $speeds)
  else
    cp "$1" "$2"
  fi
}

# each COMMAND…: COMMAND NAME SYSTEM SEED for each system and seed, whose folder is $exp/NAME.
each() {
  local system one
  for system in $systems; do
    for one in $seeds; do "$@" "$system.$one" "$system" "$one"; done
  done
}

# at_most N: an option for the Nth of the --minutes.
at_most() { [ -z "$minutes" ] || echo "--override minutes=${limits[$1 - 1]}"; }

# train_teacher TRAIN DEV OPTION…
train_teacher() {
  reallm train "$here/$conf/teacher_$teacher.yaml" --train "$exp/$1.jsonl.gz" --dev "$exp/$2.jsonl.gz" "${@:3}" --override seed="$seed" \
    --override tokenizer_path="$pieces" $training
}

# train_system SYSTEM SEED OPTION…; only the Speech ReaLLM has a delay and --tunables.
train_system() {
  local options=(--override tokenizer_path="$pieces" --override seed="$2") changed
  if [ "$1" = speech_reallm ]; then
    for changed in delay="$delay" "${changes[@]}"; do options+=(--override "$changed"); done
  fi
  reallm train "$here/$conf/$1.yaml" "${@:3}" "${options[@]}" $training
}

pretrain() {
  train_system "$2" "$3" --exp "$exp/$1/pretrained" --train "$base/align/synth.jsonl.gz" --dev "$base/synth/dev.jsonl.gz" \
    --init "$base/teacher/pretrained" --init-part frontend --init-part encoder --override epochs="$pretrain_epochs" \
    --override frozen_updates="$frozen_updates" $(at_most 4)
}

finetune() {
  train_system "$2" "$3" --exp "$exp/$1" --train "$base/align/train.jsonl.gz" --dev "$base/data/dev.jsonl.gz" \
    --init "$exp/$1/pretrained" --override epochs="$finetune_epochs" --override lr="$finetune_lr" $(at_most 5)
}

# bundle NAME TEST: synthetic speech is for the system as it was before it heard the real, of which it forgets the other.
bundle() { if [ "$2" = test-synthetic ]; then echo "$exp/$1/pretrained/bundle"; else echo "$exp/$1/bundle"; fi; }

export_bundle() {
  local trained
  for trained in "$exp/$1/pretrained" "$exp/$1"; do reallm export "$trained" --out "$trained/bundle"; done
}

# decodings SYSTEM: a line "TEST CHUNK NAME" for each; NAME is TEST where the chunk is the one that the system was made with.
decodings() {
  local test chunk
  for test in $tests; do
    echo "$test $default_chunk $test"
    [[ $1 != aed* && $1 != decoder_only ]] || continue
    for chunk in $chunks; do
      [ "$chunk" = "$default_chunk" ] || echo "$test $chunk $test.chunk$chunk"
    done
  done
}

decode() {
  local test chunk name options
  while read -r test chunk name <&3; do
    options=()
    [ "$limit" = 0 ] || options+=(--limit "$limit")
    [[ $test != test-adult && $test != test-child ]] || options+=(--every "$every")
    [ "$name" = "$test" ] || options+=(--set encoder.chunk_size="$chunk")
    reallm decode "$(bundle "$1" "$test")" --cuts "$(manifest "$test")" --out "$exp/$1/decode/$name" "${options[@]}" $models
  done 3< <(decodings "$2")
}

# Where the true times are not known, delays are against those of the teacher, the same for all.
score() {
  local test chunk name times
  while read -r test chunk name <&3; do
    times=(--times "$base/align/$test.jsonl.gz")
    [ "$test" != test-digits ] || times=()
    reallm score "$exp/$1/decode/$name/hyps.jsonl" --cuts "$(manifest "$test")" --normalize librispeech \
      --out "$exp/$1/decode/$name/results.json" "${times[@]}"
  done 3< <(decodings "$2")
}

report() {
  reallm report "$exp/$1" --teacher "$base/teacher"
}

if [ -z "$from" ]; then
  if stage data; then
    [ -n "$data" ] || [ -d "${REALLM_DATA:-}/speechocean762" ] || _error "no recordings: name their folder with --data DIR, or set REALLM_DATA"
    [ -n "$text" ] || [ -d "${REALLM_DATA:-}/text" ] || _error "no text to speak: name a folder of train.txt, dev.txt and test.txt with --text DIR, or set REALLM_DATA"
    part=
    [ "$subset" = false ] || part=--subset
    reallm data speechocean762 ${data:+--data "$data"} $part --out "$exp/data" --dev-speakers "$dev_speakers" --seed "$seed" $share
    if [[ " $tests " == *" test-digits "* ]]; then
      reallm data digits ${digits:+--data "$digits"} --out "$exp/digits" --test-strings "$test_utterances" --dev-strings 1 --train-strings 1 \
        --epochs 1
    fi
    finish
  fi

  if stage synth needs data; then
    reallm data synthetic ${text:+--text "$text"} --out "$exp/synth" --hours "$hours" --voices "$voices" --seed "$seed" \
      --dev-utterances "$dev_utterances" --test-utterances "$test_utterances" $share
    reallm data synthetic ${text:+--text "$text"} --out "$exp/easy" --hours "$easy_hours" --voices 40 --manner even --seed "$seed" \
      --dev-utterances "$dev_utterances" --test-utterances 1 $share
    finish
  fi

  if stage tokenizer needs synth; then
    reallm tokenizer sentencepiece --train "$exp/synth/train.jsonl.gz" --train "$exp/data/train.jsonl.gz" --out "$pieces" --vocab-size "$vocab"
    finish
  fi

  if stage teacher needs tokenizer; then
    # From the wide variety of the synthetic speech alone it learns nothing in tens of hours.
    train_teacher easy/train easy/dev --exp "$exp/teacher/easy" --override epochs="$teacher_easy_epochs" --override lr="$teacher_easy_lr" \
      --override batch_seconds="$teacher_easy_batch" --override augmentation=null --override 'chunks=[null]' $(at_most 1)
    train_teacher synth/train synth/dev --exp "$exp/teacher/pretrained" --init "$exp/teacher/easy" --override epochs="$teacher_epochs" $(at_most 2)
    at_speeds "$exp/data/train.jsonl.gz" "$exp/data/train_sp.jsonl.gz"
    train_teacher data/train_sp data/dev --exp "$exp/teacher" --init "$exp/teacher/pretrained" --override epochs="$teacher_finetune_epochs" \
      --override lr="$finetune_lr" $(at_most 3)
    finish
  fi

  if stage align needs teacher; then
    reallm align "$exp/teacher/pretrained" --cuts "$exp/synth/train.jsonl.gz" --out "$exp/align/synth.jsonl.gz" $models
    reallm align "$exp/teacher" --cuts "$exp/data/train.jsonl.gz" --out "$exp/align/train_1.jsonl.gz" $models
    at_speeds "$exp/align/train_1.jsonl.gz" "$exp/align/train.jsonl.gz"
    for test in $tests; do
      of=$exp/teacher
      [ "$test" != test-synthetic ] || of=$exp/teacher/pretrained
      [ "$test" = test-digits ] || reallm align "$of" --cuts "$(manifest "$test")" --out "$exp/align/$test.jsonl.gz" $models
    done
    finish
  fi
fi

aligned="needs align"
[ -z "$from" ] || aligned=
if stage pretrain $aligned; then
  each pretrain
  finish
fi

if stage finetune needs pretrain; then
  each finetune
  finish
fi

if stage export needs finetune; then
  each export_bundle
  finish
fi

if stage decode needs export; then
  each decode
  finish
fi

if stage score needs decode; then
  each score
  finish
fi

if stage report needs score; then
  each report
  finish
fi
