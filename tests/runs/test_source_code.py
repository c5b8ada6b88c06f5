"""The code of a run can be restored, even from a checkout with uncommitted changes."""

import os
import subprocess
from pathlib import Path

import pytest

from mnist_lab.runs.record import MAX_PATCH, GitState, record_source, without_credentials


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    return subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a clone with one commit of four files in the current folder."""
    monkeypatch.chdir(tmp_path)
    origin = tmp_path / "origin"
    origin.mkdir()
    git(origin, "init", "-q")
    for name, content in (("a.py", b"a\n"), ("b.py", b"b\n"), ("c.png", b"\0\1"), ("in/d.py", b"d\n")):
        (origin / name).parent.mkdir(exist_ok=True)
        (origin / name).write_bytes(content)
    git(origin, "add", ".")
    git(origin, "commit", "-qm", "first")
    git(tmp_path, "clone", "-q", str(origin), "checkout")
    return tmp_path / "checkout"


def record(checkout: Path) -> GitState:
    state = record_source(Path("source.patch"), checkout)
    assert state is not None and state["commit"] == git(checkout, "rev-parse", "HEAD").strip()
    return state


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def test_changed_code_is_restored_by_the_recorded_commands(checkout: Path) -> None:
    (checkout / "a.py").write_text("a changed é\r\n", newline="")
    (checkout / "b.py").unlink()
    (checkout / "c.png").write_bytes(os.urandom(3000))
    (checkout / "in" / "e.py").write_text("staged\n")
    git(checkout, "add", "in/e.py")
    git(checkout, "config", "diff.external", "false")
    git(checkout, "config", "color.diff", "always")
    git(checkout, "config", "diff.noprefix", "true")
    state = record_source(Path("source.patch"), checkout / "in")
    assert state is not None and state["changed"] and "untracked" not in state and "left_out" not in state
    subprocess.run(state["restore"], shell=True, check=True, capture_output=True)
    assert files(Path("source")) == files(checkout)


def test_unchanged_checkout_has_no_patch(checkout: Path) -> None:
    Path("source.patch").write_text("of an earlier start")
    state = record(checkout)
    assert (state["changed"], Path("source.patch").exists()) == (False, False)
    subprocess.run(state["restore"], shell=True, check=True, capture_output=True)
    assert files(Path("source")) == files(checkout)
    assert record_source(Path("source.patch"), checkout.parent) is None, "not a checkout"


def test_files_that_git_does_not_track_are_named_and_not_kept(checkout: Path) -> None:
    (checkout / ".gitignore").write_text("ignored.txt\n")
    for name in ("new.py", "ignored.txt"):
        (checkout / name).write_text("secret\n")
    state = record(checkout)
    assert (state["changed"], state["untracked"]) == (True, [".gitignore", "new.py"])
    assert not Path("source.patch").exists()


@pytest.mark.parametrize(("size", "kept"), [(MAX_PATCH // 2, True), (40 * MAX_PATCH, False)])
def test_changes_of_more_than_a_megabyte_are_left_out(checkout: Path, size: int, kept: bool) -> None:
    (checkout / "a.py").write_text("a" * size + "\n")
    state = record(checkout)
    assert Path("source.patch").exists() is kept and ("git -C source apply" in state["restore"]) is kept
    assert state.get("left_out") == (None if kept else "changes of more than 1,000,000 bytes")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://token@example.org:8080/a.git?private_token=x#y", "https://example.org:8080/a.git"),
        ("ssh://git:word@example.org/a.git", "ssh://example.org/a.git"),
        ("git@example.org:a/b.git", "git@example.org:a/b.git"),
    ],
)
def test_credentials_of_the_origin_are_not_recorded(checkout: Path, url: str, kept: str) -> None:
    assert without_credentials(url) == kept
    git(checkout, "remote", "set-url", "origin", url)
    state = record(checkout)
    assert state["origin"] == kept and f"git clone {kept} source" in state["restore"]
