"""Parts of benchmarks/fuzz.py: damaged checkpoints, event files, and files of a data set, plain and packed."""

import gzip
import hashlib
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mnist_lab.data.mnist_files import FILES, Source, parse

VALUES: list[Any] = [None, True, 0, -1, 1.5, float("nan"), 10**30, "x", "a\nb", [], {}, [1, 2], {"a": {"b": 1}}, {1: 2}]
TENSORS = [
    torch.zeros(0),
    torch.zeros(3, 3),
    torch.tensor(float("inf")),
    torch.zeros(2, dtype=torch.complex64),
    torch.zeros(2, device="meta"),
    torch.eye(2).to_sparse(),
]
ODD = [*VALUES, *TENSORS]


def damaged_checkpoint(chance: random.Random, run: Path) -> list[list[str]]:
    """Save last.ckpt or best.ckpt again with right checksums and a value changed, removed or put elsewhere."""
    path = run / "checkpoints" / chance.choice(["last.ckpt", "best.ckpt"])
    content: Any = torch.load(path, weights_only=True)
    places = list(places_in(content))
    for _ in range(chance.choice([1, 1, 1, 3])):
        place, key = chance.choice(places)
        kind = chance.randrange(4)
        if kind == 0 and isinstance(place, dict):
            place.pop(key, None)
        elif kind == 1 and isinstance(place, dict):
            place[chance.choice([7, "x", key])] = chance.choice(ODD)
        elif kind == 2 and isinstance(place, list) and place:
            place.append(place[0])
        else:
            place[key] = chance.choice(ODD)
    if chance.random() < 0.05:
        content = chance.choice([content["state_dict"], content["loops"], [content], {}, {"state_dict": content}])
    torch.save(content, path)
    name, resumed = str(run), [f"resume={run}", "trainer.max_epochs=2"]
    reading = [["test", name], ["report", name], ["export", name, "--format", "state_dict"], ["predict", name, "x"]]
    return [chance.choice([resumed, resumed, resumed, *reading])]


def damaged_events(chance: random.Random, run: Path) -> list[list[str]]:
    """Damage TensorBoard's event file, which a resumed run reads and continues."""
    (path, *_) = sorted(run.glob("events.out.tfevents.*"))
    path.write_bytes(damaged(path.read_bytes(), chance))
    return [[f"resume={run}", "trainer.max_epochs=2"]]


def read_damaged_idx(chance: random.Random) -> None:
    """Read a data set with one of its files damaged."""
    contents, name = data_set(), chance.choice(FILES)
    content = bytearray(contents[name])
    if chance.random() < 0.6:
        at = 4 * chance.randrange(4)
        content[at : at + 4] = chance.choice([0, 1, 28, 2**31, 2**32 - 1, 2**32 - 28, 0x803, 0x801]).to_bytes(4, "big")
    else:
        content = bytearray(damaged(bytes(content), chance))
    parse({**contents, name: content})


def read_damaged_gzip(chance: random.Random) -> None:
    """Load a data set in which one file is a damaged gzip file."""
    contents, name = data_set(), chance.choice(FILES)
    packed = gzip.compress(contents[name])
    if chance.random() < 0.1:
        packed = gzip.compress(bytes(1 << 20)) * 400  # The program decompresses less.
    with tempfile.TemporaryDirectory() as root:
        raw = Path(root) / "Tiny" / "raw"
        raw.mkdir(parents=True)
        for file, content in contents.items():
            (raw / file).write_bytes(content)
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(damaged(packed, chance))
        sums = {file: hashlib.sha256(content).hexdigest() for file, content in contents.items()}
        Source(name="Tiny", sha256=sums, mirrors=[]).load(root, download=False)


def data_set() -> dict[str, bytes]:
    """Make the four files of a data set of 20 blank images each."""
    images = np.array([0x803, 20, 28, 28], ">i4").tobytes() + bytes(20 * 28 * 28)
    labels = np.array([0x801, 20], ">i4").tobytes() + bytes(20)
    return {name: images if "images" in name else labels for name in FILES}


def places_in(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every list and dict in a record or a checkpoint, with each of its keys."""
    if not isinstance(node, dict | list):
        return
    for key in keys_of(node)[:50]:
        yield node, key
        yield from places_in(node[key])


def random_place(record: Any, chance: random.Random) -> tuple[Any, Any]:
    """Return a list or dict in a record, with one of its keys."""
    place = record
    while True:
        key = chance.choice(keys_of(place))
        if not (isinstance(place[key], dict | list) and place[key] and chance.random() < 0.5):
            return place, key
        place = place[key]


def keys_of(node: Any) -> list[Any]:
    return list(node if isinstance(node, dict) else range(len(node)))


def damaged(content: bytes, chance: random.Random) -> bytes:
    """Return the content of a file with bytes changed, cut off or repeated."""
    changed = bytearray(content)
    kind = chance.randrange(4)
    if kind == 0:
        del changed[chance.randrange(len(changed)) :]
    elif kind == 1:
        start = chance.randrange(len(changed))
        changed[start:start] = changed[start : start + chance.randrange(1, 200)]
    else:
        for _ in range(chance.choice([1, 3, 20])):
            reach = chance.choice([32, len(changed)])
            changed[chance.randrange(min(reach, len(changed)))] = chance.randrange(256)
    return bytes(changed)


TRAINED = {"checkpoint": damaged_checkpoint, "events": damaged_events}  # Their commands train.
READ = {"idx": read_damaged_idx, "gz": read_damaged_gzip}
