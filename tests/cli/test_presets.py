"""`presets` lists the purpose and the accuracy of each preset, and copies one for the user to change."""

import json

import pytest
from lab import Command, Tiny, thorough

from mnist_lab.config.compose import compose
from mnist_lab.config.presets import find_presets, preset_names
from mnist_lab.config.settings import format_differences


def test_every_preset_is_listed_with_what_it_is_for(tiny: Tiny, command: Command) -> None:
    head, *lines = command("presets", data=False).out.splitlines()
    assert head.split() == ["preset", "test", "accuracy", "seeds", "time", "for"]
    assert [line.split()[0] for line in lines] == preset_names()
    rows = json.loads(command("presets", "--json", data=False).out)
    assert all(row["for"] and "python" not in row["for"] and "#" not in row["for"] for row in rows)
    (mlp,) = (row for row in rows if row["preset"] == "mlp")
    assert mlp["for"] == '"MNIST With PyTorch" at its own settings'
    assert mlp.items() >= find_presets()[preset_names().index("mlp")].measured.items()


@pytest.mark.parametrize("name", ["champion", *thorough(*(name for name in preset_names() if name != "champion"))])
def test_copy_has_the_presets_settings_and_is_listed(tiny: Tiny, command: Command, name: str) -> None:
    outcome = command("presets", "cp", name, "mine", data=False)
    assert f"mine/experiment/my_{name}.yaml" in outcome.out
    assert outcome.out.endswith(f"python -m mnist_lab --config-dir mine experiment=my_{name}\n")
    assert command("presets", "cp", name, "mine", data=False).status == 2, "it exists"
    copied = compose(f"experiment=my_{name}", config_dir="mine")
    assert not format_differences(compose(f"experiment={name}"), copied)
    listed = command("presets", "--config-dir", "mine", data=False).out
    assert any(line.split()[0] == f"my_{name}" and f"A copy of {name}." in line for line in listed.splitlines())
