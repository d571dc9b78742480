#!/usr/bin/env bash
# Speech ReaLLM on connected digits: the whole method on real recordings, in half an hour on two CPU cores.
#
#   ./run.sh [--data DIR] [--exp DIR] [--stage STAGE] [--stop-stage STAGE] [--system NAME] [--delay N] [--teacher ctc|rnnt] [--from EXP]
#            [--interleaver NAME] [--attention window|full] [--training-delays "LEAST MOST"] [--realign EXP]
#
# DIR holds the Free Spoken Digit Dataset (its recordings/, or fsdd/recordings/); else $REALLM_DATA/fsdd, else it is
# downloaded, else espeak-ng speaks. Stages, by number or name:
#   1 data       strings of digits for training, dev, test and noisy test
#   2 tokenizer  characters for the teacher, words for the Speech ReaLLM
#   3 teacher    a CTC model, or a transducer: it aligns, gives the Speech ReaLLM its first encoder, and is the baseline
#   4 align      when each token of the training data was spoken; dev too, to compare with the truth (--realign: once more, by EXP's
#                Speech ReaLLM)
#   5 train      the Speech ReaLLM, or a rival that hears whole utterances (--system aed, decoder_only)
#   6 export     bundles that `reallm transcribe --model` takes
#   7 decode     test and noisy test, streamed in pieces of 20 ms: the system and the teacher
#   8 score      results.json of each
#   9 report     curves, pictures, error tables
# A stage that is done is skipped; a run that was stopped goes on where it was.
set -euo pipefail

data=               # folder of the recordings (else $REALLM_DATA/fsdd, a download, or espeak-ng)
exp=                # where everything is written (else exp/ here)
stage=1             # first stage
stop_stage=9        # last stage
nj=2                # CPU cores to use
dask=               # address of a dask scheduler: its workers align and decode
seed=1              # of everything that is drawn
system=speech_reallm # what is trained: conf/NAME.yaml, but for the teachers ctc and transducer
delay=0             # token periods between the end of a token and its speech embedding
training_delays=    # one model for all delays from the least to the most, of which streams choose: "0 4"
interleaver=blank   # how speech and text become one sequence: a file of hparams/interleaver
attention=window    # of the decoder: to its last 64 positions, or full, to all of a stream of 512 at most
teacher=ctc         # what aligns and gives the first encoder: ctc, or rnnt (the system 'transducer')
from=               # another run's --exp, whose data, teacher and alignments are used
realign=            # another run's --exp, whose Speech ReaLLM aligns the training strings of --from anew
held_out_speaker=   # this speaker makes the test and is nowhere else
speeds=             # speed factors that training strings are drawn with: "0.9 1 1.1"
synthetic_voices=0  # espeak-ng voices that are mixed into training, for speakers that are not in it
synthetic_share=0.4 # share of training strings that they speak
sounds_share=0.2    # share of training strings with other sounds in them: notes, knocks, hiss
vocal_tract=0.0     # widest change of the vocal tract's length in training, as a share: 0.1
train_strings=8000  # training strings an epoch
data_epochs=2       # epochs of training strings, which the passes take in turn
test_strings=1000   # test strings
dev_strings=200     # dev strings
teacher_epochs=4    # epochs that the teacher is trained
epochs=5            # epochs that the system is trained
force=false         # run again what is done
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
exp=${exp:-$here/exp}
. "$here/../../tools/stages.sh"

whole 1 - nj train_strings data_epochs test_strings dev_strings teacher_epochs epochs
whole 0 - seed synthetic_voices
number 0 0.3 vocal_tract
number 0 1 synthetic_share
number 0 1 sounds_share
numbers 0.5 2 speeds
dask_is_known
one_of teacher ctc rnnt
one_of interleaver blank blank_fed chunk_eos delayed_stream
one_of attention window full
known=" $(systems_in "$here/conf") "
known=${known/ ctc / }
known=${known/ transducer / }
[[ $known == *" $system "* ]] || _error "--system '$system': of$known(ctc and transducer: --teacher)"
if grep -q '^delay:' "$here/conf/$system.yaml"; then
  delay_fits "$here/conf/$system.yaml"
else
  for option in delay training_delays interleaver realign; do
    ! given $option || _error "--${option//_/-} '${!option}': $system does not answer in time, and has none: leave it out"
  done
fi
[ "$attention" = window ] || grep -q hparams/decoder/llama_short.yaml "$here/conf/$system.yaml" ||
  _error "--attention '$attention': $system has no decoder whose window could be left out: leave the option out"
least=$delay most=$delay
if [ -n "$training_delays" ]; then
  [[ $training_delays =~ ^([0-9]{1,3})\ ([0-9]{1,3})$ ]] || _error "--training-delays '$training_delays': the least and the most, such as '0 4'"
  least=${BASH_REMATCH[1]} most=${BASH_REMATCH[2]}
  [ "$least" -le "$delay" ] && [ "$delay" -le "$most" ] || _error "--delay '$delay': not from $least to $most, the --training-delays"
  (delay=$most && delay_fits "$here/conf/$system.yaml")
fi

[ -z "$realign" ] || [ -n "$from" ] || _error "--realign '$realign': needs --from, the run whose data and teacher are used"
[ -z "$realign" ] || [ -f "$realign/.done/train" ] || _error "--realign '$realign': no trained Speech ReaLLM there; run its stages 1 to 5 first"

begin data tokenizer teacher align train export decode score report
base=${from:-$exp}
# What data, teacher and alignments were made with is a matter of that run.
of_data="held_out_speaker speeds synthetic_voices synthetic_share sounds_share train_strings data_epochs test_strings dev_strings"
[ -z "$from" ] || take_over align teacher $of_data teacher_epochs
settings seed from $of_data
since teacher teacher teacher_epochs vocal_tract
since align realign
since train system delay training_delays interleaver attention epochs
. "$here/path.sh"
share="--jobs $nj"
[ -z "$dask" ] || share="--dask $dask"
teacher_system=ctc
[ "$teacher" = ctc ] || teacher_system=transducer

if [ -z "$from" ]; then
  if stage data; then
    reallm data digits ${data:+--data "$data"} --out "$exp/data" --seed "$seed" --epochs "$data_epochs" --train-strings "$train_strings" \
      --test-strings "$test_strings" --dev-strings "$dev_strings" ${held_out_speaker:+--held-out-speaker "$held_out_speaker"} \
      --synthetic-voices "$synthetic_voices" --synthetic-share "$synthetic_share" --sounds-share "$sounds_share" \
      ${speeds:+$(printf -- '--speed %s ' $speeds)}
    finish
  fi

  if stage tokenizer needs data; then
    reallm tokenizer character --train "$exp/data/train.jsonl.gz" --out "$exp/characters.json"
    reallm tokenizer word --train "$exp/data/train.jsonl.gz" --out "$exp/words.json"
    finish
  fi

  if stage teacher needs tokenizer; then
    reallm train "$here/conf/$teacher_system.yaml" --exp "$exp/$teacher_system" \
      --train "$exp/data/train.jsonl.gz" --dev "$exp/data/dev.jsonl.gz" \
      --override tokenizer_path="$exp/characters.json" --override seed="$seed" --override epochs="$teacher_epochs" \
      --override vocal_tract="$vocal_tract"
    finish
  fi

  if stage align needs teacher; then
    reallm align "$exp/$teacher_system" --cuts "$exp/data/dev.jsonl.gz" --out "$exp/align/dev.jsonl.gz" $share
    reallm align "$exp/$teacher_system" --cuts "$exp/data/train.jsonl.gz" --out "$exp/align/train.jsonl.gz" \
      --offset-from "$exp/align/dev.report.json" --tokenizer word="$exp/words.json" $share
    finish
  fi
fi

times=$base/align
aligned="needs align"
if [ -n "$realign" ]; then
  times=$exp/align
  if stage align; then
    # One history of each node: the least work.
    reallm align "$realign/$system" --cuts "$base/data/train.jsonl.gz" --out "$times/train.jsonl.gz" --beam 1 $share
    finish
  fi
elif [ -n "$from" ]; then
  aligned=
fi

if stage train $aligned; then
  llm=()
  if [ "$system" = speech_reallm_llm ]; then
    # A Llama as large as the decoder of conf/speech_reallm.yaml.
    python "$here/../../tools/llm_config.py" llama --out "$exp/llm" --tokenizer word="$base/words.json" \
      hidden_size=144 intermediate_size=384 num_hidden_layers=4 num_attention_heads=4 num_key_value_heads=4
    llm=(--override llm="$exp/llm")
    case $interleaver in blank_fed | delayed_stream) llm+=(--override blank_input=true) ;; esac
  fi
  conf=$here/conf/$system.yaml
  if [ "$interleaver" != blank ] || [ "$attention" = full ]; then
    # The lines that swap them, in a copy, from where other paths lead to hparams.
    decoder=llama_short
    [ "$attention" = window ] || decoder=llama_full
    sed -e "s|hparams/interleaver/blank.yaml|hparams/interleaver/$interleaver.yaml|" \
      -e "s|hparams/decoder/llama_short.yaml|hparams/decoder/$decoder.yaml|" -e "s|!include:\.\./|!include:$here/conf/../|" \
      "$conf" >"$exp/$system.yaml"
    conf=$exp/$system.yaml
  fi
  answering=()
  ! grep -q '^delay:' "$conf" || answering=(--override delay="$delay" ${training_delays:+--override "training_delays=[$least,$most]"})
  reallm train "$conf" --exp "$exp/$system" --init "$base/$teacher_system" --init-part frontend --init-part encoder \
    --train "$times/train.jsonl.gz" --dev "$base/data/dev.jsonl.gz" \
    --override tokenizer_path="$base/words.json" --override seed="$seed" --override epochs="$epochs" \
    --override vocal_tract="$vocal_tract" "${answering[@]}" "${llm[@]}"
  finish
fi

# The systems that are decoded here; another run's teacher was decoded there.
systems="$system $teacher_system"
[ -z "$from" ] || systems=$system

if stage export needs train; then
  for each in $systems; do
    reallm export "$exp/$each" --out "$exp/$each/bundle"
  done
  finish
fi

if stage decode needs export; then
  for each in $systems; do
    for split in test test_noisy; do
      reallm decode "$exp/$each/bundle" --cuts "$base/data/$split.jsonl.gz" --out "$exp/$each/decode/$split" $share
    done
  done
  finish
fi

if stage score needs decode; then
  for each in $systems; do
    for split in test test_noisy; do
      decoded=$exp/$each/decode/$split
      reallm score "$decoded/hyps.jsonl" --cuts "$base/data/$split.jsonl.gz" --out "$decoded/results.json"
    done
  done
  finish
fi

if stage report needs score; then
  reallm report "$exp/$system" --teacher "$base/$teacher_system"
  finish
fi
