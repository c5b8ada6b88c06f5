"""What the documentation says about the package's structure is true."""

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
EXPLANATION = CHECKOUT / "docs" / "explanation"


def test_picture_of_the_layout_shows_the_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXPLANATION)
    import layout

    drawn = layout.PICTURE.read_text(encoding="utf-8")
    assert drawn == layout.draw(), "python docs/explanation/layout.py draws it again"


@pytest.mark.parametrize(
    "place", re.findall(r"`(\w+(?:/\w+)*\.py: \w+)`", (EXPLANATION / "architecture.md").read_text(encoding="utf-8"))
)
def test_definition_that_the_architecture_page_names_exists(place: str) -> None:
    file, name = place.split(": ")
    text = (CHECKOUT / "mnist_lab" / file).read_text(encoding="utf-8")
    assert re.search(rf"^ *(def |class )?{name}\b(\(|:| =)", text, re.MULTILINE), place
