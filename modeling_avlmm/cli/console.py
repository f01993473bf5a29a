"""The frame around every command: one plain line for each error and warning, and the exit status."""

import contextlib
import gc
import sys
import warnings
from collections.abc import Callable, Iterator

WRONG_USAGE = 2
STOPPED = 130
CONTINUES = "stopped; the same command continues"


class UsageError(ValueError):
    """Options that contradict one another; the message says which, and what to give."""


def tell(message: object, program: str = "avlmm") -> None:
    """Print a line for the user on stderr."""
    print(f"{program}: {message}", file=sys.stderr)


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
            Errors that the user can mend, beside [`UsageError`]. They become one line on stderr and status `failed`;
            any other error keeps its traceback, as it is a defect.
        stopped (`str`): Line for a run that Ctrl-C ended, with status 130.
        program (`str`): Name that every line begins with.
        failed (`int`): Exit status of an error.
    """
    with plain_warnings(program):
        try:
            return body()
        except (UsageError, *errors) as error:
            tell(error, program)
            return failed
        except KeyboardInterrupt:
            tell(stopped, program)
            return STOPPED


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Import libraries without looking for garbage: nearly all of their millions of objects stay for good."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def plain_warnings(program: str) -> Iterator[None]:
    """Print each warning once and as one line, without the place in the code where it was raised."""
    told = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        from tqdm import tqdm

        line = " ".join(str(message).split())
        if line not in told:
            told.add(line)
            tqdm.write(f"{program}: {line}", file=sys.stderr)  # above a progress bar, where there is one

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield
