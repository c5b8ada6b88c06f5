"""Simulated power failures: they cut off a run's writes at any point and lose what was not synced.

A kill leaves all that a process wrote. A power failure leaves what was synced, and any part of the rest. `Recorder`
records every change below a folder while code runs in this process. `Recorder.disk_after` returns what the disk could
hold after a power failure at any of these changes, for each loss that POSIX allows. `python -m benchmarks.kills
--power-loss 300` resumes so many such disks and compares each with the undisturbed run.
"""

import os
import random
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Loss = Literal["none", "all", "data", "names", "some"]
LOSSES: tuple[Loss, ...] = ("none", "all", "data", "names", "some")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR
UNSUPPORTED = ("os.link", "os.symlink", "os.truncate")  # A run makes no such changes.


@dataclass(frozen=True)
class Change:
    """A change of a file or a folder.

    Attributes:
        kind: write (a file has new content), sync (of a file's content), names (entries of folders change together), or
            sync_folder.
        number: the number of the file or folder.
        content: the new content of the file, for write.
        entries: for names, of each entry the number of the folder, the name, and the number of the file or folder that
            it names, or None if it is removed.
    """

    kind: Literal["write", "sync", "names", "sync_folder"]
    number: int = 0
    content: bytes = b""
    entries: tuple[tuple[int, str, int | None], ...] = ()


@dataclass
class Recorder:
    """The changes that code in this process makes below a folder, in order.

    It reads the files before each change to see what was written meanwhile. Only one recorder can be active at a time.
    """

    folder: Path
    changes: list[Change] = field(default_factory=list)
    folders: set[int] = field(default_factory=lambda: {0})
    _names: dict[Path, int] = field(default_factory=dict)  # The numbers of the files and folders that exist.
    _seen: dict[int, bytes] = field(default_factory=dict)
    _stamps: dict[int, tuple[int, int]] = field(default_factory=dict)
    _lock: Any = field(default_factory=threading.RLock)
    _reader: int | None = None  # The thread that reads files for the recorder. Its own events do not count.

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the changes in the block."""
        global _active
        self.folder = self.folder.resolve()
        self._names[self.folder] = 0
        fsync = os.fsync

        def recorded_fsync(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            fsync(descriptor)
            self._note_sync(Path(f"/proc/self/fd/{number}").resolve())

        _active, os.fsync = self, recorded_fsync  # type: ignore[assignment]
        try:
            yield
        finally:
            _active, os.fsync = None, fsync
            with self._lock:
                self._look_at_files()

    def heed(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Record the change that an audit event of Python's announces."""
        if self._reader == threading.get_ident():
            return
        with self._lock:
            self._reader = threading.get_ident()
            try:
                change = self._change(event, arguments)
                if change is not None:
                    self._look_at_files()
                    change()
            finally:
                self._reader = None

    def _change(self, event: str, arguments: tuple[Any, ...]) -> Callable[[], None] | None:
        """Return a function that records the change of an event; None if it changes nothing here."""
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & WRITE_FLAGS) if isinstance(flags, int) else any(c in (mode or "r") for c in "wax+")
            place = self._place(path)
            if place is None or not writes:
                return None
            return lambda: self._note_open(place, empties=bool((flags or 0) & os.O_TRUNC))
        if event == "os.rename":
            source, target = self._place(arguments[0], arguments[2]), self._place(arguments[1], arguments[3])
            return None if source is None or target is None else lambda: self._note_rename(source, target)
        if event in ("os.remove", "os.rmdir"):
            place = self._place(*arguments)
            return (lambda: self._note_names((place, None))) if place in self._names else None
        if event == "os.mkdir":
            place = self._place(arguments[0], arguments[2])
            return None if place is None else lambda: self._note_folder(place)
        if event in UNSUPPORTED and any(self._place(path) for path in arguments[:2] if isinstance(path, str | Path)):
            raise NotImplementedError(f"{event} {arguments}")
        return None

    def _place(self, path: Any, folder: int = -1) -> Path | None:
        """Return the path that an event names, or None if it is not below the folder."""
        if isinstance(path, int):
            return None
        base = Path(f"/proc/self/fd/{folder}").resolve() if folder != -1 else Path.cwd()
        place = Path(os.path.normpath(base / os.fsdecode(path)))
        place = place.parent.resolve() / place.name
        return place if place.is_relative_to(self.folder) and place != self.folder else None

    def _look_at_files(self) -> None:
        for path, number in list(self._names.items()):
            if number in self.folders:
                continue
            try:
                status = path.stat()
                stamp = (status.st_mtime_ns, status.st_size)
                if not stat.S_ISREG(status.st_mode) or self._stamps.get(number) == stamp:
                    continue
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            self._stamps[number] = stamp
            if content != self._seen.get(number, b""):
                self._seen[number] = content
                self.changes.append(Change("write", number, content))

    def _note_open(self, place: Path, *, empties: bool) -> None:
        if place not in self._names and place.parent in self._names:
            self._note_names((place, self._new_number()))
        elif empties and self._seen.get(self._names.get(place, -1)):
            self.changes.append(Change("write", self._names[place], b""))
            self._seen[self._names[place]] = b""

    def _note_folder(self, place: Path) -> None:
        if place.parent in self._names and place not in self._names and not place.exists():
            number = self._new_number()
            self.folders.add(number)
            self._note_names((place, number))

    def _note_rename(self, source: Path, target: Path) -> None:
        if source in self._names:
            self._note_names((source, None), (target, self._names[source]))

    def _note_names(self, *entries: tuple[Path, int | None]) -> None:
        self.changes.append(
            Change("names", entries=tuple((self._names[place.parent], place.name, number) for place, number in entries))
        )
        for place, number in entries:
            if number is None:
                self._names.pop(place, None)
            else:
                self._names[place] = number

    def _note_sync(self, place: Path) -> None:
        with self._lock:
            self._reader = threading.get_ident()
            try:
                number = self._names.get(place)
                if number is not None:
                    self._look_at_files()
                    kind: Any = "sync_folder" if number in self.folders else "sync"
                    self.changes.append(Change(kind, number))
            finally:
                self._reader = None

    def _new_number(self) -> int:
        numbers = {0, *(entry[2] for change in self.changes for entry in change.entries if entry[2] is not None)}
        return max(numbers) + 1

    def disk_after(self, count: int, loss: Loss, chance: random.Random) -> dict[str, bytes | None]:
        """Return what a disk may hold when the power fails after `count` changes: contents by path, None for a folder.

        Args:
            count: the number of changes before the power failure.
            loss: what is lost of the changes that were not synced: none; all; data (files have their last synced
                content, or are empty); names; or some of both, drawn for each file and each group of names.
            chance: the generator that draws.
        """
        contents: dict[int, bytes] = {}
        synced: dict[int, bytes] = {}
        names: dict[tuple[int, str], int] = {}
        pending: list[tuple[tuple[int, str, int | None], ...]] = []
        for change in self.changes[:count]:
            if change.kind == "write":
                contents[change.number] = change.content
            elif change.kind == "sync":
                synced[change.number] = contents.get(change.number, b"")
            elif change.kind == "names":
                pending.append(change.entries)
            else:
                for entries in [entries for entries in pending if entries[0][0] == change.number]:
                    _apply(names, entries)
                    pending.remove(entries)
        for entries in pending:
            if loss in ("none", "data") or (loss == "some" and chance.random() < 0.5):
                _apply(names, entries)
        for number, content in contents.items():
            if synced.get(number) == content or loss in ("none", "names"):
                continue
            kept = synced.get(number, b"")
            if loss == "some":
                kept = chance.choice([content, kept, content[: chance.randint(0, len(content))]])
            contents[number] = kept
        return dict(self._tree(0, Path(), names, contents))

    def _tree(
        self, folder: int, path: Path, names: dict[tuple[int, str], int], contents: dict[int, bytes]
    ) -> Iterator[tuple[str, bytes | None]]:
        for (parent, name), number in names.items():
            if parent == folder:
                yield str(path / name), None if number in self.folders else contents.get(number, b"")
                if number in self.folders:
                    yield from self._tree(number, path / name, names, contents)


def _apply(names: dict[tuple[int, str], int], entries: tuple[tuple[int, str, int | None], ...]) -> None:
    for folder, name, number in entries:
        if number is None:
            names.pop((folder, name), None)
        else:
            names[folder, name] = number


def failures(changes: int, count: int, seed: int) -> list[tuple[int, Loss]]:
    """Draw moments and losses of power failures: the moments are spread evenly, each loss is as frequent."""
    chance = random.Random(seed)
    width = (changes + 1) / count
    moments = [min(int((i + chance.random()) * width), changes) for i in range(count)]
    return [(moment, LOSSES[i % len(LOSSES)]) for i, moment in enumerate(moments)]


def rebuild(tree: dict[str, bytes | None], folder: Path) -> None:
    """Write a tree of `Recorder.disk_after` below a folder."""
    folder.mkdir(parents=True)
    for name, content in tree.items():
        if content is None:
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content)


# Python never removes an audit hook. So one hook serves all recorders, and this names the one that records.
_active: Recorder | None = None
sys.addaudithook(lambda event, arguments: _active.heed(event, arguments) if _active else None)
