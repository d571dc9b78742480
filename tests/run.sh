#!/usr/bin/env bash
# The set-up, then all checks: lint, format, types, tests. What is given goes to pytest: tests/run.sh -k encoder
#
# REALLM_REQUIRE_K2=1 makes an absent k2 a failure; without it those tests are skipped, and counted at the end.
# REALLM_DATA is where real recordings lie (../shared/data next to the clone, when it is there).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tools/activate.sh

python -c 'import pytest, xdist, hypothesis, mypy' 2>/dev/null ||
  { echo "error: the environment lacks the tools for tests: pip install -e '.[train,synth,dask,llm,onnx,dev]'" >&2; exit 2; }
if [ -z "${REALLM_DATA:-}" ] && [ -d ../shared/data ]; then
  REALLM_DATA=$(cd ../shared/data && pwd)
  export REALLM_DATA
fi
# One thread a process: the tests are small, and two processes of them run side by side.
export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

failed=()
check() {
  local start=$SECONDS
  echo "== $*"
  "$@" || failed+=("$*")
  echo "== $((SECONDS - start)) s"
}
check python -m ruff check .
check python -m ruff format --check .
check python -m mypy --config-file setup.cfg
check python -m pytest -n 2 "$@"

if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}" >&2
  exit 1
fi
