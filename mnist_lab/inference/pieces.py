"""Arrays of brightness taken apart: what is brightest around, which level parts two groups, what hangs together."""

from __future__ import annotations
