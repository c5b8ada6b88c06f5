"""`python -m mnist_lab test RUN`: a run's weights on the test set once more, from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mnist_lab.arguments import Arguments, run_of
from mnist_lab.build import make_data, make_model, quiet_lightning
from mnist_lab.check import check
from mnist_lab.checkpoints import weights_for
from mnist_lab.errors import BadInput
from mnist_lab.runs import Run


@quiet_lightning()
def evaluate(run: Run, overrides: Sequence[str] = ()) -> dict[str, float]:
    """test/loss and test/acc of a run's best weights, or of its last if it had no validation set.

    Args:
        run: the run.
        overrides: changes to its configuration, such as data.root=FOLDER or trainer.accelerator=cpu.

    Raises:
        BadInput: the run has no checkpoint, or a changed setting is none or has a bad value.
    """
    chosen = run.chosen_checkpoint()
    cfg = run.config
    OmegaConf.set_struct(cfg, True)
    try:
        cfg.merge_with_dotlist(list(overrides))
    except (OmegaConfBaseException, ValueError) as error:
        raise BadInput(f"{' '.join(overrides)}: {str(error).splitlines()[0]}") from error
    check(cfg)
    model = make_model(cfg)
    model.load_state_dict(weights_for(model, chosen))
    trainer = pl.Trainer(
        accelerator=cfg.trainer.accelerator,
        devices=1,
        precision=cfg.trainer.precision,
        limit_test_batches=cfg.trainer.limit_test_batches,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    (tested,) = trainer.test(model, make_data(cfg, model), verbose=False)
    return dict(tested)


def main(arguments: list[str]) -> None:
    parser = Arguments("test", __doc__)
    parser.add_run()
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help="changes to its configuration")
    options = parser.parse_args(arguments)
    run = run_of(options)
    tested = evaluate(run, options.overrides)
    print(f"test/loss {tested['test/loss']!r}  test/acc {tested['test/acc']!r}\nrun folder: {run}")
