"""Settings have short names, and those that are read from the data may stay open on resume."""

import pytest
from omegaconf import OmegaConf

from mnist_lab.config.compose import compose
from mnist_lab.config.settings import short_names
from mnist_lab.config.validate import validate
from mnist_lab.errors import UsageError


def test_short_name_is_the_last_part_where_no_other_key_has_it() -> None:
    keys = ["optimizer.lr", "scheduler.lr", "trainer.max_epochs", "seed"]
    assert list(short_names(keys).values()) == ["optimizer.lr", "scheduler.lr", "max_epochs", "seed"]


def test_settings_that_the_run_has_read_from_its_data_do_not_count_as_changed() -> None:
    cfg = compose("data=image_folder", "data.source.path=x")
    resumed = cfg.copy()
    OmegaConf.update(resumed, "data.source.classes", ["a", "b"], force_add=True)
    assert validate(cfg, resumed) == []
    OmegaConf.update(cfg, "data.source.classes", ["a", "c"], force_add=True)
    with pytest.raises(UsageError, match=r"^data\.source\.classes=\['a', 'c'\]: cannot change on resume"):
        validate(cfg, resumed)
