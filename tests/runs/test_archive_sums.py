"""An archive is verified by its own sums."""

import zipfile
from pathlib import Path

import pytest

from mnist_lab.errors import UsageError
from mnist_lab.runs.archive import archive, unarchive
from mnist_lab.runs.run import Run


def test_file_with_a_wrong_sha256_and_a_right_crc_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    run = Run(tmp_path / "runs" / "a")
    run.folder.mkdir(parents=True)
    run.record_path.write_text('{"status": "finished"}')
    archive([run.folder], tmp_path / "runs", tmp_path / "whole.zip")
    with zipfile.ZipFile(tmp_path / "whole.zip") as whole, zipfile.ZipFile(tmp_path / "changed.zip", "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, whole.read(name).replace(b"finished", b"failed"))
    with pytest.raises(UsageError, match=r"a/run\.json has a wrong SHA-256"):
        unarchive(tmp_path / "changed.zip", tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
