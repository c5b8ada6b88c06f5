"""The commit of the code that a run was made with, and its uncommitted changes: how to have the same code again."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from mnist_lab.files import atomic_write
from mnist_lab.runs.record import GitState

MAX_PATCH = 1_000_000  # bytes
MAX_UNTRACKED = 100  # names of untracked files
SECONDS = 10


def record_source(patch: Path, folder: Path | None = None) -> GitState | None:
    """Describe a checkout, and keep its uncommitted changes.

    The URL that it came from is recorded without user name, password and query.

    Args:
        patch: the file for the changes of tracked files, for `git apply`. There is none where there are no changes, or
            where they have more than MAX_PATCH bytes.
        folder: a folder of the checkout; None for the one with this code, or else with the current folder.

    Returns:
        None outside a checkout.

    Raises:
        OSError: the file cannot be written.
    """
    patch.unlink(missing_ok=True)
    here = Path(__file__)
    tracked = folder or _git("ls-files", "--error-unmatch", here.name, folder=here.parent) is not None
    top = _git("rev-parse", "--show-toplevel", folder=folder or (here.parent if tracked else Path.cwd()))
    commit = top and _git("rev-parse", "HEAD", folder=Path(top))
    if not top or not commit:
        return None
    folder = Path(top)
    state: GitState = {"commit": commit, "changed": bool(_git("status", "--porcelain", folder=folder))}
    if origin := _git("remote", "get-url", "origin", folder=folder):
        state["origin"] = without_credentials(origin)
    steps = [f"git clone {shlex.quote(state.get('origin', 'URL'))} source", f"git -C source checkout {commit}"]
    if state["changed"]:
        changes = _changes(folder)
        if len(changes) > MAX_PATCH:
            state["left_out"] = f"changes of more than {MAX_PATCH:,} bytes"
        elif changes:
            with atomic_write(patch) as partial:
                partial.write_bytes(changes)
            steps.append(f"git -C source apply {shlex.quote(str(patch.absolute()))}")
        if untracked := (_git("ls-files", "--others", "--exclude-standard", folder=folder) or "").splitlines():
            state["untracked"] = untracked[:MAX_UNTRACKED] + ["..."] * (len(untracked) > MAX_UNTRACKED)
    state["restore"] = " && ".join(steps)
    return state


def without_credentials(url: str) -> str:
    """Return a URL without user name, password and query; other addresses, such as git@host:path, as they are."""
    return re.sub(r"^(\w[\w+.-]*://)([^/]*@)?([^?#]*).*", r"\1\3", url)


def _changes(folder: Path) -> bytes:
    """Return the changes of tracked files since the commit, at most MAX_PATCH bytes and one more."""
    # `git apply` understands a patch in git's own form alone, which the user's settings may change.
    settings = ("-c", "diff.noprefix=false", "-c", "diff.mnemonicPrefix=false")
    form = ("--binary", "--no-color", "--no-ext-diff", "--no-textconv")
    command = ["git", "-C", str(folder), *settings, "diff", "HEAD", *form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        changes = process.stdout.read(MAX_PATCH + 1)
        process.kill()  # of a longer diff the rest
    return changes


def _git(*arguments: str, folder: Path) -> str | None:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
