"""hydra/launcher=local: one job after the other, in the sweep's own process."""

from collections.abc import Mapping

from mnist_lab.sweeps.job_call import HydraSession, JobCall
from mnist_lab.sweeps.launchers.launcher import Launcher, Placement, Stage


class LocalLauncher(Launcher):
    """Runs one job whenever it is polled."""

    poll_seconds = 0.0

    def __init__(self) -> None:
        self.waiting: list[tuple[str, HydraSession, JobCall]] = []
        self.stages: dict[str, Placement] = {}

    @property
    def at_once(self) -> int:
        return 1

    def start(self, session: HydraSession, calls: Mapping[str, JobCall]) -> None:
        self.waiting += [(id, session, call) for id, call in calls.items()]
        self.stages |= dict.fromkeys(calls, Placement(Stage.PENDING))

    def poll(self) -> dict[str, Placement]:
        if self.waiting:
            id, session, call = self.waiting.pop(0)
            session.run(call.overrides, call.number)
            self.stages[id] = Placement(Stage.ENDED)
        return self.stages

    def cancel(self) -> list[str]:
        self.waiting.clear()
        return []  # a job in this process has heard the signal itself

    def close(self) -> None:
        """Nothing was started."""
