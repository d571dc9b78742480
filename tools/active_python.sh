# Sourced by setup.sh and activate.sh.

# active_python: prints the Python of the active virtualenv or conda environment, when reallm is installed there.
active_python() {
  local prefix
  for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
    [ -n "$prefix" ] && [ -x "$prefix/bin/python" ] || continue
    # The clone's own environment is kept up to date instead.
    [ "$(cd "$prefix" && pwd -P)" = "$(cd "$root" && pwd -P)/.venv" ] && continue
    # -I: a package that only lies in the current folder is not installed.
    "$prefix/bin/python" -I -c 'import reallm' 2>/dev/null || continue
    echo "$prefix/bin/python"
    return 0
  done
  return 1
}
