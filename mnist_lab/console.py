"""The console of rich for all that needs it: progress, tables with boxes. What else prints does without its import."""

from typing import Any

from rich.console import Console
from rich.text import Text

from mnist_lab.formatting import printable


class PlainConsole(Console):
    """A console that prints text as it is, without markup, emoji and highlighting, and escaped."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)
