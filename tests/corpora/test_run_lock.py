"""A folder takes one run, and the other is told which; a full disk is told in one line."""

import errno
import os
import subprocess
import sys

import pytest

from dataset_scripts.run_lock import InUseError, only_run_in
from modeling_avlmm.cli.console import disk_fault, guarded


def test_a_folder_takes_one_run(tmp_path):
    with only_run_in(tmp_path / "new"):
        told = rf"new is in use by process {os.getpid()} on "
        with pytest.raises(InUseError, match=told), only_run_in(tmp_path / "new"):
            pass
        with only_run_in(tmp_path / "other"):
            pass
    with only_run_in(tmp_path / "new"):
        pass


def test_a_killed_run_lets_its_folder_go(tmp_path):
    code = (
        "import os, sys; from dataset_scripts.run_lock import only_run_in\n"
        "with only_run_in(sys.argv[1]): os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    with only_run_in(tmp_path):
        pass


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_told_in_one_line(capsys, number):
    def body():
        try:
            raise OSError(number, os.strerror(number), "/runs/report.html")
        except OSError as error:
            raise RuntimeError("a library's own words") from error

    assert guarded(body, failed=1) == 1
    told = capsys.readouterr().err
    assert told.startswith(f"avlmm: {os.strerror(number)}: /runs/report.html. ") and told.count("\n") == 1


def test_other_errors_keep_their_traceback():
    assert (
        disk_fault(RuntimeError("I/O Error: No space left on device (os error 28)"))
        == "No space left on device"
    )
    assert disk_fault(FileNotFoundError(errno.ENOENT, "none", "a")) is None
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)
