# Sourced by a recipe after its options: numbered, named stages that are skipped when they are done.
#
# Needs the variables exp, stage, stop_stage, force. A recipe reads:
#
#   begin data tokenizer train              # all stages in order: their numbers are 1, 2, 3
#   settings seed delay                     # what $exp was made with may not change under it
#   if stage train needs data tokenizer; then
#     reallm train …
#     finish
#   fi
#
# `--stage` and `--stop-stage` take numbers or names. A marker $exp/.done/NAME is written (beside, then renamed) only when the
# stage ended well, and starting a stage removes its marker and those of the stages after it, which its new output makes stale.
#
# Above `begin`, options are judged, so that a stage of hours does not end at a wrong one of a later stage:
#
#   whole 1 - nj epochs                     # whole numbers, 1 at least; - = any
#   number 0 0.3 vocal_tract                # a number from 0 to 0.3
#   numbers 0.5 2 speeds                    # any count of them
#   one_of teacher ctc rnnt
#   delay_fits conf/speech_reallm.yaml

_error() {
  echo "error: $*" >&2
  exit 2
}

# _range LEAST MOST: in words.
_range() { if [ "$2" = - ]; then echo "from $1 on"; else echo "from $1 to $2"; fi; }

whole() {
  local least=$1 most=$2 name value
  for name in "${@:3}"; do
    value=${!name}
    if [[ ! $value =~ ^[0-9]{1,15}$ ]] || ((10#$value < least)) || { [ "$most" != - ] && ((10#$value > most)); }; then
      _error "--${name//_/-} '$value': a whole number $(_range "$least" "$most")"
    fi
  done
}

# _within LEAST MOST NAME VALUE: a number that may have a fraction.
_within() {
  if [[ ! $4 =~ ^-?[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$ ]] ||
    ! awk -v least="$1" -v most="$2" -v value="$4" 'BEGIN { exit !(value + 0 >= least + 0 && (most == "-" || value + 0 <= most + 0)) }'; then
    _error "--${3//_/-} '$4': a number $(_range "$1" "$2")"
  fi
}

number() { _within "$1" "$2" "$3" "${!3}"; }

numbers() {
  local value
  set -f # a * is no number, and no list of files
  for value in ${!3}; do _within "$1" "$2" "$3" "$value"; done
  set +f
}

one_of() {
  local name=$1 value
  for value in "${@:2}"; do
    if [ "$value" = "${!name}" ]; then return; fi
  done
  local all="${*:2}"
  _error "--${name//_/-} '${!name}': ${all// / or }"
}

# delay_fits CONF: the last token needs a speech embedding that it answers, in the silence after the end.
delay_fits() {
  local flush
  flush=$(sed -n 's/^flush_periods: *\([0-9][0-9]*\).*/\1/p' "$1")
  whole 0 - delay
  [ "$delay" -le "${flush:-$delay}" ] || _error "--delay '$delay': at most $flush, which flush_periods is in $1"
}

# The number of a stage that is given by number or name.
_number() {
  local i
  for i in "${!_stages[@]}"; do
    if [ "$1" = "${_stages[i]}" ] || [ "$1" = "$((i + 1))" ]; then
      echo $((i + 1))
      return
    fi
  done
  return 1
}

begin() {
  _stages=("$@")
  _first=$(_number "$stage") || _error "no stage '$stage': 1 to $#, or one of $*"
  _last=$(_number "$stop_stage") || _error "no stage '$stop_stage': 1 to $#, or one of $*"
  [ "$_first" -le "$_last" ] || _error "--stage $stage comes after --stop-stage $stop_stage"
  local folder=$exp/.done
  _made=() # folders that are not there yet, innermost first
  while [ ! -e "$folder" ]; do _made+=("$folder") folder=$(dirname "$folder"); done
  mkdir -p "$exp/.done" 2>/dev/null || _error "cannot write to '$exp': name another folder with --exp"
  # Two runs in one folder would write over each other.
  if command -v flock >/dev/null; then
    exec 8>"$exp/.done/.lock"
    flock -n 8 || _error "another run is at work in '$exp': wait for it, or name another folder with --exp"
  fi
  _current=
  trap '_left $?' EXIT
}

# A mistake of the user's (exit code 2) was said in one line by whatever found it: that stays the last line.
_left() {
  if [ -n "$_current" ] && [ "$1" -ne 0 ] && [ "$1" -ne 2 ]; then
    echo "stage $(_number "$_current") ($_current) did not finish; the same command goes on from here" >&2
  fi
  # Of a run that was refused before any stage was done, nothing stays.
  if [ "$1" -eq 2 ] && [ ${#_made[@]} -gt 0 ] && ! compgen -G "$exp/.done/*" >/dev/null; then
    rm -f "$exp/.done/.lock" "$exp/.done/.settings"
    rmdir -- "${_made[@]}" 2>/dev/null || true
  fi
}

# settings NAME…: fails when one of these variables differs from what $exp was made with, unless all stages are forced. Where no
# stage is done nothing was made: a wrong value that the first stage refused may be corrected.
settings() {
  local name file=$exp/.done/.settings
  if [ -f "$file" ] && compgen -G "$exp/.done/*" >/dev/null && ! { [ "$force" = true ] && [ "$_first" = 1 ]; }; then
    for name in "$@"; do
      local now="$name=${!name}" then
      then=$(grep "^$name=" "$file" || true)
      [ -z "$then" ] || [ "$then" = "$now" ] || _error "'$exp' was made with $then, not $now: name another --exp, or --force from stage 1"
    done
  fi
  for name in "$@"; do echo "$name=${!name}"; done >"$file.new"
  mv "$file.new" "$file"
}

# stage NAME [needs NAME…]: succeeds when the stage is to be run now.
stage() {
  local name=$1 number needed
  number=$(_number "$name") || _error "stage '$name' is not among those that begin named"
  [ "$number" -ge "$_first" ] && [ "$number" -le "$_last" ] || return 1
  if [ -f "$exp/.done/$name" ] && [ "$force" != true ]; then
    echo "stage $number ($name): done before; --force runs it again"
    return 1
  fi
  for needed in "${@:3}"; do
    [ -f "$exp/.done/$needed" ] ||
      _error "stage $number ($name) needs stage $(_number "$needed") ($needed), which is not done in '$exp': run it with --stage $(_number "$needed")"
  done
  rm -f "$exp/.done/$name"
  for needed in "${_stages[@]:number}"; do rm -f "$exp/.done/$needed"; done
  _current=$name _since=$SECONDS
  echo "stage $number ($name)"
}

# Marks the stage that is being run as done.
finish() {
  local seconds=$((SECONDS - _since))
  echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $seconds s" >"$exp/.done/$_current.new"
  mv "$exp/.done/$_current.new" "$exp/.done/$_current"
  echo "stage $(_number "$_current") ($_current): $seconds s"
  _current=
}
