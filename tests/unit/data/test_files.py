"""A file is whole or not there."""

from pathlib import Path

import pytest

from reallm.data.files import atomic_folder, atomic_write


def test_whole_file(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "new" / "a.txt") as file:
        file.write("é")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "é"
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "new" / "a.txt").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with atomic_write(tmp_path / "b", "wb") as file:
        file.write(b"\0")
    assert (tmp_path / "b").read_bytes() == b"\0"


def test_old_file_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a") as file:
        file.write("new")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with atomic_folder(tmp_path / "a") as folder:
        (folder / "x").write_text("whole")
    assert (tmp_path / "a" / "x").read_text() == "whole"


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "a", replace=True) as folder:
            (folder / name).write_text(name)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["new"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "a", replace=True) as folder:
        (folder / "newest").write_text("")
        raise RuntimeError
    with pytest.raises(OSError), atomic_folder(tmp_path / "a") as folder:
        (folder / "newest").write_text("")
    assert [p.name for p in tmp_path.rglob("*")] == ["a", "new"]
