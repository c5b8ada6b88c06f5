"""A Ray cluster of two nodes on this machine, each with its own host name and mount table. It needs root."""

import os
import subprocess
import sys
from pathlib import Path

from lab import wait_for
from slurm import free_port, kill_machine

NODES = ("node1", "node2")


class RayCluster:
    """The cluster. A sweep joins its head, node1. `local_folder` is a different folder on each node."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.local_folder = folder, folder / "local"
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.launcher = ("hydra/launcher=ray", f"hydra.launcher.ray.init.address={self.address}")
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": self.address}

    def start(self) -> None:
        self.local_folder.mkdir(parents=True)
        for node in NODES:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        """Start a node like a machine of its own, and wait until it has joined."""
        head = ["--head", f"--port={self.port}", "--include-dashboard=false"]
        place = head if node == NODES[0] else [f"--address={self.address}"]
        settings = ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--object-store-memory=78643200"]
        settings += ["--disable-usage-stats", "--block"]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *place, *settings]
        machine = f"hostname {node} && mount -t tmpfs none {self.local_folder}"
        log = (self.folder / f"{node}.out").open("ab")
        command = ["unshare", "--uts", "--mount", "sh", "-c", f'{machine} && exec "$@"', "sh", *ray]
        self.nodes[node] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        log.close()
        wait_for(lambda: self.count_alive() == len(self.nodes), f"{node} in the cluster")

    def count_alive(self) -> int:
        """Return how many nodes the cluster takes for alive."""
        join = "import ray; ray.init(log_to_driver=False, logging_level='error')"
        program = f"{join}; print(sum(node['Alive'] for node in ray.nodes()))"
        done = subprocess.run([sys.executable, "-c", program], env=self.environment, capture_output=True, text=True)
        return int(done.stdout) if done.returncode == 0 else 0

    def kill_node(self, node: str) -> None:
        """Kill all processes of a node, as a power failure does."""
        kill_machine(self.nodes.pop(node))

    def stop(self) -> None:
        for node in reversed([*self.nodes]):
            self.kill_node(node)
