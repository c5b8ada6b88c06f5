"""The lessons run from top to bottom with the answers of their exercises, and are committed with their outputs."""

import re
import shutil
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest
from lab import slow, thorough

CHECKOUT = Path(__file__).parent.parent
LESSONS = sorted((CHECKOUT / "notebooks").glob("*.ipynb"))
NUMBER = r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?"
of_each_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells for output in cell.get("outputs", [])]


def blocks(language: str, text: str) -> str:
    """Return the code blocks of a language, joined."""
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


def unfolded(text: str) -> dict[str, str]:
    """Return what unfolds below each summary."""
    return dict(re.findall(r"<details>\n<summary>(.*?)</summary>\n\n(.*?)\n\n</details>", text, re.DOTALL))


def numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(NUMBER, text)]


@pytest.mark.real_data
@pytest.mark.parametrize("path", [*slow(LESSONS[0]), *thorough(*LESSONS[1:])], ids=lambda path: path.stem)
def test_lesson_runs_with_its_answers_and_they_print_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nbclient import NotebookClient

    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    shutil.copytree(CHECKOUT / "results", tmp_path / "results")
    folder = tmp_path / "notebooks"
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    answers = []
    for exercise, cell in pairwise(notebook.cells):
        if "answer" in cell.metadata.get("tags", []):
            answer = unfolded(exercise.source)["Answer"]
            cell.source = blocks("python", answer)
            answers.append((cell, blocks("text", answer)))
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    assert [output.text for output in outputs(notebook) if output.get("name") == "stderr"] == []
    for cell, shown in answers:
        printed = "".join(output.text for output in cell.outputs if output.output_type == "stream")
        if shown or printed:
            assert re.sub(NUMBER, "", printed).split() == re.sub(NUMBER, "", shown).split()
            assert numbers(printed) == pytest.approx(numbers(shown), rel=0.05, abs=0.02)


@of_each_lesson
def test_every_section_asks_a_question_that_has_one_right_choice(path: Path) -> None:
    text = "\n\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    _, *sections, summary = re.split(r"^## ", text, flags=re.MULTILINE)
    assert len(sections) >= 4 and summary.startswith("What you have learnt")
    for section in sections:
        choices = unfolded(section.split("**Question.**")[1])
        assert [choice[:2] for choice in choices] == ["A.", "B.", "C.", "D."][: len(choices)]
        verdicts = sorted(reason.split()[0] for reason in choices.values())
        assert verdicts == ["**Right.**", *["**Wrong.**"] * (len(choices) - 1)]


@of_each_lesson
def test_every_exercise_has_a_hint_an_answer_and_a_cell_for_ones_own(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    exercises = [(cell, after) for cell, after in pairwise(notebook.cells) if "### Exercise" in cell.source]
    assert 3 <= len(exercises) <= 5
    for cell, after in exercises:
        assert [name.partition(" ")[0] for name in unfolded(cell.source)][-1:] == ["Answer"] and "Hint" in cell.source
        assert after.source == "# Your code" and after.metadata.tags == ["answer"] and after.outputs == []


@of_each_lesson
def test_committed_lesson_is_small_and_shows_its_pictures_and_no_folder_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 450_000
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    for output in outputs(notebook):
        words = str(output.get("text", "")) + str(output.get("data", {}).get("text/plain", ""))
        assert not re.search(r"(^|[\s\"'])/\w+/", words), words
