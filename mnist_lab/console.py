"""Print progress with rich. Other modules print without it, since its import takes time."""

from typing import Any

from rich.console import Console
from rich.status import Status
from rich.text import Text

from mnist_lab.formatting import printable


class PlainConsole(Console):
    """A console that prints text escaped, and without markup, emoji and highlighting."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        return super().render_str(printable(text), **settings)


console = PlainConsole()


def working_on(task: str) -> Status:
    """Show a task in a terminal while the block runs, also while it imports torch, which takes seconds."""
    return console.status(console.render_str(f"{task} ...", style="dim"), spinner="line")
