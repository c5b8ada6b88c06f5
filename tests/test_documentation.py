"""README and docs: their commands run on tiny data, and their refusals read as shown."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from lab import Command, Tiny, thorough, write_files_of_guide
from test_digits import drawn
from test_image_folder import write_shapes

from mnist_lab.cli.commands import COMMANDS as CLI
from mnist_lab.models import MLP, SimpleCNN

CHECKOUT = Path(__file__).parent.parent
PAGES = sorted([CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *(CHECKOUT / "docs").rglob("*.md")])
# Commands with these parts are not run here: they need a GPU, an extra, a cluster or the real data, start processes,
# serve until they are stopped, or remove what other commands need. Most of them have tests of their own.
NOT_RUN = (
    *("accelerator=gpu", "trainer=ddp", "submitit", "launcher=ray", "launcher=processes"),
    *(" data ", " draw ", " rm ", " restore ", " lr ", " reproduce ", "logger=mlflow", "mlflow]", "logger=wandb"),
    *("data=fashion_mnist", "data=emnist", "experiment="),
)


def shown_commands() -> dict[str, str]:
    """Return each `python -m mnist_lab` in a code block, with the output that is shown below it."""
    shown: dict[str, str] = {}
    for page in PAGES:
        text = re.sub(r" \\\n +", " ", page.read_text(encoding="utf-8"))  # a command, a line
        for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            session = re.split(r"^\$ ", block, flags=re.MULTILINE)
            for part in session if len(session) > 1 else block.splitlines():
                line, _, printed = part.partition("\n")
                command = re.match(r"(python -m mnist_lab\b.*?)(?:\s+#.*)?$", line)
                if command:
                    shown.setdefault(command[1], printed.strip("\n"))
    return shown


COMMANDS = shown_commands()
REFUSED = {line: printed for line, printed in COMMANDS.items() if printed.startswith("mnist_lab: ")}
RUN = [line for line in COMMANDS if line not in REFUSED and not any(part in f"{line} " for part in NOT_RUN)]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("line", REFUSED)
def test_refusal_reads_as_shown(command: Command, line: str) -> None:
    outcome = command(*shlex.split(line)[3:], data=False)
    assert (outcome.status, outcome.err.strip()) == (2, REFUSED[line])


@pytest.mark.slow
@pytest.mark.parametrize("shown", [[line for line in RUN if line in README], *thorough(RUN)], ids=["README", "all"])
def test_commands_shown_run_on_tiny_data(command: Command, tiny: Tiny, shown: list[str]) -> None:
    assert len(shown) > 15
    write_what_they_name(tiny)
    for line in ("python -m mnist_lab model=mlp", "python -m mnist_lab model=mlp seed=1"):
        assert command(*shlex.split(line)[3:]).status == 0
    runs = [str(path.parent) for path in sorted(Path("runs").rglob("run.json"))]
    for line in sorted(shown, key=lambda line: " runs/sweeps/" in line or " status " in line):  # Sweeps come first.
        words = [word for word in shlex.split(line)[3:] if word != "RUN..."]
        names = iter(runs)
        words = [word.replace("RUN", next(names)) if "RUN" in word else word for word in words]
        trains = not words or words[0] not in CLI
        if "hydra/sweeper=optuna" in words:
            words = [word for word in words if "n_trials" not in word] + ["hydra.sweeper.n_trials=1"]
        if {"data=image_folder", "data=arrays", "data=idx"} & set(words):
            outcome = command(*words, "trainer.max_epochs=1", data=False)
        elif "--config-dir" in words:
            outcome = command(*tiny.overrides, *words, data=False)
        else:
            outcome = command(*words, data=trains and not any(word.startswith("resume=") for word in words))
        assert outcome.status == 0, f"{line}\n{outcome.err}"


def write_what_they_name(tiny: Tiny) -> None:
    """Write the files that the commands name: images, weights, and the files of the guides to classes of one's own."""
    for name in ("photo.jpg", "scans/1.png", "photos/1.jpg"):
        Path(name).parent.mkdir(exist_ok=True)
        drawn().save(name)
    write_shapes(Path("shapes"))
    digits = np.column_stack((np.arange(40) % 4, np.arange(40 * 784).astype(np.uint8).reshape(40, 784)))
    names = ",".join(("label", *(f"pixel{i}" for i in range(784))))
    np.savetxt("train.csv", digits, "%d", ",", header=names, comments="")
    shutil.copytree(tiny.raw, "digits")
    torch.save(SimpleCNN().state_dict(), "mnist_cnn.pt")
    torch.save(MLP().state_dict(), "mnist_mlp.pt")
    shutil.copytree(tiny.conf, "my_conf")
    for guide in ("own-network.md", "extend.md"):
        write_files_of_guide(guide)


def test_readme_is_one_page_whose_links_lead_to_files_and_whose_code_fits_on_github() -> None:
    """The build of the site checks the links of all other pages."""
    assert len(README.splitlines()) <= 150
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", README) + re.findall(r'src(?:set)?="([^"]+)"', README)
    assert links and [link for link in links if not (CHECKOUT / link).exists()] == []
    code = "".join(re.findall(r"^```.*?^```\n", README, re.MULTILINE | re.DOTALL))
    assert [line for line in code.splitlines() if len(line) > 98] == []


@pytest.mark.parametrize("guide", sorted((CHECKOUT / "docs" / "guides").glob("*.md")), ids=lambda guide: guide.stem)
def test_each_guide_has_a_picture_that_the_script_makes_with_a_text_in_its_place(guide: Path) -> None:
    pictures = re.findall(r"!\[(.*?)\]\(\.\./(pictures/\S+)\)", guide.read_text(encoding="utf-8"))
    script = (CHECKOUT / "docs" / "pictures.py").read_text(encoding="utf-8")
    assert pictures
    for text, name in pictures:
        path = CHECKOUT / "docs" / name
        assert len(text.split()) > 8 and f'"{path.stem}"' in script and path.stat().st_size <= 100_000
