"""resume=RUN|latest|CHECKPOINT: the command line that goes on with a run, from what its folder says."""

from __future__ import annotations

import re
from pathlib import Path

from mnist_lab.errors import BadInput
from mnist_lab.runs import Run


def continued(arguments: list[str]) -> list[str]:
    """Hydra's arguments with a resumed run's own overrides before the new ones, its folder, and its checkpoint.

    Done before Hydra composes, since what is composed follows from it. Without resume= they stay as they are; done
    twice, as in the processes that Lightning starts for ddp, the outcome is the same.
    """
    settings: dict[str, str] = {}
    options = []
    for argument in arguments:
        key = re.match(r"[+~]*([\w./@:]+)(?==|$)", argument)
        follows_option = options and options[-1].startswith("-") and "=" not in argument
        if key and not follows_option and not argument.startswith("-"):
            settings[key[1]] = argument
        else:
            options.append(argument)
    wanted = settings.pop("resume", "=").split("=", 1)[1].strip("'\"")
    if wanted in ("", "null"):
        return arguments
    if {"-m", "--multirun"} & set(options):
        raise BadInput(f"resume={wanted}: one run at a time; leave out -m")
    runs_dir = settings.get("runs_dir", "=runs").split("=", 1)[1]
    run, checkpoint = _found(wanted, runs_dir)
    info = run.info
    saved = {re.split(r"=", override.lstrip("+~"), maxsplit=1)[0]: override for override in info.get("overrides", [])}
    if info.get("config_dir") and not {"--config-dir", "-cd"} & {option.split("=")[0] for option in options}:
        options += ["--config-dir", info["config_dir"]]
    merged = saved | settings | {"hydra.run.dir": f"hydra.run.dir={_quoted(run.folder)}"}
    return [*options, *merged.values(), f"resume={_quoted(checkpoint)}"]


def _found(wanted: str, runs_dir: str) -> tuple[Run, Path]:
    """The run, and the checkpoint in it, that a value of resume means."""
    try:
        if wanted != "latest" and (Path(wanted).is_file() or wanted.endswith(".ckpt")):
            if not Path(wanted).is_file():
                raise BadInput(f"{wanted}: no such checkpoint")
            return Run.of_checkpoint(Path(wanted)), Path(wanted).absolute()
        run = Run.find(wanted, runs_dir)
    except BadInput as error:
        message = str(error)
        raise BadInput(message if message.startswith("resume=") else f"resume={message}") from error
    checkpoint = run.checkpoint("last")
    if checkpoint is None:
        raise BadInput(f"resume={wanted}: {run.folder} has no checkpoint yet; start it anew: {run.info.get('command')}")
    return run, checkpoint.absolute()


def _quoted(path: Path) -> str:
    """A path as a string in Hydra's grammar, whatever characters it has."""
    return "'" + str(path.absolute()).replace("\\", "\\\\").replace("'", "\\'") + "'"
