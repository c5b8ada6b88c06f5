"""Build and load the pretended accelerator, and have trainer.accelerator=gpu choose it. It changes torch for good."""

import fcntl
import hashlib
import importlib.util
import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType, SimpleNamespace

import platformdirs
import torch

NAME = "pretended"
SOURCE = Path(__file__).with_name("pretended_device.cpp")
PYTHON = Path(sysconfig.get_path("include"))
TORCH = Path(torch.__file__).parent


def why_not_here() -> str | None:
    """Return why the device cannot be built on this machine; None if it can."""
    if platform.system() != "Linux" or shutil.which("g++") is None:
        return "the pretended device is built by g++ on Linux, and there is none"
    if not (PYTHON / "Python.h").is_file():
        return f"the pretended device needs Python's headers, and {PYTHON} has none"
    if torch.torch_version.TorchVersion(torch.__version__) < (2, 14):
        return f"the pretended device is written for torch 2.14 and later, and this is {torch.__version__}"
    return None


def build() -> Path:
    """Return the compiled device. A machine compiles it once for each version of its source, torch and Python."""
    command = ["g++", "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{TORCH / 'include'}", f"-I{PYTHON}", str(SOURCE)]
    command += [f"-L{TORCH / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu"]
    versions = (SOURCE.read_bytes(), command, torch.__version__, platform.python_version())
    folder = platformdirs.user_cache_path("mnist_lab_tests")
    library = folder / f"pretended_device-{hashlib.sha256(repr(versions).encode()).hexdigest()[:16]}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Tests run side by side.
        if not library.is_file():
            unfinished = library.with_suffix(".part")
            subprocess.run([*command, "-o", str(unfinished)], check=True)
            unfinished.replace(library)
    return library


def load() -> ModuleType:
    """Return the device's own functions, once torch, Lightning and the lab take it for the GPU of this machine."""
    spec = importlib.util.spec_from_file_location("pretended_device", build())
    assert spec is not None and spec.loader is not None
    device = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(device)
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(
        NAME,
        SimpleNamespace(
            is_available=lambda: True,
            is_initialized=lambda: True,
            device_count=lambda: 1,
            current_device=lambda: 0,
            set_device=lambda device: None,
            synchronize=lambda device=None: None,
            manual_seed_all=lambda seed: None,
            get_rng_state=lambda device=None: torch.get_rng_state(),
            set_rng_state=lambda state, device=None: torch.set_rng_state(state),
            get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
            _is_in_bad_fork=lambda: False,
        ),
    )
    torch.utils.generate_methods_for_privateuse1_backend()
    _choose_it_for_gpu()
    return device


def _choose_it_for_gpu() -> None:
    import lightning.fabric.accelerators.cuda as fabric_cuda
    import lightning.pytorch.accelerators.cuda as lightning_cuda

    import mnist_lab.config.validate as validate

    for module in (fabric_cuda, lightning_cuda):
        module.num_cuda_devices, module._clear_cuda_memory = lambda: 1, lambda: None
    accelerator = lightning_cuda.CUDAAccelerator
    accelerator.setup_device = lambda self, device: None
    accelerator.get_parallel_devices = staticmethod(lambda devices: [torch.device(NAME, index) for index in devices])
    found = SimpleNamespace(is_available=lambda: True, device_count=lambda: 1)
    validate.torch = SimpleNamespace(cuda=found, backends=torch.backends)
