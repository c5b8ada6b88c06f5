"""Settings are named in short where that is clear."""

from mnist_lab.config.settings import short_names


def test_short_name_is_the_last_part_where_no_other_key_has_it() -> None:
    keys = ["optimizer.lr", "scheduler.lr", "trainer.max_epochs", "seed"]
    assert list(short_names(keys).values()) == ["optimizer.lr", "scheduler.lr", "max_epochs", "seed"]
