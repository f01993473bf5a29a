"""The frame around every command: one plain line for each error and warning, and the exit status."""

import atexit
import contextlib
import errno
import gc
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

from dataset_scripts.json_lines import DamagedJournalError
from dataset_scripts.run_lock import InUseError
from dataset_scripts.text_files import printable

from ..media_errors import ReaderStartError

WRONG_USAGE = 2
STOPPED = 130
CONTINUES = "stopped; the same command continues"

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
DISK_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|Read-only file system|PytorchStreamWriter failed writing file"
)
"""The words of libraries that write without Python's errors."""


class UsageError(ValueError):
    """Options that contradict one another; the message says which, and what to give."""


def tell(message: object, program: str = "avlmm") -> None:
    """Print a line for the user on stderr."""
    print(f"{program}: {fit(message)}", file=sys.stderr)


def fit(message: object) -> str:
    """Return a text fit for printing, line by line: names in it may hold control characters, which could move the cursor."""
    return "\n".join(map(printable, str(message).split("\n")))


def guarded(
    body: Callable[[], int],
    *errors: type[Exception],
    stopped: str = "stopped",
    program: str = "avlmm",
    failed: int = WRONG_USAGE,
) -> int:
    """
    Run the body of a command and return its exit status.

    Args:
        body (`Callable`): The command. Returns its exit status.
        errors (exception types):
            Errors that the user can mend, beside [`UsageError`], a folder that another run uses, a damaged journal, no
            process to decode in, and a disk that is full or cannot be written. They become one line on stderr and status `failed`; any other error keeps
            its traceback, as it is a defect.
        stopped (`str`): Line for a run that Ctrl-C ended, with status 130.
        program (`str`): Name that every line begins with.
        failed (`int`): Exit status of an error.
    """
    with plain_warnings(program):
        try:
            return body()
        except (UsageError, DamagedJournalError, InUseError, ReaderStartError, *errors) as error:
            tell(error, program)
            return failed
        except KeyboardInterrupt:
            tell(stopped, program)
            return STOPPED
        except Exception as error:
            if (fault := disk_fault(error)) is None:
                raise
            tell(f"{fault}. Nothing that was written before is lost: make room or give a folder that can be written, "
                 "and start again.", program)  # fmt: skip
            return failed


def disk_fault(error: BaseException | None) -> str | None:
    """Return what the disk refused, if that is what an error comes from; libraries wrap it in errors of their own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in DISK_FAULTS:
            where = f": {error.filename}" if error.filename else ""
            return f"{error.strerror or os.strerror(error.errno)}{where}"
        if found := DISK_WORDS.search(str(error)):
            return found[0]
        error = error.__cause__ or error.__context__
    return None


@contextlib.contextmanager
def starting(own_process: bool = False) -> Iterator[None]:
    """
    Import libraries without looking for garbage: nearly all of their millions of objects stay for good.

    With `own_process`, they are not looked at later either, which costs a third of a second each time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if own_process:
            gc.freeze()


def leave(status: int) -> NoReturn:
    """
    End the process like `sys.exit`, but without taking apart what the libraries have built, which takes a second.

    Threads are waited for and functions of `atexit` are called, as in the processes of `multiprocessing`.
    """
    try:
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # a full disk, or a pipe that nobody reads: Python tells
        sys.exit(status)
    os._exit(status)


@contextlib.contextmanager
def plain_warnings(program: str) -> Iterator[None]:
    """Print each warning once and as one line, without the place in the code where it was raised."""
    told = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        from tqdm import tqdm

        line = printable(" ".join(str(message).split()))
        if line not in told:
            told.add(line)
            tqdm.write(f"{program}: {line}", file=sys.stderr)  # above a progress bar, where there is one

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
