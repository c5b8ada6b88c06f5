"""Parts of benchmarks/fuzz.py: hostile records and archives."""

import hashlib
import json
import random
import warnings
import zipfile
from pathlib import Path
from typing import Any

from benchmarks.fuzz_files import random_place
from mnist_lab.runs.archive import MANIFEST
from mnist_lab.runs.record import RunState
from mnist_lab.runs.sweep import Job, Sweep, write_job

PATHS = ["../x", "/tmp/x", "..", "", ".", "a\0b", "x" * 5000, "~", "C:\\x", "\udce9", "-rf", "a/../../x", "\x1b[2J"]
NUMBERS: list[Any] = [10**400, -(10**30), 1e308, 5e-324, float("nan"), float("inf"), 2**63, -1, 0, True]
DATES = ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-11-21", "1e9", "2026-13-01"]


def hostile_value(chance: random.Random) -> Any:
    """Make a path, an extreme number, a date, or something large or nested."""
    kind = chance.randrange(6)
    if kind == 0:
        depth = chance.choice([10, 200, 900])
        return json.loads("[" * depth + "]" * depth)
    if kind == 1:
        return chance.choice([[1] * 100_000, {str(i): {} for i in range(60_000)}, "x" * 3_000_000, [[]] * 100_000])
    return chance.choice([*PATHS, *NUMBERS, *DATES])


def hostile_records(chance: random.Random, run: Path) -> list[list[str]]:
    """Make the run a sweep's job, and change entries of one of their records."""
    sweep, job = Path("runs/sweeps/s"), Path("runs/sweeps/s/seed=0-0123456789ab")
    Sweep.open(sweep, "-m sweep=s", ["seed"], {"0123456789ab": ("model=mlp", "seed=0")})
    run.rename(job)
    write_job(Job(("model=mlp", "seed=0"), job, RunState.FINISHED, 1))
    (job / "annotations.json").write_text('{"tags": ["a"], "note": "b"}')
    (sweep / "results.json").write_text('{"best": {"folders": ["x"]}}')
    removed = Path("runs/.trash/e/d")
    removed.mkdir(parents=True)
    (removed / "run.json").write_text('{"status": "finished"}')
    records = [job / name for name in ("run.json", "annotations.json", "job.json")]
    path = chance.choice([*records, sweep / "sweep.json", sweep / "results.json", removed / "run.json"])
    content = json.loads(path.read_text())
    for _ in range(chance.choice([1, 1, 3])):
        place, key = random_place(content, chance)
        place[key] = hostile_value(chance)
        if isinstance(place, dict) and chance.random() < 0.2:
            place[chance.choice([path for path in PATHS if path])] = place.pop(key)
    path.write_text(json.dumps(content))
    longer = [["report", str(sweep)], ["report", str(job)], ["archive", "runs", "x.zip"], ["rm", str(job), "--force"]]
    longer += [["export", str(job), "--format", "state_dict"], ["test", str(job)], [f"resume={job}"], ["restore", "d"]]
    quick = [["ls"], ["ls", "--sort", "time"], ["ls", "--csv"], ["compare", str(job), str(job)], ["restore"]]
    return [*chance.sample(quick, 2), ["status", str(sweep)], chance.choice(longer)]


def hostile_archive(chance: random.Random, run: Path) -> list[list[str]]:
    """Write an archive with odd names, duplicates, wrong checksums, a bomb or changed bytes, and unpack it."""
    names = [*PATHS, "a/run.json", "a/Run.json", "a/b/run.json", "a/run.json/x", ".trash/e/place.json", "a/.lock", "z"]
    names += ["sweeps/s/sweep.json", "a/" * chance.choice([3, 60, 3000]) + "x", "a/" + chance.choice(PATHS), MANIFEST]
    files = [("a/run.json", (run / "run.json").read_bytes())]
    for name in chance.sample(names, chance.randrange(4)):
        files.append((name, chance.choice([b"", b"{}", bytes(50_000_000)])))
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files}
    if chance.random() < 0.2:
        sums[chance.choice(list(sums))] = hostile_value(chance)
    manifest = json.dumps(sums) if chance.random() < 0.8 else json.dumps(hostile_value(chance))
    method = chance.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    with warnings.catch_warnings(), zipfile.ZipFile("x.zip", "w", method) as archive:
        warnings.simplefilter("ignore")  # A name may occur twice.
        for name, content in [*files, (MANIFEST, manifest.encode())]:
            entry = zipfile.ZipInfo(name.encode(errors="replace").decode())
            entry.compress_type, entry.external_attr = method, chance.choice([0o100644, 0o120777, 0o010644]) << 16
            archive.writestr(entry, content)
    packed = bytearray(Path("x.zip").read_bytes())
    for _ in range(chance.choice([0, 0, 1, 5])):
        packed[-chance.randrange(1, min(len(packed), 400))] = chance.randrange(256)
    Path("x.zip").write_bytes(packed)
    return [["unarchive", "x.zip", "--runs-dir", "new"], ["ls", "--runs-dir", "new"], ["ls"]]


PARTS = {"hostile_records": hostile_records, "hostile_archive": hostile_archive}
