"""Files are whole or not there, whoever writes them at once."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_lab import files
from mnist_lab.files import atomic_write, sync_tree, write_text


def test_several_writers_of_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [str(writer) * 5000 for writer in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_text(path, texts[i % 4], durable=False), range(2000)))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def interrupted() -> None:
        with atomic_write(path) as partial:
            partial.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_error_of_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")


def test_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "file"):
        (tmp_path / "other").read_text()
    assert Path(caught.value.filename).name == "other"


def test_file_has_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_whole_tree_is_synced_with_the_files_of_its_subfolders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").touch()
    synced: set[Path] = set()
    monkeypatch.setattr(files, "sync", synced.add)
    sync_tree(tmp_path)
    assert synced == {tmp_path, tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "file"}
