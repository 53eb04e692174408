"""A folder that is written aside: the old one until the new one is whole, nothing left behind."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openjepa.core.atomic import replaced_folder


def files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_the_new_folder_takes_the_position_of_the_old_one_when_it_is_whole(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "kept"
    for name in ("first", "second"):
        with replaced_folder(final) as folder:
            before = files(final) if final.exists() else {}
            (folder / name).write_text(name)
            assert (files(final) if final.exists() else {}) == before
        assert files(final) == {name: name}
        assert os.listdir(final.parent) == ["kept"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    final = tmp_path / "kept"
    with replaced_folder(final) as folder:
        (folder / "a").write_text("old")

    def fail() -> None:
        with replaced_folder(final) as folder:
            (folder / "a").write_text("half")
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="luck"):
        fail()
    assert files(final) == {"a": "old"}
    assert os.listdir(tmp_path) == ["kept"]


def test_what_a_killed_process_left_is_not_taken_over(tmp_path: Path) -> None:
    left = tmp_path / ".kept.tmp"
    left.mkdir()
    (left / "stale").write_text("")
    with replaced_folder(tmp_path / "kept") as folder:
        (folder / "a").write_text("new")
    assert files(tmp_path / "kept") == {"a": "new"}


def test_files_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    sync, rename = os.fsync, os.replace

    def noted_sync(handle: int) -> None:
        order.append("sync")
        sync(handle)

    def noted_rename(source: Path, target: Path) -> None:
        order.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_rename)
    with replaced_folder(tmp_path / "kept") as folder:
        (folder / "a").write_text("new")
        (folder / "b").write_text("new")
    assert order == ["sync", "sync", "rename", "sync"]
