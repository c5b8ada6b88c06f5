"""Validate a configuration and report all problems together, before data are read or weights are made."""

import difflib
import inspect
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cache, partial
from typing import Annotated, Any, Literal, get_type_hints

import torch
from omegaconf import MISSING, DictConfig, OmegaConf, open_dict
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from torch.optim.lr_scheduler import ReduceLROnPlateau

from mnist_lab.config.distributed import launched_process, world_size_problems
from mnist_lab.config.keys import FIXED_ON_RESUME, OPTIONAL, OWN_ARGUMENTS, READ_FROM_DATA
from mnist_lab.config.metric_names import EPOCH_METRICS, METRIC_NAMES, direction
from mnist_lab.config.settings import flatten, is_list_of_nodes, require_environment, to_plain, walk
from mnist_lab.config.targets import find_class
from mnist_lab.errors import UsageError
from mnist_lab.formatting import format_value, shorten

PARTS = ("model", "data", "augmentation", "test_augmentation", "optimizer", "scheduler", "distillation")
GROUPS = (*PARTS, "trainer", "callbacks", "logger", "dashboard")
OF_HYDRA = ("_target_", "_partial_", "_recursive_", "_convert_", "_args_")  # hydra.utils.instantiate reads these.
_POSITIVE = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_FRACTION = Annotated[float, Field(ge=0, lt=1)]
_COUNT = Annotated[int, Field(ge=1)]
_SHARE = Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, le=1)] | None
# The types of keys without a signature, and the ranges that torch and Lightning do not check.
LIMITS: dict[str, Any] = {
    "seed": Annotated[int, Field(ge=0, lt=2**32)],
    "resume": str | None,
    "init_from": str | None,
    "label_smoothing": _FRACTION,
    "class_weights": Literal["balanced"] | list[_POSITIVE] | None,
    "steps_per_execution": _COUNT,
    "threads": _COUNT | None,
    "figures": bool,
    "sweep": str | None,
    "retries": Annotated[int, Field(ge=0)],
    "fail_fast": bool,
    "detach": bool,
    "tutorial": dict[str, Any] | None,
    "tutorial.explained_by": str | None,
    "tutorial.disagreements": list[str],
    "runs_dir": str,
    "name": str,
    "folder": str,
    "overrides": list[str],
    "config_dir": str | None,
    "config_name": str,
    "optimizer.lr": _POSITIVE,
    "optimizer.momentum": _FRACTION,
    "optimizer.weight_decay": Annotated[float, Field(ge=0, allow_inf_nan=False)],
    "optimizer.betas": tuple[_FRACTION, _FRACTION],
    "scheduler.max_lr": _POSITIVE,
    "scheduler.gamma": _POSITIVE,
    "scheduler.step_size": _COUNT,
    "scheduler.T_max": Annotated[int, Field(ge=0)],
    "scheduler.factor": Annotated[float, Field(gt=0, lt=1)],
    "scheduler.patience": Annotated[int, Field(ge=0)],
    "trainer.max_epochs": Annotated[int, Field(ge=0)],
    "trainer.max_steps": Annotated[int, Field(ge=-1)],
    "trainer.max_time": Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$")] | dict[str, int] | None,
    "trainer.log_every_n_steps": _COUNT,
    "trainer.gradient_clip_val": Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
    "trainer.limit_train_batches": _SHARE,
    "trainer.limit_val_batches": _SHARE,
    "trainer.limit_test_batches": _SHARE,
    "trainer.accelerator": Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
}

_type_adapter = cache(partial(TypeAdapter, config=ConfigDict(strict=True, arbitrary_types_allowed=True)))


def validate(cfg: DictConfig, resumed: DictConfig | None = None) -> list[str]:
    """Raise UsageError with every problem of a configuration; drop and return a resumed run's settings unknown here."""
    require_environment(cfg)
    ignored: list[str] = []
    if resumed is not None:
        if not resumed.get("optimizer"):
            raise UsageError(f"resume={cfg.resume}: was made of trained networks, and cannot be trained itself")
        ignored = drop_unknown_settings(resumed)
        _drop(cfg, ignored)
    problems = [*_shape_problems(cfg)]
    if not problems:  # The other checks rely on the shape.
        for find_problems in (_signature_problems, _machine_problems, _option_problems, _monitor_problems):
            problems += find_problems(cfg)
        if resumed is not None:
            problems += _resume_problems(cfg, resumed)
    if problems:
        heading = f"{len(problems)} problems in the configuration:\n  " if len(problems) > 1 else ""
        raise UsageError(heading + "\n  ".join(problems))
    return ignored


def validate_parts(cfg: DictConfig) -> None:
    """Raise UsageError if no machine can make a run's network and data, and drop settings unknown to this version."""
    for name in ("model", "data", "trainer"):
        if not isinstance(cfg.get(name), DictConfig):
            raise UsageError(f"{name}: is missing or not a group of settings")
    problems: list[str] = []
    for name in ("seed", "label_smoothing", "trainer.max_epochs", "trainer.limit_train_batches"):
        if OmegaConf.select(cfg, name, default=MISSING) is MISSING:
            raise UsageError(f"{name}: is missing")
        problems += _type_problems(name, OmegaConf.select(cfg, name), LIMITS[name])
    drop_unknown_settings(cfg, PARTS)
    for name in PARTS:
        if isinstance(cfg.get(name), DictConfig):
            require_environment(cfg[name])
            problems += _signature_problems(cfg[name], name)
    if problems:
        raise UsageError("; ".join(problems))


def drop_unknown_settings(cfg: DictConfig, groups: Sequence[str] = GROUPS) -> list[str]:
    """Drop what this version does not know of a run, at the top or in groups as arguments, and return the keys."""
    unknown = [str(name) for name in cfg if name not in (*GROUPS, *LIMITS)]
    for group in groups:
        if isinstance(cfg.get(group), DictConfig):
            unknown += _unknown_arguments(cfg[group], group)
    _drop(cfg, unknown)
    return unknown


def _unknown_arguments(node: DictConfig, key: str) -> list[str]:
    """Return the keys of arguments, in a node and below it, that no class takes."""
    unknown: list[str] = []
    for path, value in walk(to_plain(node), key):
        is_dropped = f"{path}.".startswith(tuple(f"{name}." for name in unknown))
        if isinstance(value, dict) and "_target_" in value and not is_dropped:
            try:
                parameters = parameter_types(find_class(value["_target_"], path))
            except UsageError:  # Validation reports it.
                continue
            unknown += [f"{path}.{name}" for name in value if not _is_taken(f"{path}.{name}", parameters)]
    return unknown


def _is_taken(key: str, parameters: Container[str]) -> bool:
    """Return whether a class with these parameters, or Hydra, takes the argument at a key."""
    name = key.rpartition(".")[2]
    return key not in OWN_ARGUMENTS and (name in parameters or "**" in parameters or name in OF_HYDRA)


def _drop(cfg: DictConfig, keys: Iterable[str]) -> None:
    for key in keys:
        group, _, name = key.rpartition(".")
        node = OmegaConf.select(cfg, group) if group else cfg
        if isinstance(node, DictConfig):
            with open_dict(node):
                node.pop(name, None)


def _format(value: Any) -> str:
    """Format a value as on the command line, shortened to a line, for a message."""
    return shorten(format_value(value))


def _shape_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of missing settings, unknown top-level keys, and values in place of groups."""
    known = [*GROUPS, *(key for key in LIMITS if "." not in key)]
    for name in map(str, cfg):
        if name not in known:
            yield f"{name}={_format(cfg[name])}: unknown setting; choose from {', '.join(known)}"
    for name in known:
        # Only presets have a tutorial, and a run may be older than the dashboard and detach.
        if name not in cfg and name not in ("dashboard", "tutorial", "detach"):
            yield f"{name}: required; it can be changed but not removed"
    for name in GROUPS:
        node = cfg.get(name, {})
        if not isinstance(node, DictConfig):
            yield f"{name}={_format(node)}: a group of settings, not a value; choose it when the run is started"
        elif name in ("callbacks", "logger"):
            for part in map(str, node):
                value = node[part]
                if value is not None and not (isinstance(value, DictConfig) and "_target_" in value):
                    yield f"{name}.{part}={_format(value)}: must be null, for none, or settings with a _target_"
    if isinstance(cfg.get("trainer"), DictConfig) and "max_epochs" not in cfg.trainer:
        yield "trainer.max_epochs: required; it can be changed but not removed"


def _signature_problems(node: DictConfig, path: str = "") -> Iterator[str]:
    """Yield problems of unknown settings, wrong types and values out of range, in a node and below it."""
    parameters: Mapping[str, Any] | None = None
    if "_target_" in node:
        try:
            parameters = parameter_types(find_class(node._target_, path))
        except UsageError as error:
            yield str(error)
            return
    for name, value in node.items():
        key = f"{path}.{name!s}" if path else str(name)
        if parameters is None and path in OPTIONAL:
            remedy = f"choose another {path}, or remove it with ~{key}"
            yield f"{key}={_format(value)}: {path}=none has no settings; {remedy}"
        elif name in OF_HYDRA:
            continue
        elif parameters is not None and not _is_taken(key, parameters):
            yield f"{key}={_format(value)}: {_explain_refused_argument(key, node._target_, parameters)}"
        elif isinstance(value, DictConfig) and ("_target_" in value or parameters is None):
            yield from _type_problems(key, value, LIMITS.get(key, Any))
            yield from _signature_problems(value, key)
        elif is_list_of_nodes(value):
            for i, each in enumerate(value):
                yield from _signature_problems(each, f"{key}.{i}")
        else:
            annotation = LIMITS.get(key, (parameters or {}).get(str(name), Any))
            yield from _type_problems(key, value, annotation)


def _explain_refused_argument(key: str, target: str, parameters: Iterable[str]) -> str:
    """Return why a class does not take the argument at a key, and what to do."""
    if key in OWN_ARGUMENTS:
        return f"cannot be set, {OWN_ARGUMENTS[key]}; remove it with ~{key}"
    choices = [name for name in parameters if name not in ("params", "optimizer")]
    group, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, choices, n=1)
    remedy = f"did you mean {group}.{near[0]}?" if near else f"choose from {', '.join(choices) or 'none'}"
    return f"{target.rpartition('.')[2]} has no such setting; {remedy}"


@cache  # Each job of a sweep needs it.
def parameter_types(target: Callable[..., Any]) -> Mapping[str, Any]:
    """Return the parameters of a constructor with their types, and "**" among them if it takes any keyword."""
    parameters = inspect.signature(target).parameters.values()
    try:
        annotated = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
        hints = get_type_hints(annotated, include_extras=True)
    except (NameError, TypeError, AttributeError):  # Some annotations are for type checkers alone.
        hints = {}
    # The lab takes this one for itself, and hands over the values of the metric.
    monitor = {"monitor": str} if inspect.isclass(target) and issubclass(target, ReduceLROnPlateau) else {}
    return monitor | {"**" if p.kind is p.VAR_KEYWORD else p.name: hints.get(p.name, Any) for p in parameters}


def _type_problems(key: str, value: Any, annotation: Any) -> Iterator[str]:
    if OmegaConf.is_config(value):
        value = OmegaConf.to_container(value)
    try:
        adapter = _type_adapter(annotation)
    except (PydanticUserError, TypeError, NameError):
        return  # If pydantic does not know the type, the constructor has to check it.
    if isinstance(value, list) and "tuple" in str(annotation):
        value = tuple(value)  # YAML has no tuples.
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        messages = dict.fromkeys(problem["msg"] for problem in error.errors())
        yield f"{key}={_format(value)}: {', or '.join(message[0].lower() + message[1:] for message in messages)}"


def _machine_problems(cfg: DictConfig) -> Iterator[str]:
    accelerator, devices = cfg.trainer.get("accelerator"), cfg.trainer.get("devices")
    may_be_cuda = accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    gpus = torch.cuda.device_count() if may_be_cuda else 0
    is_apple = not gpus and accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda", "mps") and not gpus and not is_apple:
        remedy = "use trainer.accelerator=cpu, or auto for what there is"
        yield f"trainer.accelerator={accelerator}: torch finds no such GPU on this machine; {remedy}"
    precision = str(cfg.trainer.get("precision"))
    if precision in ("16", "16-mixed") and not gpus and not is_apple:
        yield f"trainer.precision={precision}: a CPU cannot train in float16; use bf16-mixed or 32-true"
    elif precision in ("16", "bf16"):
        yield f"trainer.precision={precision}: Lightning's former name; use {precision}-mixed"
    if is_apple and precision in ("64", "64-true"):
        yield f"trainer.precision={precision}: Apple's GPUs have no float64; use 32-true, or trainer.accelerator=cpu"
    if isinstance(devices, int):
        yield from world_size_problems(devices, cfg.trainer.get("num_nodes", 1))
        found = gpus or int(is_apple)
        if 0 < found < devices and launched_process() is None:
            remedy = f"use trainer.devices={found}, or trainer.accelerator=cpu"
            yield f"trainer.devices={devices}: torch finds {found} GPU{'s' * (found > 1)} on this machine; {remedy}"


def _option_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of settings that are valid, but not together."""
    clip, is_mixed = cfg.trainer.get("gradient_clip_val"), str(cfg.trainer.get("precision")).endswith("-mixed")
    # A fused optimizer unscales the gradients of mixed precision itself, too late for Lightning to clip them.
    if clip and is_mixed and cfg.optimizer.get("fused"):
        yield f"trainer.gradient_clip_val={_format(clip)}: needs optimizer.fused=false in mixed precision"
    after, epochs = OmegaConf.select(cfg, "callbacks.reload.after"), cfg.trainer.max_epochs
    if isinstance(after, int) and isinstance(epochs, int) and 0 < epochs <= after:
        yield f"callbacks.reload.after={after}: must be less than trainer.max_epochs={epochs}"
    if after is not None and not cfg.callbacks.get("last"):
        yield "callbacks.last=null: callbacks.reload loads what it saves; add callbacks.reload=null"


def _monitor_problems(cfg: DictConfig) -> Iterator[str]:
    """Yield problems of the metrics that callbacks and the scheduler monitor."""
    has_validation = OmegaConf.select(cfg, "data.val_size") != 0
    logged = [name for name in EPOCH_METRICS if has_validation or not name.startswith("val/")]
    callbacks = enabled_callbacks(cfg)
    classes = [str(node.get("_target_")) for node in (cfg.model, *callbacks.values())]
    may_log_others = any(not name.startswith(("mnist_lab.", "lightning.", "torch.")) for name in classes)
    monitors = {"scheduler": cfg.scheduler, **{f"callbacks.{name}": node for name, node in callbacks.items()}}
    for key, node in monitors.items():
        name, monitor, mode = key.removeprefix("callbacks."), node.get("monitor"), node.get("mode")
        if name in ("best", "last") and (monitor is None) == (name == "best"):
            why = "a metric is needed" if name == "best" else "every epoch is saved"
            yield f"{key}.monitor={_format(monitor)}: {why}; other checkpoints are +callbacks.NAME._target_=CLASS"
        elif monitor in logged:
            if mode not in (None, direction(monitor)):
                best = "least" if direction(monitor) == "min" else "greatest"
                yield f"{key}.mode={_format(mode)}: the {best} {monitor} is the best; leave the mode out"
        elif monitor is None and str(node.get("_target_")).endswith(".ReduceLROnPlateau"):
            yield "scheduler.monitor: required; scheduler=plateau has it, or add +scheduler.monitor=val/loss"
        elif monitor is None:
            continue
        elif str(monitor).startswith("test/") or monitor in METRIC_NAMES or not may_log_others:
            why = "test metrics cannot be monitored" if str(monitor).startswith("test/") else "not logged"
            yield f"{key}.monitor={monitor}: {why}; choose from {', '.join(logged)}"
        elif mode is None:
            yield f"{key}.mode: required, since {monitor} is a metric of your own; set it to min or max"


def _resume_problems(cfg: DictConfig, resumed: DictConfig) -> Iterator[str]:
    """Yield problems of settings that cannot change on resume; one that the run lacks counts as null."""
    before, now = flatten(resumed), flatten(cfg)
    for key in before | now:
        used, value = before.get(key), now.get(key)
        is_kept = value is None and key in READ_FROM_DATA
        if FIXED_ON_RESUME.match(key) and not is_kept and value != used:
            yield (
                f"{key}={_format(value)}: cannot change on resume (this run uses {_format(used)}); "
                "init_from=CHECKPOINT starts a new run from its weights"
            )


def enabled_callbacks(cfg: DictConfig) -> dict[str, DictConfig]:
    """Return the enabled callbacks by name; without validation images there is no best checkpoint to save."""
    without = {"best"} if OmegaConf.select(cfg, "data.val_size") == 0 else set()
    return {str(name): node for name, node in cfg.callbacks.items() if node and name not in without}
