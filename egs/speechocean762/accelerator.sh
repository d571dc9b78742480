#!/usr/bin/env bash
# Speech ReaLLM of 80M parameters, or 20M, on an accelerator that is lent for half an hour, on a machine that reaches nothing else.
#
#   accelerator.sh pack     here: collects what is to be carried there, in parts: data/carried/1, data/carried/2
#   accelerator.sh receive  there, once for each part but the last: takes over the part that was carried with this call
#   accelerator.sh begin    there: takes over the last part, sets up, starts training in the background, waits as poll does
#   accelerator.sh poll     there: says where it is, waits for its end, copies what is finished to --out
#
# begin starts run.sh of this recipe, which synthesizes, trains a teacher and the Speech ReaLLM in bf16, decodes and scores. Training
# stops by the clock. A call there carries a clone of some megabytes and one part, 64 MiB in all, and may last ten minutes: give it a
# limit of 600 seconds, since --wait lets begin and poll last 540. The machine goes back with all that is on it once it idles for 30
# seconds: receive, begin and poll must follow each other at once, and poll be called until it says "ended".
set -euo pipefail

_verb=${1-}
[ $# -eq 0 ] || shift
case $_verb in
  pack | receive | begin | poll | work) ;;
  '' | --help | -h) set -- --help ;;
  *) echo "error: '$_verb': pack, receive, begin or poll" >&2; exit 2 ;;
esac

data=                # pack: folder of speechocean762, its audio compressed (else $REALLM_DATA/speechocean762)
text=                # pack: what is synthesized: a folder of train.txt, dev.txt and test.txt (else $REALLM_DATA/text)
python_version=3.12  # pack: of the python3 there
mib=63               # pack: that one call may carry
work=/tmp/reallm     # there: where everything is written
size=80m             # begin: 80m or 20m, of conf/accelerator
device=cuda          # begin: cuda or cpu
nj=16                # begin: CPU cores there
minutes=24.0         # begin: from its start until all is done
reserve=7.0          # begin: of these for all that is not training; half of them comes after it
shares="12 28 10 35 15" # begin: of the time for training: teacher on easy, synthetic, real speech; the system on synthetic, real
hours=40.0           # begin: of synthetic training speech
easy_hours=10.0      # begin: of speech by 40 voices that speak evenly
vocab=500            # begin: pieces of the sentencepiece model
dev_speakers=8       # begin: taken out of train
limit=0              # begin: decode the first so many utterances of each test only; 0 = all
wait=540             # begin, poll: seconds until the call returns, at most
out=                 # begin, poll: where finished things are copied to (else $OUT)
. "$(dirname "${BASH_SOURCE[0]}")/../../tools/parse_options.sh" "$@"

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$root/tools/stages.sh"

one_of size 80m 20m
one_of device cpu cuda
number 0.01 - minutes
number 0 - reserve
numbers 0 1000 shares
[[ $(wc -w <<<"$shares") -eq 5 ]] || _error "--shares '$shares': five numbers"
out=${out:-${OUT:-}}
carried=$here/data/carried
exp=$work/exp
system=speech_reallm.1

# Bytes of files and folders; of the clone, those of git's files.
bytes() { du -cb "$@" | tail -n 1 | cut -f 1; }
# A file that is deleted and not yet committed is none that du finds.
clone_bytes() { (cd "$root" && git ls-files -z --cached --others --exclude-standard | { du -cb --files0-from=- 2>/dev/null || true; } | tail -n 1 | cut -f 1); }
in_mib() { awk "BEGIN { printf \"%.1f MiB\", $1 / 1048576 }"; }

pack() {
  local speech=${data:-${REALLM_DATA:+$REALLM_DATA/speechocean762}} sentences=${text:-${REALLM_DATA:+$REALLM_DATA/text}}
  [ -f "$speech/train.tsv" ] && [ -f "$speech/test.tsv" ] || _error "--data '$speech': no folder with train.tsv, test.tsv and their audio"
  [ -f "$sentences/train.txt" ] || _error "--text '$sentences': no folder with train.txt, dev.txt and test.txt"
  . "$root/tools/activate.sh"
  local part=1 item room wheels missing
  missing=$(grep -vixFf <(sed -n 's/==.*//p' "$root/tools/requirements.lock") "$here/conf/accelerator/wheels.txt" | paste -s -d ' ' || true)
  [ -z "$missing" ] || _error "conf/accelerator/wheels.txt names $missing, of which tools/requirements.lock has no version: mend one of them"
  rm -rf "$carried"
  mkdir -p "$carried/all/wheels"
  wheels=$(paste -s -d '|' "$here/conf/accelerator/wheels.txt")
  # pip compares platforms letter by letter.
  python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: --implementation cp --python-version "$python_version" \
    $(printf -- '--platform manylinux%s_x86_64 ' _2_28 _2_27 _2_17 2014 1) -d "$carried/all/wheels" \
    $(grep -iE "^(${wheels//./[.]})==" "$root/tools/requirements.lock") || _error "not all wheels of conf/accelerator/wheels.txt could be had"
  tar -C "$sentences" -czf "$carried/all/text.tar.gz" train.txt dev.txt test.txt
  for item in train test; do tar -C "$speech" -cf "$carried/all/$item.tar" "$item.tsv" "$item"; done
  room=$((mib * 1048576 - $(clone_bytes)))
  mkdir "$carried/1"
  for item in wheels text.tar.gz test.tar train.tar; do
    [ "$(bytes "$carried/all/$item")" -le "$room" ] || _error "$item has $(in_mib "$(bytes "$carried/all/$item")"): a call carries $(in_mib $room)"
    if [ "$(bytes "$carried/$part" "$carried/all/$item")" -gt "$room" ]; then
      part=$((part + 1))
      mkdir "$carried/$part"
    fi
    mv "$carried/all/$item" "$carried/$part/"
  done
  rmdir "$carried/all"
  for item in $(seq $part); do
    echo "$(in_mib "$(bytes "$carried/$item")") and a clone of $(in_mib "$(clone_bytes)"); carry ${carried#"$root"/}/$item with: ${here#"$root"/}/accelerator.sh" \
      "$([ "$item" = $part ] && echo begin || echo receive)"
  done
}

receive() {
  mkdir -p "$work/carried"
  [ ! -d "$carried" ] || cp -r "$carried"/*/. "$work/carried/"
  ls "$work/carried"
}

# An environment that has the packages of python3 there, those that were carried, and the toolkit.
set_up() {
  local item site
  for item in wheels text.tar.gz test.tar train.tar; do
    [ -e "$work/carried/$item" ] || _error "no $item was carried: name its part in this call, or receive it first"
  done
  mkdir -p "$work/tree" "$work/data/speechocean762" "$work/data/text"
  # A later call brings the clone as it is then.
  tar -C "$root" --exclude=__pycache__ --exclude='egs/*/exp*' --exclude='egs/*/data' --exclude='egs/*/downloads' -cf - \
    reallm hparams egs tools setup.cfg setup.py pyproject.toml | tar -C "$work/tree" -xf -
  for item in train test; do tar -C "$work/data/speechocean762" -xf "$work/carried/$item.tar"; done
  tar -C "$work/data/text" -xzf "$work/carried/text.tar.gz"
  python3 -m venv --without-pip "$work/venv"
  site=$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # python3 may belong to a virtual environment itself, whose packages --system-site-packages does not give.
  python3 -c 'import sys; print(*(path for path in sys.path if path.endswith("-packages")), sep="\n")' >"$site/there.pth"
  echo "$work/tree" >"$site/reallm.pth"
  python3 -m pip install -q --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --target "$site" \
    "$work"/carried/wheels/*.whl
  printf '#!%s\nfrom reallm.cli import main\n\nif __name__ == "__main__":\n    main()\n' "$work/venv/bin/python" >"$work/venv/bin/reallm"
  chmod +x "$work/venv/bin/reallm"
}

# left RESERVE: minutes until the deadline and RESERVE before it, at least a tenth.
left() { awk -v now="$(date +%s)" -v end="$deadline" -v reserve="$1" 'BEGIN { m = (end - now) / 60 - reserve; print (m > 0.1 ? m : 0.1) }'; }

# of MINUTES FIRST: what each training from the FIRST on has of them, by its share; those before it had theirs.
of() { awk -v m="$1" -v first="$2" '{ for (i = first; i <= NF; i++) sum += $i; for (i = 1; i <= NF; i++) printf "%.3f ", $i * m / sum }' <<<"$shares"; }

# The whole run, in the background.
work() {
  local started deadline
  started=$(cat "$work/started")
  deadline=$(awk "BEGIN { print int($started + 60 * $minutes) }")
  export VIRTUAL_ENV=$work/venv REALLM_DATA=$work/data PIP_NO_INDEX=1
  run() {
    "$work/tree/egs/speechocean762/run.sh" --conf "conf/accelerator/$size" --systems speech_reallm --seeds 1 --exp "$exp" --device "$device" \
      --nj "$nj" --hours "$hours" --easy-hours "$easy_hours" --vocab "$vocab" --dev-speakers "$dev_speakers" --teacher-easy-lr 0.001 --teacher-easy-batch 100 \
      --teacher-easy-epochs 40 --teacher-epochs 40 --teacher-finetune-epochs 40 --pretrain-epochs 40 --finetune-epochs 40 \
      --tests "test-adult test-child test-synthetic" --chunks "" --limit "$limit" "$@"
    echo "$(($(date +%s) - started)) s since the beginning"
  }
  run --stop-stage tokenizer
  run --stage teacher --stop-stage align --minutes "$(of "$(left "$reserve")" 1)"
  run --stage pretrain --stop-stage finetune --minutes "$(of "$(left "$(awk "BEGIN { print $reserve / 2 }")")" 4)"
  run --stage export
}

begin_work() {
  receive >/dev/null
  [ ! -e "$work/started" ] || _error "a run was begun in '$work': poll it, or name another folder with --work"
  set_up
  date +%s >"$work/started"
  (
    trap - EXIT
    setsid bash -c '"$0" work "${@:2}" >>"$1/log" 2>&1 </dev/null; echo $? >"$1/ended"' "$work/tree/egs/speechocean762/accelerator.sh" "$work" \
      --work "$work" --size "$size" --device "$device" --nj "$nj" --minutes "$minutes" --reserve "$reserve" --shares "$shares" --hours "$hours" \
      --easy-hours "$easy_hours" --vocab "$vocab" --dev-speakers "$dev_speakers" --limit "$limit" >/dev/null 2>&1 &
  )
}

# Where it is.
say() {
  local newest
  echo "$(($(date +%s) - $(cat "$work/started"))) s since the beginning"
  tail -n 12 "$work/log" 2>/dev/null || true
  newest=$(find "$exp" -name train_log.jsonl -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2 || true)
  [ -z "$newest" ] || { echo "$newest"; tail -n 1 "$newest"; }
  [ ! -f "$work/ended" ] || echo "ended with exit code $(cat "$work/ended")"
}

# bring NAME FILE…: an archive of them, in pieces, since no file larger than 16 MiB comes back. Of a run that is under way some grow
# while they are read, which tar ends with 1 for.
bring() {
  rm -f "$out/$1".tar.gz.*
  (cd "$work" && { tar -czf - "${@:2}" || [ $? -eq 1 ]; }) | split -b 15M -d - "$out/$1.tar.gz."
}

bring_all() {
  local found
  mapfile -t found < <(cd "$work" && find log ended exp -type f 2>/dev/null |
    grep -E '^(log|ended)$|/(results|decode|origin|corpus)\.json$|/hyps\.jsonl$|/train_log\.jsonl$|/train\.log$|/config\.yaml$|\.report\.json$|/report/|/tokenizer\.|/\.done/[a-z.]')
  [ ${#found[@]} -eq 0 ] || bring results "${found[@]}"
  # Of 80M parameters it would be too large.
  if [ -f "$exp/.done/export" ] && grep -q '^conf=.*/20m$' "$exp/.done/.settings"; then bring bundle "exp/$system/bundle"; fi
}

poll() {
  [ -e "$work/started" ] || _error "nothing was begun in '$work'"
  while [ ! -f "$work/ended" ] && [ $SECONDS -lt "$wait" ]; do sleep 1; done
  say
  if [ -n "$out" ]; then
    mkdir -p "$out"
    bring_all
    ls -l "$out"
  fi
}

case $_verb in
  pack) pack ;;
  receive) receive ;;
  begin) begin_work; poll ;;
  poll) poll ;;
  work) work ;;
esac
