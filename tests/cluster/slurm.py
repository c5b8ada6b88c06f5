"""A SLURM of two nodes on this machine, with its own daemons, ports and folders. It needs root and Debian.

Each node has its own host name and mount table (namespaces). So the locks of run folders see two machines, and a folder
can exist on one of them alone.
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
    """The engine, without accounting, which the lab does not use. `local_folder` is a different folder on each node."""

    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.launcher.mem_gb=1")

    def __init__(self, folder: Path) -> None:
        self.folder, self.local_folder = folder, folder / "local"
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": os.environ["PATH"] + os.pathsep + "/usr/sbin",
        }

    def start(self) -> None:
        for name in ("ctld", "local", *(f"slurmd.{node}" for node in NODES)):
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
        """Start a node's daemon like a machine of its own."""
        mounts = f"mount --bind {self.folder}/hosts /etc/hosts && mount -t tmpfs none {self.local_folder}"
        program = f"hostname {node} && {mounts} && exec slurmd -D -N {node}"
        command = ["unshare", "--uts", "--mount", "sh", "-c", program]
        self._spawn(node, *command)

    def kill_node(self, node: str) -> None:
        """Kill all processes of a node, as a power failure does."""
        kill_machine(self.daemons.pop(node))

    def settle(self) -> None:
        """Cancel all jobs and wait until both nodes are idle, as after the start."""
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
        """Run a command of SLURM's and return what it prints."""
        done = self._call(command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def jobs(self) -> dict[str, tuple[str, str, str]]:
        """Return state, reason and node of each job that the controller knows, by the job's number."""
        rows = self.run("squeue", "-h", "-r", "--states=all", "-o", "%i|%T|%r|%N").splitlines()
        return {row.split("|")[0]: tuple(row.split("|")[1:]) for row in rows}  # type: ignore[misc]

    def take_all_nodes(self) -> None:
        """Preempt all jobs by a job of a higher partition."""
        self.run("sbatch", "--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")

    def requeue_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition, and start requeued jobs after three seconds; SLURM would wait for two minutes.

        A job that starts at once may still have the credential of its last start, which its node has revoked.
        """
        since: dict[str, float] = {}

        def skip_waiting() -> object:
            for number, (state, reason, _) in self.jobs().items():
                if state == "PENDING" and "BeginTime" in reason:
                    if time.monotonic() - since.setdefault(number, time.monotonic()) > 3:
                        self._call(["scontrol", "update", f"jobid={number}", "StartTime=now"])
                else:
                    since.pop(number, None)
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
    """Start munge, which authenticates SLURM's programs to each other, unless it runs already. It stays running."""
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
    """Kill a process and all others in the namespace of its host name."""
    namespace = namespace_of(Path(f"/proc/{first.pid}"))
    processes = [path for path in Path("/proc").glob("[0-9]*") if namespace_of(path) == namespace]
    for process in sorted(processes, key=name_of, reverse=True):  # SLURM's own die first, before they report a death.
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process.name), signal.SIGKILL)
    first.wait()


def namespace_of(process: Path) -> str:
    """Return the namespace of a process's host name by its folder in /proc, empty if the process has ended."""
    with contextlib.suppress(OSError):
        return str((process / "ns" / "uts").readlink())
    return ""


def name_of(process: Path) -> str:
    """Return the name of a process's program, empty if the process has ended."""
    with contextlib.suppress(OSError):
        return (process / "comm").read_text()
    return ""
