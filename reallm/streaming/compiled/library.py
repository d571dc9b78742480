"""The kernels as a library: built once by the machine's C++ compiler, for its own processor, and kept in the user's cache folder."""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from reallm.errors import InputError

SOURCE = Path(__file__).with_name("kernels.cpp")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-shared", "-fPIC")
COMPILERS = ("c++", "g++", "clang++")

POINTER, NUMBER = ctypes.c_void_p, ctypes.c_int64
ARGUMENTS = {  # of kernels.cpp
    "reallm_linear": [POINTER, POINTER, NUMBER, POINTER],
    "reallm_conformer": [POINTER, POINTER, *[NUMBER] * 4, *[POINTER] * 4, NUMBER, NUMBER, *[POINTER] * 5],
    "reallm_llama": [POINTER, NUMBER, NUMBER, *[POINTER] * 8],
    "reallm_llama_accept": [POINTER, NUMBER, NUMBER, *[POINTER] * 6],
}


@functools.cache
def kernels() -> ctypes.CDLL:
    """The library, loaded.

    Raises InputError where there is no compiler, it does not compile them, or the cache folder cannot be written.
    """
    return load(compiler(), cache_folder())


def compiler() -> list[str]:
    """The command: that of the environment variable CXX, or the first of the usual ones that is there. Raises InputError without one."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = next(filter(None, map(shutil.which, named[:1] or COMPILERS)), None)
    if found is None:
        lacks = f"CXX={named[0]}: there is no such program" if named else f"none of {', '.join(COMPILERS)} is there"
        raise InputError(f"compiled layers need a C++ compiler, and {lacks}: install one, on Debian with apt-get install g++")
    return [found, *named[1:]]


def cache_folder() -> Path:
    """Where libraries are kept: reallm/ in the environment variable XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reallm"


def load(command: list[str], folder: Path) -> ctypes.CDLL:
    """The library that the compiler ``command`` makes, from ``folder``, or built there. Raises InputError as ``kernels``."""
    # What the compiler makes of this processor is in its macros, and so is its version: a home that machines share may be read by another.
    target = _run([*command, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    name = hashlib.sha256(b"\0".join([SOURCE.read_bytes(), target, *map(os.fsencode, [*command, *FLAGS])])).hexdigest()[:32]
    path = next(filter(_is_whole, folder.glob(f"kernels-{name}-*.so")), None)
    if path is None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as beside:  # processes that build at a time do not disturb each other
                built = Path(beside, "kernels.so")
                _run([*command, *FLAGS, str(SOURCE), "-o", str(built)])
                path = folder / f"kernels-{name}-{built.stat().st_size}.so"
                built.replace(path)
        except OSError as error:
            raise InputError(f"compiled layers cannot be kept in {folder} ({error.strerror}): name a folder in XDG_CACHE_HOME") from None
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise InputError(f"compiled layers cannot be loaded ({error}): remove {path}, or name another folder in XDG_CACHE_HOME") from None
    library.reallm_block.restype = NUMBER
    for function, arguments in ARGUMENTS.items():
        kernel = getattr(library, function)
        kernel.argtypes, kernel.restype = arguments, None
    return library


def _is_whole(path: Path) -> bool:
    """Whether a library has the size that its name tells: one that was cut off would end the process that loads it."""
    return path.stem.endswith(f"-{path.stat().st_size}")


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        wrong = next((line for line in said if "error" in line), said[-1] if said else f"exit status {done.returncode}")
        raise InputError(f"the C++ compiler {command[0]} does not compile reallm's kernels ({wrong}): name another one in CXX")
    return done.stdout
