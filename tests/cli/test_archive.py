"""An archive gives back what went in, bit for bit, or nothing."""

import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lab import Outcome, Tiny, thorough
from test_ls import fake, names

from mnist_lab.runs.archive import MANIFEST
from mnist_lab.runs.locks import run_lock

Lab = Callable[..., Outcome]


@pytest.fixture
def lab(tiny: Tiny, command: Callable[..., Outcome]) -> Lab:
    """Runs a, b and sweeps/s/c; and the command, without the tiny data's settings."""
    for number, name in enumerate(("a", "b", "sweeps/s/c")):
        fake(name, number)
        (Path("runs") / name / "checkpoints" / "best.ckpt").write_bytes(random.Random(number).randbytes(300_000))
    (Path("runs/a/.lock")).touch()
    return lambda *arguments: command(*arguments, data=False)


def content(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: value for name, value in found.items() if not name.endswith(".lock")}


def test_archive_gives_back_the_runs_in_their_places(lab: Lab) -> None:
    outcome = lab("archive", "a", "runs/sweeps", "out/two.zip")
    assert (outcome.status, outcome.out) == (0, "written: out/two.zip (2 runs, 10 files, 0.6 MB)\n"), outcome.err
    unpacked = lab("unarchive", "out/two.zip", "--runs-dir", "elsewhere")
    assert unpacked.out == "unpacked: elsewhere/a\nunpacked: elsewhere/sweeps/s/c\n"
    assert content(Path("elsewhere")) == {
        name: value for name, value in content(Path("runs")).items() if not name.startswith("b/")
    }
    assert names(lab("ls", "--runs-dir", "elsewhere")) == ["a", "c"]
    assert not list(Path("elsewhere").glob(".*"))


def test_runs_that_are_there_are_not_overwritten(lab: Lab) -> None:
    lab("archive", "a", "sweeps/s/c", "all.zip")
    lab("rm", "a")
    outcome = lab("unarchive", "all.zip")
    assert (outcome.status, "runs/sweeps/s/c: is there already" in outcome.err) == (2, True)
    assert not Path("runs/a").exists()


@pytest.mark.parametrize("number", [*range(3), *thorough(*range(3, 12))])
def test_damaged_archive_is_refused_in_one_line_and_leaves_nothing(lab: Lab, number: int) -> None:
    lab("archive", "a", "b", "x.zip")
    whole, chance = bytearray(Path("x.zip").read_bytes()), random.Random(number)
    if number % 4 == 0:
        del whole[chance.randrange(len(whole)) :]
    else:
        for _ in range(3):
            whole[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
    Path("x.zip").write_bytes(whole)
    outcome = lab("unarchive", "x.zip", "--runs-dir", "new")
    if outcome.status == 0:  # what was changed means nothing, such as a date
        assert content(Path("new/a")) == content(Path("runs/a"))
        return
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith("mnist_lab: x.zip: ")
    assert not Path("new").exists() or not list(Path("new").iterdir())


OUTSIDE = ["/no-such-folder/run.json", "../x/run.json", "a/../../x/run.json", "c:/x/run.json", "..\\x/run.json"]


@pytest.mark.parametrize("name", [*OUTSIDE, "run.json"])
def test_paths_outside_the_folder_are_refused(lab: Lab, name: str) -> None:
    with zipfile.ZipFile("evil.zip", "w") as archive:
        archive.writestr(name, "{}")
        archive.writestr(MANIFEST, json.dumps({name: hashlib.sha256(b"{}").hexdigest()}))
    outcome = lab("unarchive", "evil.zip")
    assert (outcome.status, "is no path of a run" in outcome.err) == (2, True)
    assert not Path("../x").exists() and not Path("/no-such-folder").exists()


def test_files_beyond_the_manifest_are_refused(lab: Lab) -> None:
    lab("archive", "a", "x.zip")
    with zipfile.ZipFile("x.zip", "a") as archive:
        archive.writestr("a/more.txt", "x")
    outcome = lab("unarchive", "x.zip", "--runs-dir", "new")
    assert (outcome.status, f"{MANIFEST} names other files than it has" in outcome.err) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["archive", "a"], "a: name the file to write last; it ends in .zip"),
        (["archive", "nowhere", "x.zip"], "nowhere: run folder not found"),
        (["archive", "a", "runs/a/run.json/x.zip"], "runs/a/run.json/x.zip: cannot be written"),
        (["unarchive", "none.zip"], "none.zip: cannot be unpacked into runs (none.zip: No such file or directory)"),
        (["unarchive", "runs/a/run.json"], "runs/a/run.json: damaged, or not an archive of runs"),
    ],
)
def test_wrong_arguments_are_told_in_one_line(lab: Lab, arguments: list[str], told: str) -> None:
    outcome = lab(*arguments)
    assert (outcome.status, outcome.err.count("\n")) == (2, 1), outcome.err
    assert outcome.err.startswith(f"mnist_lab: {told}")


def test_run_in_use_is_not_archived(lab: Lab) -> None:
    with run_lock(Path("runs/a")):
        outcome = lab("archive", "a", "x.zip")
    assert (outcome.status, "runs/a: is in use by process" in outcome.err, Path("x.zip").exists()) == (2, True, False)
