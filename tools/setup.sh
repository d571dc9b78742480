#!/usr/bin/env bash
# Sets the clone up: a virtual environment .venv with pinned versions, the package in it (editable), and k2.
#
#   tools/setup.sh
#
# Seconds when nothing is to be done. An already active environment (virtualenv or conda) that has reallm installed is
# used as it is. Scripts source tools/activate.sh, which calls this and puts the environment on the PATH.
# REALLM_BASE_PYTHON names the Python to make it from (else one of 3.11 and 3.12 that is found).
# REALLM_REQUIRE_K2=1 makes an absent k2 an error; K2_FIND_LINKS and REALLM_K2_PYTHON: see tools/install_k2.sh.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tools/find_python.sh"
. "$root/tools/active_python.sh"

case ${1:-} in
  '') ;;
  --help | -h) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) echo "error: setup.sh takes no argument, not '$1'" >&2; exit 2 ;;
esac

venv=$root/.venv
log=$root/.venv.log
marker=$venv/.reallm-setup
say() { echo "setup: $*" >&2; }
fail() { echo "setup: error: $*" >&2; exit 1; }

# What the environment was made from: another place, version or list of packages makes it anew.
wanted() { (cd "$root" && pwd && "$venv/bin/python" -V && cat tools/requirements.lock setup.cfg setup.py pyproject.toml) | cksum; }

# Runs pip, its output in the log, with a sign of life every 20 seconds. It unpacks gigabytes in a folder of its own: /tmp may
# be small, and what a killed installation leaves there would stay.
pip_install() {
  local scratch=$venv.tmp
  rm -rf "$scratch"
  mkdir "$scratch"
  TMPDIR=$scratch "$venv/bin/python" -m pip install --no-input --disable-pip-version-check --progress-bar off "$@" >>"$log" 2>&1 &
  local pid=$! waited=0
  trap 'kill $pid 2>/dev/null; wait $pid || true; rm -rf "$venv.tmp"' EXIT
  while kill -0 $pid 2>/dev/null; do
    sleep 1
    waited=$((waited + 1))
    [ $((waited % 20)) -ne 0 ] || say "  … $waited s: $(tail -n 1 "$log" | cut -c 1-100)"
  done
  trap - EXIT
  rm -rf "$scratch"
  wait $pid
}

install() {
  local base
  if ! { [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1; }; then
    base=${REALLM_BASE_PYTHON:-$(find_python 3.11 3.12)} || fail "no Python 3.11 or 3.12 with venv was found; install one (on Debian: python3.11 and python3.11-venv)"
    need_disk "$root" 9000 "the environment, while it is made," || exit 1
    say "making $venv with $("$base" -V)"
    rm -rf "$venv"
    "$base" -m venv "$venv" || fail "'$base -m venv $venv' failed"
  fi
  say "installing the packages (about 2 minutes and 5 GB the first time; log: $log)"
  : >"$log"
  pip_install "$(grep '^setuptools==' "$root/tools/requirements.lock")" &&
    pip_install --no-build-isolation -c "$root/tools/requirements.lock" -e "$root[train,synth,dask,llm,onnx,dev]" || {
    grep -E '^(ERROR|error)' "$log" | tail -n 3 >&2 || true
    fail "pip failed (see $log); if the package index cannot be reached, name a mirror with PIP_INDEX_URL or a folder of wheels with PIP_FIND_LINKS, and run it again"
  }
  wanted >"$marker"
}

# A failure is remembered, so that a machine without k2 does not try again at every run.
get_k2() {
  local failed=$root/.venv-k2.failed before
  before=$(cat "$root/tools/install_k2.sh" <(echo "${K2_FIND_LINKS:-} ${REALLM_K2_PYTHON:-}") | cksum)
  if [ "${REALLM_REQUIRE_K2:-0}" != 1 ] && [ -f "$failed" ] && [ "$(cat "$failed")" = "$before" ]; then
    say "warning: no k2 here, the torch backend will align; to try again: tools/install_k2.sh"
  elif REALLM_PYTHON=$1 "$root/tools/install_k2.sh" >&2; then
    rm -f "$failed"
  elif [ "${REALLM_REQUIRE_K2:-0}" = 1 ]; then
    fail "k2 is required (REALLM_REQUIRE_K2=1) and cannot be had"
  else
    echo "$before" >"$failed"
    say "warning: no k2, the torch backend will align; to try again: tools/install_k2.sh"
  fi
}

if python=$(active_python); then
  say "using the active environment ${python%/bin/python}, which has reallm from $("$python" -I -c 'import reallm; print(reallm.__path__[0])')"
  get_k2 "$python"
  exit 0
fi

# Two recipes started at once must not install into one another.
if command -v flock >/dev/null; then
  exec 9>"$root/.venv.lock"
  flock -n 9 || { say "another set-up is at work here: waiting for it"; flock 9; }
fi
if [ ! -f "$marker" ] || [ "$(cat "$marker")" != "$(wanted 2>/dev/null)" ]; then install; fi
get_k2 "$venv/bin/python"
