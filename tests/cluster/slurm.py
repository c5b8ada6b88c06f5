"""A SLURM of two nodes on this machine, with daemons, ports and folders of its own; as root, on Debian.

Each node has a host name and a mount table of its own (namespaces), so that what is told apart by these is told apart
here: the locks of run folders, and a folder that only one machine has.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab import wait_for

NODES = ("node1", "node2")
CONF = """
ClusterName=lab
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/slurmd.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
ReturnToService=2
KillWait=10
SlurmdTimeout=8
SlurmctldTimeout=30
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
NODE = (
    "NodeName={node} NodeHostname={node} NodeAddr=127.0.0.1 Port={port} CPUs=2 Boards=1 SocketsPerBoard=1"
    " CoresPerSocket=2 ThreadsPerCore=1 RealMemory=9000 State=UNKNOWN\n"
)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


class Slurm:
    """The engine, without accounting, which the lab does not ask; `own` is another folder on each node."""

    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.launcher.mem_gb=1")

    def __init__(self, folder: Path) -> None:
        self.folder, self.own = folder, folder / "own"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ["PATH"] + os.pathsep + "/usr/sbin",
        }

    def start(self) -> None:
        for name in ("ctld", "own", *(f"slurmd.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        conf = CONF.format(folder=self.folder, ctld=free_port())
        nodes = "".join(NODE.format(node=node, port=free_port()) for node in NODES)
        (self.folder / "slurm.conf").write_text(conf + nodes)
        (self.folder / "cgroup.conf").write_text("IgnoreSystemd=yes\n")
        (self.folder / "hosts").write_text(f"127.0.0.1 localhost {' '.join(NODES)} {socket.gethostname()}\n")
        start_munge()
        self._spawn("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.start_node(node)
        wait_for(self._is_idle, "two idle nodes")

    def start_node(self, node: str) -> None:
        """Start a node's daemon as on a machine of its own."""
        steps = f"hostname {node} && mount --bind {self.folder}/hosts /etc/hosts && mount -t tmpfs none {self.own}"
        command = ["unshare", "--uts", "--mount", "sh", "-c", f"{steps} && exec slurmd -D -N {node}"]
        self._spawn(node, *command)

    def kill_node(self, node: str) -> None:
        """Kill a node's daemon and all that runs on the node, as a loss of power does."""
        kill_machine(self.daemons.pop(node))

    def settle(self) -> None:
        """Cancel all jobs and have both nodes idle, as after the start."""
        self._call(["scancel", "--me", "--state=PENDING"])
        self._call(["scancel", "--me", "--signal=KILL", "--full"])
        for node in NODES:
            if node not in self.daemons:
                self.start_node(node)
            self._call(["scontrol", "update", f"nodename={node}", "state=resume"])
        wait_for(self._is_idle, "two idle nodes")

    def stop(self) -> None:
        self._call(["scancel", "--me"])
        for node in NODES:
            if node in self.daemons:
                self.kill_node(node)
        for name in reversed([*self.daemons]):
            process = self.daemons.pop(name)
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, *command: str) -> str:
        """Return what a command of SLURM's prints."""
        done = self._call(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str, str]]:
        """State, reason and node of each job that the controller knows, by the job's number."""
        rows = self.run("squeue", "-h", "-r", "--states=all", "-o", "%i|%T|%r|%N").splitlines()
        return {row.split("|")[0]: tuple(row.split("|")[1:]) for row in rows}  # type: ignore[misc]

    def take_all_nodes(self) -> None:
        """Preempt all jobs by one of a higher partition."""
        self.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")

    def requeue_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something while requeued jobs begin after three seconds; SLURM has them wait for two minutes.

        At once, a node may take a job for its last start, whose credential it has revoked, and SLURM gives the job up.
        """
        waiting: dict[str, float] = {}

        def skip_waiting() -> object:
            for number, (state, reason, _) in self.jobs().items():
                if state == "PENDING" and "BeginTime" in reason:
                    if time.monotonic() - waiting.setdefault(number, time.monotonic()) > 3:
                        self._call(["scontrol", "update", f"jobid={number}", "StartTime=now"])
                else:
                    waiting.pop(number, None)
            return condition()

        wait_for(skip_waiting, what, seconds=240)

    def _is_idle(self) -> bool:
        return self.run("sinfo", "-h", "-t", "idle", "-o", "%D").split() == ["2"]

    def _call(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)

    def _spawn(self, name: str, *command: str) -> None:
        log = (self.folder / f"{name}.out").open("ab")
        self.daemons[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        log.close()


def start_munge() -> None:
    """Start munge, by which SLURM's programs trust each other, unless it runs; it is left running."""
    if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
        return
    run = Path("/run/munge")
    run.mkdir(exist_ok=True)
    shutil.chown(run, "munge")
    run.chmod(0o755)
    as_munge = ["setpriv", "--reuid", "munge", "--regid", "munge", "--init-groups", "munged"]
    subprocess.run(as_munge, check=True, env=os.environ | {"PATH": os.environ["PATH"] + ":/usr/sbin"})
    wait_for(lambda: subprocess.run(["munge", "-n"], capture_output=True).returncode == 0, "munge")


def kill_machine(first: subprocess.Popen[bytes]) -> None:
    """Kill a process and all others with its host name, which is a namespace."""
    here = namespace_of(Path(f"/proc/{first.pid}"))
    there = [path for path in Path("/proc").glob("[0-9]*") if namespace_of(path) == here]
    for process in sorted(there, key=name_of, reverse=True):  # SLURM's own first, which report the death of others
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.name), signal.SIGKILL)
    first.wait()


def namespace_of(process: Path) -> str:
    """The namespace of the host name of a process, given by its folder in /proc; empty for one that has ended."""
    with contextlib.suppress(OSError):
        return str((process / "ns" / "uts").readlink())
    return ""


def name_of(process: Path) -> str:
    """The name of a process's program; empty for one that has ended."""
    with contextlib.suppress(OSError):
        return (process / "comm").read_text()
    return ""
