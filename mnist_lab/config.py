"""How a configuration is composed, and every problem of one told at once, before any work."""

from __future__ import annotations

import contextlib
import copy
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from mnist_lab import conf_dir
from mnist_lab.errors import BadInput, told_in_one_line


# A sweep's folders are named by their overrides; what a file system could not take becomes an underscore.
OmegaConf.register_new_resolver("file_name", lambda name: re.sub(r"[^\w.,=+-]", "_", name)[:150], replace=True)


def compose(*overrides: str, config_dir: str | None = None) -> DictConfig:
    """The main job's configuration for these overrides, in Python and notebooks; its run folder is a new one.

    config_dir adds a folder of your own, as --config-dir does.
    """
    search = [f"hydra.searchpath=[file://{Path(config_dir).absolute()}]"] if config_dir else []
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3", job_name="train"):
        return job_config(hydra.compose("train", [*overrides, *search], return_hydra_config=True))


def job_config(config: DictConfig) -> DictConfig:
    """What a job gets of Hydra's whole configuration, resolved, with the run folder that Hydra would give it."""
    config = copy.deepcopy(config)
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
    instance = HydraConfig.instance()
    before = instance.cfg
    instance.set_config(config)
    try:
        with open_dict(config):
            del config["hydra"]
        OmegaConf.resolve(config)
    finally:
        instance.cfg = before
    return config


def callbacks_of(cfg: DictConfig) -> dict[str, DictConfig]:
    """The callbacks that are switched on; without validation images there is no best checkpoint to keep."""
    without = {"best"} if OmegaConf.select(cfg, "data.val_size") == 0 else set()
    return {str(name): node for name, node in cfg.callbacks.items() if node and name not in without}


class CheckBeforeRun(Callback):
    """Refuses a bad configuration or output folder before Hydra makes anything."""

    made: ClassVar[list[Path]] = []

    @classmethod
    def take_back(cls) -> None:
        """Remove the folders made for a run that was refused after all, as far as they are empty."""
        for folder in cls.made:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        with told_in_one_line():
            try:
                cfg = job_config(config)
            except OmegaConfBaseException as error:
                raise BadInput(str(error)) from error
            check(cfg)
            self._make(config.hydra.run.dir, "hydra.run.dir")

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with told_in_one_line():
            self._make(config.hydra.sweep.dir, "hydra.sweep.dir")

    def _make(self, name: str, key: str) -> None:
        folder = Path(name).absolute()
        self.made.extend(path for path in (folder, *folder.parents) if not path.exists())
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"{key}={name}: cannot be made ({error.strerror}); choose another runs_dir") from error


def check(cfg: DictConfig) -> None:
    """Raise BadInput with every problem of a job's configuration.

    Types and ranges are those of the constructors' signatures; LIMITS has those that torch and Lightning leave open.
    """
    problems = [*_signature_problems(cfg, ""), *_machine_problems(cfg), *_monitor_problems(cfg)]
    if problems:
        start = f"{len(problems)} problems in the configuration:\n  " if len(problems) > 1 else ""
        raise BadInput(start + "\n  ".join(problems))


def _limits() -> dict[str, Any]:
    from pydantic import Field

    positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
    not_negative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
    fraction = Annotated[float, Field(ge=0, lt=1)]
    count = Annotated[int, Field(ge=1)]
    return {
        "seed": Annotated[int, Field(ge=0, lt=2**32)],
        "resume": str | None,
        "init_from": str | None,
        "runs_dir": str,
        "name": str,
        "folder": str,
        "optimizer.lr": positive,
        "optimizer.momentum": fraction,
        "optimizer.weight_decay": not_negative,
        "optimizer.betas": tuple[fraction, fraction],
        "scheduler.max_lr": positive,
        "scheduler.gamma": positive,
        "scheduler.step_size": count,
        "trainer.max_epochs": Annotated[int, Field(ge=0)],
        "trainer.max_steps": Annotated[int, Field(ge=-1)],
        "trainer.log_every_n_steps": count,
        "trainer.accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
    }


def _signature_problems(node: DictConfig, path: str) -> Iterator[str]:
    """Unknown, ill-typed and out-of-range settings of a node and of those below it."""
    parameters: dict[str, Any] | None = None
    if "_target_" in node:
        module, _, name = str(node._target_).rpartition(".")
        try:
            target = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            yield f"{path}_target_={node._target_}: cannot be imported ({error})"
            return
        parameters = _parameters(target)
    for name, value in node.items():
        key = f"{path}{name}"
        if str(name) in ("_target_", "_partial_", "_recursive_", "_convert_", "_args_"):
            continue
        if parameters is not None and name not in parameters and "**" not in parameters:
            known = ", ".join(known for known in parameters if known != "params")
            yield f"{key}={value}: {node._target_.rsplit('.', 1)[-1]} has no such setting; it has {known}"
        elif isinstance(value, DictConfig) and ("_target_" in value or parameters is None):
            yield from _signature_problems(value, f"{key}.")
        else:
            annotation = _limits().get(key, (parameters or {}).get(str(name), Any))
            yield from _type_problems(key, value, annotation)


def _parameters(target: Callable[..., Any]) -> dict[str, Any]:
    """A constructor's parameters and their annotations; "**" among them where it takes any."""
    parameters = inspect.signature(target).parameters.values()
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can resolve
        hints = {}
    return {"**" if p.kind is p.VAR_KEYWORD else p.name: hints.get(p.name, Any) for p in parameters}


def _type_problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    from pydantic import ConfigDict, TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    try:
        adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, arbitrary_types_allowed=True))
    except (PydanticUserError, TypeError, NameError):  # a type that pydantic does not know is its owner's to check
        return
    try:
        # JSON has one kind of list, as YAML has: it may stand for a tuple
        adapter.validate_python(tuple(value) if isinstance(value, list) and "tuple" in str(annotation) else value)
    except ValidationError as error:
        messages = dict.fromkeys(problem["msg"] for problem in error.errors())
        yield f"{key}={value}: {', or '.join(message[0].lower() + message[1:] for message in messages)}"


def _machine_problems(cfg: DictConfig) -> Iterator[str]:
    import torch

    accelerator = OmegaConf.select(cfg, "trainer.accelerator")
    if accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
        if accelerator == "gpu" and torch.backends.mps.is_available():
            return
        yield (
            f"trainer.accelerator={accelerator}: torch finds no GPU on this machine; "
            "use trainer.accelerator=cpu, or auto for what there is"
        )


def _monitor_problems(cfg: DictConfig) -> Iterator[str]:
    logged = ["train/loss", "train/acc", "lr", "images_per_second"]
    if OmegaConf.select(cfg, "data.val_size") != 0:
        logged = ["val/loss", "val/acc", *logged]
    for name, node in callbacks_of(cfg).items():
        monitor = node.get("monitor")
        if monitor is not None and monitor not in logged:
            yield f"callbacks.{name}.monitor={monitor}: not logged; there are {', '.join(logged)}"
