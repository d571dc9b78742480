# Sourced by a script as `. parse_options.sh "$@"`: each variable that the script sets above that line is an option.
#
#   nj=2       # CPU cores
#   force=false  # run again what is done
#   . ../../tools/parse_options.sh "$@"
#
# understands `--nj 4`, `--nj=4`, `--force`, `--config FILE` (more such variables; options on the command line win over it)
# and `--help`, which prints the comment at the top of the script and the options. Dashes in options are underscores in
# variables. An unknown option ends the script with exit code 2 and the nearest known name. Afterwards `given NAME` says whether
# a variable was set on the command line.

_script=${BASH_SOURCE[1]}
_names=$(awk '/parse_options\.sh/ && !/^#/ { exit } match($0, /^[a-z][a-z0-9_]*=/) { print substr($0, 1, RLENGTH - 1) }' "$_script")

_option_error() {
  echo "error: $*; '$_script --help' lists the options" >&2
  exit 2
}

# The known name with the smallest edit distance, as " (did you mean …?)".
_nearest() {
  printf '%s\n' $_names config help | awk -v a="$1" '
    function min(x, y) { return x < y ? x : y }
    { b = $0; n = length(a); m = length(b)
      for (j = 0; j <= m; j++) d[0, j] = j
      for (i = 1; i <= n; i++) { d[i, 0] = i
        for (j = 1; j <= m; j++) d[i, j] = min(min(d[i-1, j], d[i, j-1]) + 1, d[i-1, j-1] + (substr(a, i, 1) != substr(b, j, 1))) }
      if (NR == 1 || d[n, m] < best) { best = d[n, m]; name = b } }
    END { gsub("_", "-", name); if (best <= length(a) / 2) printf " (did you mean --%s?)", name }'
}

_given=" "
given() { [[ $_given == *" $1 "* ]]; }

_known() { [[ $'\n'$_names$'\n' == *$'\n'"$1"$'\n'* ]]; }

_usage() {
  awk 'NR == 1 && /^#!/ { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$_script"
  echo
  echo "Options:"
  awk '/parse_options\.sh/ && !/^#/ { exit }
    match($0, /^[a-z][a-z0-9_]*=/) {
      name = substr($0, 1, RLENGTH - 1); rest = substr($0, RLENGTH + 1); text = ""
      if (match(rest, / +# /)) { text = substr(rest, RSTART + RLENGTH); rest = substr(rest, 1, RSTART - 1) }
      gsub("_", "-", name); names[++n] = name; if (length(name) > width) width = length(name)
      texts[n] = text " (default: " (rest == "" ? "none" : rest) ")" }
    END {
      names[++n] = "config"; texts[n] = "a file that sets some of these"
      for (i = 1; i <= n; i++) printf "  --%-" width + 1 "s%s\n", names[i], texts[i] }' "$_script"
}

_read_config() {
  local file=$1 name
  # As named from where the user stands, else from the recipe's folder.
  [ -f "$file" ] || file=$(dirname "$_script")/$1
  [ -f "$file" ] || _option_error "no configuration file '$1'"
  if name=$(grep -nvE '^[A-Za-z_][A-Za-z0-9_]*=|^ *(#.*)?$' "$file"); then
    _option_error "$file has lines that are not NAME=VALUE, such as line ${name%%:*}"
  fi
  for name in $(sed -n 's/^\([A-Za-z_][A-Za-z0-9_]*\)=.*/\1/p' "$file"); do
    _known "$name" || _option_error "$file sets '$name', which is no option$(_nearest "$name")"
  done
  . "$file"
}

# The configuration first, wherever it stands, so that the command line wins.
_arguments=("$@")
for ((_i = 0; _i < ${#_arguments[@]}; _i++)); do
  case ${_arguments[_i]} in
    --config) [ $((_i + 1)) -lt ${#_arguments[@]} ] || _option_error "--config needs a file"; _read_config "${_arguments[_i + 1]}" ;;
    --config=*) _read_config "${_arguments[_i]#*=}" ;;
  esac
done

while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) _usage; exit 0 ;;
    --config) shift 2; continue ;;
    --config=*) shift; continue ;;
    --*=*) _option=${1%%=*} _value=${1#*=}; shift ;;
    --*)
      _option=$1; shift
      _name=${_option#--}; _name=${_name//-/_}
      _default=${!_name-}
      if { [ "$_default" = true ] || [ "$_default" = false ]; } && [[ ${1-} != true && ${1-} != false ]]; then
        _value=true
      elif [ $# -gt 0 ] && [[ $1 != --* ]]; then
        _value=$1; shift
      elif _known "$_name"; then
        _option_error "$_option needs a value"
      fi ;;
    *) _option_error "'$1' is not an option" ;;
  esac
  _name=${_option#--}; _name=${_name//-/_}
  _known "$_name" || _option_error "unknown option '$_option'$(_nearest "$_name")"
  _default=${!_name-}
  if [[ $_default =~ ^(true|false)$ && ! $_value =~ ^(true|false)$ ]]; then _option_error "$_option needs true or false, not '$_value'"; fi
  # Stages have names too.
  if [[ $_name != *stage && $_default =~ ^[0-9]+$ && ! $_value =~ ^[0-9]+$ ]]; then _option_error "$_option needs a whole number, not '$_value'"; fi
  printf -v "$_name" %s "$_value"
  _given+="$_name "
done
unset _script _names _arguments _i _option _value _name _default
unset -f _option_error _nearest _known _usage _read_config
