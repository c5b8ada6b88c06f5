"""`python -m mnist_lab test RUN`: a run's weights on the test set once more, from its folder alone."""

from __future__ import annotations

from mnist_lab.arguments import Arguments, run_of


def main(arguments: list[str]) -> None:
    parser = Arguments("test", __doc__)
    parser.add_run()
    parser.add_argument("overrides", metavar="KEY=VALUE", nargs="*", default=[], help="changes to its configuration")
    options = parser.parse_args(arguments)
    run = run_of(options)
    from mnist_lab.evaluate import evaluate

    tested = evaluate(run, options.overrides)
    print(f"test/loss {tested['test/loss']!r}  test/acc {tested['test/acc']!r}\nrun folder: {run}")
