"""`python -m mnist_lab lr [KEY=VALUE ...]`: find a learning rate to try, by a range test on training batches."""

import json
import sys
from pathlib import Path

from mnist_lab.cli.parser import CommandParser
from mnist_lab.console import working_on
from mnist_lab.formatting import format_command, print_lines
from mnist_lab.sweeps.process import import_torch
from mnist_lab.viz.save import require_figure_path, write_figure


def main(arguments: list[str]) -> None:
    parser = CommandParser("lr")
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="settings, as for train")
    default = "(default: %(default)s)"
    parser.add_argument("--lowest", type=float, default=1e-5, metavar="LR", help=f"the first rate {default}")
    parser.add_argument("--highest", type=float, default=10.0, metavar="LR", help=f"the last rate {default}")
    parser.add_argument("--steps", type=int, default=300, metavar="N", help=f"the number of batches {default}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="plot the loss over the rate into this file")
    parser.add_argument("--config-dir", help="a folder with your own configuration")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    options = parser.parse_intermixed_args(arguments)
    if options.out:
        require_figure_path(options.out)
    from mnist_lab.config.compose import compose, config_options

    cfg = compose(*options.overrides, config_dir=options.config_dir)
    import_torch(task := f"training {cfg.name} for {options.steps} steps with rising learning rates")
    from mnist_lab.training.lr_range import range_test
    from mnist_lab.training.runtime import quiet_lightning

    with quiet_lightning(), working_on(task):
        result = range_test(cfg, options.lowest, options.highest, options.steps)
    if options.json:
        values = {"steepest": result.steepest, "valley": result.valley, "lr": result.rates, "loss": result.losses}
        print_lines(json.dumps(values))
    else:
        config = config_options(options.config_dir)
        command = format_command([*config, *options.overrides, f"optimizer.lr={result.valley:.2g}"])
        print_lines(f"steepest descent: {result.steepest:.2g}", f"valley: {result.valley:.2g}")
        print_lines(f"to train with the valley: {command}")
    if options.out:
        from mnist_lab.viz.curves import plot_range_test

        optimizer = cfg.optimizer._target_.rsplit(".", 1)[-1]
        write_figure(plot_range_test(result, f"{cfg.name}, {optimizer}"), options.out, f"--out={options.out}")
        print_lines(f"figure: {options.out}", file=sys.stderr if options.json else sys.stdout)
