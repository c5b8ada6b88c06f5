"""Who starts the processes of a distributed run, and the error that stands for the death of one."""

import os

import pytest
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException

from mnist_lab.errors import UsageError
from mnist_lab.training.runtime import check_world_size, cluster_environment, is_process_lost, launch_command

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
BATCH = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_NODELIST": "node1"}
SRUN = BATCH | {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_STEP_NODELIST": "node1",
}
GLOO = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error: Connection reset by peer")
BACKEND, NETWORK = torch.distributed.DistBackendError, torch.distributed.DistNetworkError


@pytest.fixture
def launched(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables that a launcher sets; those that this sets are taken back as well."""
    for name in ("MASTER_ADDR", "MASTER_PORT", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("launched", "kind"),
    [({}, LightningEnvironment), (BATCH, LightningEnvironment), (TORCHRUN, TorchElasticEnvironment)],
    indirect=["launched"],
)
def test_lightning_starts_the_processes_unless_torchrun_does(launched: None, kind: type) -> None:
    assert type(cluster_environment()) is kind


@pytest.mark.parametrize("launched", [SRUN], indirect=True)
def test_srun_starts_the_processes_and_requeues_none(launched: None) -> None:
    environment = cluster_environment()
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    assert (environment.main_address, environment.world_size()) == ("node1", 2)
    assert str(environment.main_port) == os.environ["MASTER_PORT"]


@pytest.mark.parametrize("launched", [SRUN], indirect=True)
def test_trainer_of_one_process_among_several_is_refused(launched: None) -> None:
    trainer = Trainer(accelerator="cpu", devices="auto", plugins=[LightningEnvironment()], barebones=True)
    with pytest.raises(UsageError, match=r"trainer\.devices=1: srun launched 2 processes; trainer=ddp takes"):
        check_world_size(trainer)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (GLOO, True),
        (NETWORK("recv, got 0 bytes"), True),
        (BACKEND("NCCL error: ncclRemoteError: A call failed possibly due to a network error"), True),
        (BACKEND("NCCL error: ncclInvalidUsage"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo/transport/"), False),
    ],
)
def test_only_a_lost_connection_stands_for_the_death_of_a_process(error: Exception, lost: bool) -> None:
    assert is_process_lost(error) == lost


@pytest.mark.parametrize(("launched", "lost"), [(TORCHRUN, True), (SRUN, True), ({}, False)], indirect=["launched"])
def test_sigterm_after_a_lost_connection_is_the_launchers(launched: None, lost: bool) -> None:
    followed, alone = SIGTERMException(), SIGTERMException()
    followed.__context__ = GLOO
    assert is_process_lost(followed) == lost
    assert not is_process_lost(alone)


@pytest.mark.parametrize(
    ("launched", "command"),
    [
        ({}, "python -m mnist_lab resume=x"),
        (TORCHRUN, "torchrun ... -m mnist_lab resume=x"),
        (SRUN, "srun ... python -m mnist_lab resume=x"),
    ],
    indirect=["launched"],
)
def test_command_is_that_of_the_same_launcher(launched: None, command: str) -> None:
    assert launch_command(["resume=x"]) == command
