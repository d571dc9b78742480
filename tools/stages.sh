# Sourced by a recipe after its options: numbered, named stages that are skipped when they are done.
#
# Needs parse_options.sh and the variables exp, stage, stop_stage, force. A recipe reads:
#
#   begin data tokenizer train              # all stages in order: their numbers are 1, 2, 3
#   settings seed                           # what $exp was made with may not change under it
#   since train delay epochs                # this may, until train or a later stage was begun
#   reopens train systems                   # this may: stages from train on are gone through again
#   . "$here/path.sh"                       # the set-up, once all is judged
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
#   wholes 0 - seeds                        # any count of them, in one option
#   number 0 0.3 vocal_tract                # a number from 0 to 0.3
#   numbers 0.5 2 speeds                    # any count of them
#   some systems seeds                      # what may not be empty
#   folder text alignments                  # a folder that is there, or empty
#   device_is_known
#   dask_is_known
#   one_of teacher ctc rnnt
#   delay_fits conf/speech_reallm.yaml
#   tunables_are_of conf/speech_reallm.yaml "train dev seed"   # each of --tunables is a key on top of it, but for those that run.sh sets
#
# and below it, once the set-up is there:
#
#   tunables_fit conf/speech_reallm.yaml delay=1               # what they make fits together, other overrides with them

_error() {
  echo "error: $*" >&2
  exit 2
}

# _range LEAST MOST: in words.
_range() { if [ "$2" = - ]; then echo "from $1 on"; else echo "from $1 to $2"; fi; }

# _whole LEAST MOST NAME VALUE
_whole() {
  if [[ ! $4 =~ ^[0-9]{1,15}$ ]] || ((10#$4 < $1)) || { [ "$2" != - ] && ((10#$4 > $2)); }; then
    _error "--${3//_/-} '$4': a whole number $(_range "$1" "$2")"
  fi
}

whole() {
  local name
  for name in "${@:3}"; do _whole "$1" "$2" "$name" "${!name}"; done
}

# _each JUDGE LEAST MOST NAME: every value of an option that has several.
_each() {
  local value
  set -f # a * is no number, and no list of files
  for value in ${!4}; do "$1" "$2" "$3" "$4" "$value"; done
  set +f
}

wholes() { _each _whole "$@"; }

# _within LEAST MOST NAME VALUE: a number that may have a fraction.
_within() {
  if [[ ! $4 =~ ^-?[0-9]*[.]?[0-9]+([eE][-+]?[0-9]+)?$ ]] ||
    ! awk -v least="$1" -v most="$2" -v value="$4" 'BEGIN { exit !(value + 0 >= least + 0 && (most == "-" || value + 0 <= most + 0)) }'; then
    _error "--${3//_/-} '$4': a number $(_range "$1" "$2")"
  fi
}

number() { _within "$1" "$2" "$3" "${!3}"; }

numbers() { _each _within "$@"; }

some() {
  local name
  for name in "$@"; do [ -n "${!name// /}" ] || _error "--${name//_/-} '${!name}': name one at least"; done
}

folder() {
  local name
  for name in "$@"; do [ -z "${!name}" ] || [ -d "${!name}" ] || _error "--${name//_/-} '${!name}': no such folder"; done
}

one_of() {
  local name=$1 value
  for value in "${@:2}"; do
    if [ "$value" = "${!name}" ]; then return; fi
  done
  local all="${*:2}"
  _error "--${name//_/-} '${!name}': ${all// / or }"
}

device_is_known() { [[ $device =~ ^((cpu|cuda)(:[0-9]+)?)?$ ]] || _error "--device '$device': cpu or cuda"; }

dask_is_known() { [ -z "$dask" ] || [[ $dask =~ ^[a-z]+://.+:[0-9]+$ ]] || _error "--dask '$dask': the address of a scheduler, such as tcp://HOST:8786"; }

# systems_in FOLDER: what its configurations train that a recipe makes a tokenizer for, teachers aside.
systems_in() {
  [ -d "$1" ] || _error "--conf: no such folder '$1'"
  (cd "$1" && grep -l '^tokenizer_path:' -- *.yaml | sed -n '/^teacher_/d; s/\.yaml$//p' | paste -s -d ' ')
}

# delay_fits CONF: the last token needs a speech embedding that it answers, in the silence after the end.
delay_fits() {
  local flush
  flush=$(sed -n 's/^flush_periods: *\([0-9][0-9]*\).*/\1/p' "$1")
  whole 0 - delay
  [ "$delay" -le "${flush:-$delay}" ] || _error "--delay '$delay': at most $flush, which flush_periods is in $1"
}

# tunables_are_of CONF "KEY…": … and has them in the array `changes`, as they are: a value may have a *.
tunables_are_of() {
  local tunable key
  read -rd '' -a changes <<<"$tunables" || true # several lines too
  for tunable in "${changes[@]}"; do
    [[ $tunable == *=* ]] || _error "--tunables '$tunable': KEY=VALUE, such as $(sed -n 's/^\(layers\|stride\|batch_seconds\): *\([^ ]*\).*/\1=\2/p' "$1" | head -n 1)"
    key=${tunable%%=*}
    [[ " $2 " != *" $key "* ]] || _error "--tunables '$tunable': other options set $key: see --help"
    [[ $key =~ ^[a-z_]+$ ]] && grep -q "^$key:" "$1" || _error "--tunables '$tunable': ${1#"$here/"} has no $key"
  done
}

# tunables_fit CONF OVERRIDE…: before the stages of hours that come before they are used.
tunables_fit() {
  [ -n "$tunables" ] || return 0
  local said options=()
  for said in "${@:2}" "${changes[@]}"; do options+=(--override "$said"); done
  said=$(reallm config check "$1" "${options[@]}" 2>&1) || _error "--tunables '$tunables': $(tail -n 1 <<<"$said")"
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
  _current= _considered= _fresh=
  trap '_left $?' EXIT
}

# A mistake of the user's (exit code 2) was said in one line by whatever found it: that stays the last line.
_left() {
  [ "$1" -ne 0 ] || [ -n "$_considered" ] || echo "nothing to do: stages '$stage' to '$stop_stage' are those of the run that --from names" >&2
  if [ "$1" -eq 2 ] && [ -n "$_fresh" ]; then rm -f "$exp/.done/.begun.$_fresh"; fi # a wrong value, which may be corrected
  if [ -n "$_current" ] && [ "$1" -ne 0 ] && [ "$1" -ne 2 ]; then
    echo "stage $(_number "$_current") ($_current) did not finish; the same command goes on from here" >&2
  fi
  # Of a run that was refused before any stage was done, nothing stays.
  if [ "$1" -eq 2 ] && [ ${#_made[@]} -gt 0 ] && ! compgen -G "$exp/.done/*" >/dev/null; then
    rm -f "$exp/.done/.lock" "$exp/.done/.settings" "$exp"/.done/.begun.*
    rmdir -- "${_made[@]}" 2>/dev/null || true
  fi
}

# take_over STAGE NAME…: with --from, these options are as in that run, which has done STAGE; only later stages are run here.
take_over() {
  local wanted=$1 name value
  [ -f "$from/.done/$wanted" ] || _error "--from '$from': stage '$wanted' is not done there: run it first"
  value=$(sed -n 's/^from=//p' "$from/.done/.settings")
  [ -z "$value" ] || _error "--from '$from': it is a run --from '$value' itself: name that one"
  while IFS='=' read -r name value; do
    [[ " ${*:2} " == *" $name "* ]] || continue
    if given "$name" && [ "${!name}" != "$value" ]; then
      _error "--${name//_/-} '${!name}': '$from' was made with '$value', which is taken over: leave the option out"
    fi
    printf -v "$name" %s "$value"
  done <"$from/.done/.settings"
}

_was() { sed -n "s/^$1=//p" "$exp/.done/.settings"; }
_knows() { grep -qs "^$1=" "$exp/.done/.settings"; }

# Where no stage is done nothing was made: a wrong value that the first stage refused may be corrected.
_made_something() { compgen -G "$exp/.done/*" >/dev/null; }

# _keep NAME…: what $exp is made with.
_keep() {
  local file=$exp/.done/.settings name
  for name in "$@"; do
    if _knows "$name"; then sed "/^$name=/d" "$file" >"$file.new" && mv "$file.new" "$file"; fi
  done
  { [ ! -f "$file" ] || cat "$file"; for name in "$@"; do echo "$name=${!name}"; done; } >"$file.new"
  mv "$file.new" "$file"
}

# _same NAME…: fails when one of these variables differs from what $exp was made with.
_same() {
  local name
  for name in "$@"; do
    if _knows "$name" && [ "$(_was "$name")" != "${!name}" ]; then
      _error "'$exp' was made with $name=$(_was "$name"), not $name=${!name}: name another --exp"
    fi
  done
}

# settings NAME…: what all stages are made with, so that it may not change once something was made.
settings() {
  if _made_something; then _same "$@"; fi
  _keep "$@"
}

# _begun STAGE: whether it, or one after it, was begun.
_begun() {
  local each
  for each in "${_stages[@]:$(_number "$1") - 1}"; do
    if [ -e "$exp/.done/.begun.$each" ] || [ -e "$exp/.done/$each" ]; then return; fi
  done
  return 1
}

# since STAGE NAME…: what STAGE is the first to be made with, so that it may change until then.
since() {
  if _begun "$1"; then _same "${@:2}"; fi
  _keep "${@:2}"
}

# reopens STAGE NAME…: where one of these variables differs from what $exp was made with, that stage and those after it are gone
# through again. What they find finished they leave as it is.
reopens() {
  local name needed
  for name in "${@:2}"; do
    if _made_something && _knows "$name" && [ "$(_was "$name")" != "${!name}" ]; then
      echo "--${name//_/-} was '$(_was "$name")', and is '${!name}': stages from $1 on look at what is missing"
      for needed in "${_stages[@]:$(_number "$1") - 1}"; do rm -f "$exp/.done/$needed"; done
    fi
  done
  _keep "${@:2}"
}

# stage NAME [needs NAME…]: succeeds when the stage is to be run now.
stage() {
  local name=$1 number needed
  number=$(_number "$name") || _error "stage '$name' is not among those that begin named"
  [ "$number" -ge "$_first" ] && [ "$number" -le "$_last" ] || return 1
  _considered=$name
  if [ -f "$exp/.done/$name" ] && [ "$force" != true ]; then
    echo "stage $number ($name): done before; --force goes through it again"
    return 1
  fi
  for needed in "${@:3}"; do
    [ -f "$exp/.done/$needed" ] ||
      _error "stage $number ($name) needs stage $(_number "$needed") ($needed), which is not done in '$exp': run it with --stage $(_number "$needed")"
  done
  rm -f "$exp/.done/$name"
  for needed in "${_stages[@]:number}"; do rm -f "$exp/.done/$needed"; done
  _current=$name _since=$SECONDS _fresh=
  [ -e "$exp/.done/.begun.$name" ] || { : >"$exp/.done/.begun.$name" && _fresh=$name; }
  echo "stage $number ($name)"
}

# Marks the stage that is being run as done.
finish() {
  local seconds=$((SECONDS - _since))
  echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $seconds s" >"$exp/.done/$_current.new"
  mv "$exp/.done/$_current.new" "$exp/.done/$_current"
  echo "stage $(_number "$_current") ($_current): $seconds s"
  _current= _fresh=
}
