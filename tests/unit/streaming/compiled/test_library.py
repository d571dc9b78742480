"""The kernels are built once, and what is missing for it is named."""

from pathlib import Path

import pytest

from reallm.errors import InputError
from reallm.streaming.compiled.library import cache_folder, compiler, load


def test_is_built_once_by_the_compiler_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, wrapper = tmp_path / "calls", tmp_path / "c++"
    wrapper.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexec {compiler()[0]} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", f"{wrapper} -Wall -Wextra -Werror -Wno-psabi")
    for _ in range(2):
        assert load(compiler(), tmp_path / "kept").reallm_block() in (16, 64)
    assert calls.read_text().count("kernels.cpp") == 1
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_a_library_that_is_damaged(tmp_path: Path) -> None:
    load(compiler(), tmp_path / "whole")
    (whole,) = (tmp_path / "whole").iterdir()
    for wrong in (whole.read_bytes()[:5000], b""):  # cut off: it is built anew
        path = tmp_path / f"cut-{len(wrong)}" / whole.name  # another one: this process has that one loaded
        path.parent.mkdir()
        path.write_bytes(wrong)
        assert load(compiler(), path.parent).reallm_block() in (16, 64)
        assert path.read_bytes() == whole.read_bytes() and list(path.parent.iterdir()) == [path]
    path = tmp_path / "spoilt" / whole.name
    path.parent.mkdir()
    path.write_bytes(b"x" * whole.stat().st_size)
    with pytest.raises(InputError, match=f"cannot be loaded .*: remove {path}"):
        load(compiler(), path.parent)


def test_where_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    assert cache_folder() == Path("/some/where/reallm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache/reallm"


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = compiler()
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(InputError, match="CXX=no-such-compiler: there is no such program: install one, on Debian with apt-get install g"):
        compiler()
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"none of c\+\+, g\+\+, clang\+\+ is there"):
        compiler()
    with pytest.raises(InputError, match=r"does not compile reallm's kernels .*unrecognized.*: name another one in CXX"):
        load([*found, "-no-such-option"], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be kept in .*: name a folder in XDG_CACHE_HOME"):
        load(found, tmp_path / "file" / "folder")
