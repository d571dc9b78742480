#!/usr/bin/env bash
# Gets k2, the reference of the forced alignment, and verifies it by use.
#
#   tools/install_k2.sh [--find-links PAGE]
#
# 1. k2 that already works in the environment is used as it is.
# 2. With --find-links PAGE (or $K2_FIND_LINKS), a page or folder of wheels such as the k2 project's own, the build for the
#    environment's torch is installed into the environment.
# 3. Else k2 1.23.4 goes into a side environment, .venv-k2, next to the torch 1.13.1 that it was compiled against; aligners
#    talk to it through a worker process. $REALLM_K2_PYTHON names another Python that has k2.
#
# The environment is $REALLM_PYTHON, else the clone's .venv. Exits 0 when k2 works, 1 when it cannot be had.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$root/tools/find_python.sh"

links=${K2_FIND_LINKS:-}
while [ $# -gt 0 ]; do
  case $1 in
    --find-links) links=${2:?--find-links needs a page or folder}; shift 2 ;;
    --find-links=*) links=${1#*=}; shift ;;
    --help | -h) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "error: unknown option '$1'; install_k2.sh knows --find-links PAGE" >&2; exit 2 ;;
  esac
done

python=${REALLM_PYTHON:-$root/.venv/bin/python}
side=$root/.venv-k2
log=$root/.venv-k2.log
say() { echo "install_k2: $*"; }
verify() { local said; said=$("$1" "$root/tools/verify_k2.py") && say "$said"; }
fail() { echo "install_k2: error: $*" >&2; exit 1; }

# The file of k2 1.23.4 for each Python: all of them carry the same tags, so only the hash tells them apart.
hash_of() {
  case $1 in
    3.11) echo 5b5f709b12b9cd092b583984d0b7d940c9f898101259c998d68d1f4adefa48d4 ;;
    3.10) echo 1404589732fdb7f6f5bf62297a20dd73318b7b4f2e10dd52dc3d5b6669688a4c ;;
    3.9) echo e483092fc06bbf211827474e17d71c3acee8a37ddbee32cbf2706bf179f2fa19 ;;
    3.8) echo 8992b1884cf7d3585e06031f017f3474854959bb7a33d4adbf5b91b538815584 ;;
  esac
}

# Versions on the page that were built for the environment's torch: its own CUDA first, then CPU.
builds_for_torch() {
  "$python" -m pip index versions k2 --pre --no-index --find-links "$links" 2>/dev/null | "$python" -c '
import re, sys
import torch

base = torch.__version__.split("+")[0]
found = set(re.findall(r"[0-9][^\s,()]*\+[^\s,()]*torch" + re.escape(base) + r"(?![\d.])", sys.stdin.read()))
flavours = ["cuda" + torch.version.cuda] if torch.version.cuda else []
for flavour in [*flavours, "cpu"]:
    print(*sorted((v for v in found if "+" + flavour + "." in v), reverse=True)[:1], sep="\n")
' | sed '/^$/d'
}

in_environment() {
  local build
  for build in $(builds_for_torch); do
    say "trying k2 $build in the environment"
    "$python" -m pip install -q --no-deps --no-index --find-links "$links" "k2==$build" || continue
    if verify "$python"; then return 0; fi
    say "k2 $build does not work with this torch: removed again"
    "$python" -m pip uninstall -q -y k2
  done
  say "$links has no k2 that works with the environment's torch"
  return 1
}

in_side_environment() {
  local base version sha new=$side.new
  base=$(find_python 3.11 3.10 3.9 3.8) ||
    fail "the side environment needs a Python 3.8 to 3.11 with venv, and none was found; install one (for example with pyenv), or set REALLM_K2_PYTHON"
  version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  sha=$(hash_of "$version")
  need_disk "$root" 6000 "the side environment of k2" || exit 1
  say "making $side with Python $version (about a minute, 3.3 GB; log: $log)"
  rm -rf "$new"
  (
    export TMPDIR=$new/tmp # pip unpacks gigabytes: where they do not stay behind if it is killed
    mkdir -p "$TMPDIR" && "$base" -m venv "$new" &&
      "$new/bin/python" -m pip install --no-input pip==23.2.1 &&
      "$new/bin/python" -m pip install --no-input torch==1.13.1 'numpy<2' graphviz &&
      echo "k2==1.23.4 --hash=sha256:$sha" >"$new/k2.txt" &&
      "$new/bin/python" -m pip install --no-input --no-deps --require-hashes -r "$new/k2.txt" && rm -rf "$TMPDIR"
  ) >"$log" 2>&1 || { tail -n 3 "$log" >&2; rm -rf "$new"; fail "pip could not install k2 (see $log); run it again when the package index can be reached"; }
  verify "$new/bin/python" >>"$log" || { rm -rf "$new"; fail "k2 was installed but does not work, and was removed again (log: $log)"; }
  # Renamed only when it works, so that an interrupted installation is never taken for a good one.
  rm -rf "$side"
  mv "$new" "$side"
}

if [ -x "$python" ] && "$python" -c 'import k2' 2>/dev/null && verify "$python"; then exit 0; fi
if [ -n "${REALLM_K2_PYTHON:-}" ]; then
  verify "$REALLM_K2_PYTHON" || fail "REALLM_K2_PYTHON=$REALLM_K2_PYTHON has no k2 that works; name a Python that has one, or unset it"
  exit 0
fi
if [ -n "$links" ] && [ -x "$python" ] && in_environment; then exit 0; fi
if [ -x "$side/bin/python" ] && verify "$side/bin/python" 2>/dev/null; then exit 0; fi
in_side_environment
verify "$side/bin/python"
