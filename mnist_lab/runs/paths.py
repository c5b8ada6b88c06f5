"""Paths of fixed names in run folders and sweep folders."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class _HasFolder(Protocol):
    @property
    def folder(self) -> Path: ...


class PathIn:
    """An attribute: the path of this name in the folder of the object that has the attribute."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, owner: _HasFolder, kind: type | None = None) -> Path:
        return owner.folder / self.name
