# Sourced by recipes and tests: does the set-up if it is needed, then puts its environment first on the PATH.

_tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
"$_tools/setup.sh" || exit 1
root=$(dirname "$_tools")
. "$_tools/active_python.sh"
if ! active_python >/dev/null; then
  export VIRTUAL_ENV=$root/.venv
fi
export PATH=$(dirname "$(active_python || echo "$root/.venv/bin/python")"):$PATH
# Where reallm is not installed from this clone, it would not find the side environment by itself.
if [ -z "${REALLM_K2_PYTHON:-}" ] && [ -x "$root/.venv-k2/bin/python" ]; then
  export REALLM_K2_PYTHON=$root/.venv-k2/bin/python
fi
unset _tools
