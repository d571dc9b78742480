# Sourced by setup.sh and install_k2.sh.

# find_python VERSION…: prints the path of the first Python of one of these versions ("3.11 3.12") that runs and can make
# virtual environments; fails when there is none. Paths of version managers are tried too, because their shims refuse to
# run versions that are not switched on.
find_python() {
  local version candidate real home=${HOME:-/nonexistent}
  for version in "$@"; do
    for candidate in "python$version" python3 python \
      "${PYENV_ROOT:-$home/.pyenv}/versions/$version".*/bin/python "${PYENV_ROOT:-$home/.pyenv}/versions/$version"/bin/python \
      "/usr/bin/python$version" "/usr/local/bin/python$version" "/opt/homebrew/bin/python$version" \
      "$home/.local/share/uv/python/cpython-$version".*/bin/python3; do
      command -v "$candidate" >/dev/null 2>&1 || continue
      # The base interpreter, so that an environment does not depend on another one.
      real=$("$candidate" - "$version" 2>/dev/null <<'PY'
import sys

if "%d.%d" % sys.version_info[:2] != sys.argv[1]:
    sys.exit(1)
import ensurepip, os, venv  # noqa: E401, F401

base = os.path.join(sys.base_prefix, "bin", "python" + sys.argv[1])
print(base if os.access(base, os.X_OK) else sys.executable)
PY
      ) && [ -n "$real" ] || continue
      echo "$real"
      return 0
    done
  done
  return 1
}

# need_disk DIR MEGABYTES WHAT: fails with one line when the file system of DIR has less room.
need_disk() {
  local free
  free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
  if [ "$free" -lt "$2" ]; then
    echo "error: $3 needs $2 MB of disk in $1, but only $free MB are free; free some, or put the clone on a larger disk" >&2
    return 1
  fi
}
