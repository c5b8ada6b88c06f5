"""`presets` lists the purpose and the accuracy of each preset, and copies one for the user to change."""

import json

from lab import Command, Tiny

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


def test_copy_has_the_presets_settings_and_is_listed(tiny: Tiny, lab: Command) -> None:
    outcome = lab("presets", "cp", "champion", "mine")
    assert "mine/experiment/my_champion.yaml" in outcome.out
    assert outcome.out.endswith("python -m mnist_lab --config-dir mine experiment=my_champion\n")
    assert lab("presets", "cp", "champion", "mine").status == 2, "it exists"
    copied = compose("experiment=my_champion", config_dir="mine")
    assert not format_differences(compose("experiment=champion"), copied)
    listed = lab("presets", "--config-dir", "mine").out.splitlines()
    assert any(line.split()[0] == "my_champion" and "A copy of champion." in line for line in listed)
