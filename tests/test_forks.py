"""A command line in a fork behaves as in a process that Python starts."""

import subprocess
import sys
from pathlib import Path

import pytest
from lab import completed

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is forked")]
PROGRAMS = {
    "place": "import os, sys; print(os.getcwd(), sys.path[0], sys.argv, os.environ.get('OWN'), __name__)",
    "session": "import os; print(os.getsid(0) == os.getpgid(0) == os.getpid(), len(os.listdir('/proc/self/fd')))",
    "streams": "import sys; print(sys.stdin.read(), sys.stdout.encoding, sys.stdout.errors, sys.stderr.line_buffering)",
    "signals": "import signal; print([str(signal.getsignal(number)) for number in (2, 1, 3, 13, 15, 17)])",
    "exit functions": "import atexit; atexit.register(print, 'end'); print('begin', flush=False)",
    "status": "import sys; sys.exit(3)",
    "words": "import sys; sys.exit('why')",
    "error": "1 / 0",
    "Ctrl-C": "raise KeyboardInterrupt",
    "kill": "import os; os.kill(os.getpid(), 9)",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_fork_behaves_like_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWN", "x")
    arguments = ["-c", program, "a", "b c"]
    with (tmp_path / "stdin").open("w+") as stdin:
        forked = completed(*arguments, stdin=stdin)
        real = subprocess.run([sys.executable, *arguments], capture_output=True, stdin=stdin, start_new_session=True)
    assert (forked.status, forked.out) == (real.returncode, real.stdout.decode())
    assert forked.err.splitlines()[-1:] == real.stderr.decode().splitlines()[-1:]


def test_fork_has_imported_torch_and_has_one_thread() -> None:
    forked = completed("-c", "import os, sys; print('torch' in sys.modules, len(os.listdir('/proc/self/task')))")
    assert forked.out == "True 1\n"
