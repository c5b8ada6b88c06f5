"""Files are whole or missing, even if several processes write them at the same time."""

import errno
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mnist_lab import files
from mnist_lab.errors import UsageError
from mnist_lab.files import atomic_write, sync_tree, write_text


def test_several_writers_of_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    path, texts = tmp_path / "file", [str(writer) * 5000 for writer in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: write_text(path, texts[i % 4], durable=False), range(500)))
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")
    with pytest.raises(UnicodeEncodeError), atomic_write(path) as partial:
        partial.write_text("new \udc80", encoding="utf-8")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_durable_file_a_folders_name_and_a_tree_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(files, "sync", lambda path: synced.append(path.name.split(".")[-1]))
    write_text(tmp_path / "file", "", durable=False)
    assert not synced
    write_text(tmp_path / "file", "")
    assert synced == ["partial", tmp_path.name], "the file, and then its name"
    files.make_folder(tmp_path / "a" / "b")
    assert sorted(synced[2:]) == sorted(["a", tmp_path.name])
    (tmp_path / "a" / "b" / "inner").touch()
    (tmp_path / "a" / "link").symlink_to("nowhere")
    sync_tree(tmp_path)
    assert sorted(synced[4:]) == sorted([tmp_path.name, "a", "b", "inner", "file"])


def test_error_names_the_file_that_was_to_be_written_or_another_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "file")
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "none" / "file") as partial:
        partial.touch()
    assert caught.value.filename == str(tmp_path / "none" / "file")
    with pytest.raises(FileNotFoundError) as caught, atomic_write(tmp_path / "file"):
        (tmp_path / "other").read_text()
    assert caught.value.filename == str(tmp_path / "other")


def test_file_has_the_rights_that_the_user_gives_new_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_output_of_a_users_own_gets_its_folder_or_is_refused_by_the_option(tmp_path: Path) -> None:
    with files.user_output(tmp_path / "new" / "x", "--out=x") as partial:
        partial.touch()
    files.require_writable_file(tmp_path / "new" / "x", "--out=x")
    with pytest.raises(UsageError, match="--out=x: exists and is not a file"):
        files.require_writable_file(tmp_path / "new", "--out=x")
    with (
        pytest.raises(UsageError, match="--out=y: cannot be written"),
        files.user_output(tmp_path / "new" / "x" / "y", "--out=y"),
    ):
        raise AssertionError("unreachable")


def test_checkpoint_is_whole_only_with_every_byte_as_it_was_and_no_name_is_too_long_to_ask_for(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", b"0" * 100)
    whole = path.read_bytes()
    assert files.is_whole(path) and files.exists(path)
    for damaged in (whole.replace(b"00", b"01", 1), whole[:-1], b""):
        path.write_bytes(damaged)
        assert not files.is_whole(path)
    assert not files.is_whole(tmp_path / "none") and not files.exists(tmp_path / ("x" * 5000))
