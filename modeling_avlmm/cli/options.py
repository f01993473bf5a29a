"""Options that several commands share, so that each is named and explained once."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING

from ..inference.default_model import DEFAULT_MODEL, default_model
from ..inference.engine_options import ENGINES, RayOptions
from ..inference.sharding import Shard
from .console import UsageError, tell

if TYPE_CHECKING:
    from ..inference.reader_process import ReaderLimits

NO_MODEL = f"no model was named, so this is the package's own detector. Give --model, or set {DEFAULT_MODEL}."

API_KEY = "VLLM_API_KEY"
"""Environment variable with the key of a server, which vLLM itself reads."""


def add_model(parser: argparse.ArgumentParser, what: str = "folder or Hub id of a detector") -> None:
    """Add a required --model."""
    parser.add_argument("--model", required=True, help=what)


def add_default_model(parser: argparse.ArgumentParser, what: str = "folder or Hub id of a detector") -> None:
    """Add a --model that may be left out; [`model_or_default`] resolves it."""
    parser.add_argument("--model", help=f"{what} [${DEFAULT_MODEL}, or else the package's own]")


def model_or_default(model: str | None) -> str:
    """Return the model to use, and tell the user when it is the package's own."""
    if not model and not os.environ.get(DEFAULT_MODEL):
        tell(NO_MODEL)
    return model or default_model()


def add_gate(parser: argparse.ArgumentParser, things: str = "files", band: bool = True) -> None:
    """Add --gate, and with `band` also --gate-band; [`check_gate`] compares the two."""
    parser.add_argument(
        "--gate", metavar="MODEL", help=f"small detector that answers for the {things} it is sure of"
    )
    if band:
        parser.add_argument(
            "--gate-band",
            nargs=2,
            type=float,
            metavar=("LOW", "HIGH"),
            help="the gate is sure of scores below LOW and above HIGH [the gate's abstain band]",
        )


def check_gate(options: argparse.Namespace) -> None:
    """Raise `UsageError` for a --gate-band without a --gate."""
    if options.gate_band and not options.gate:
        raise UsageError("--gate-band says when a gate is sure: give the gate, --gate MODEL")


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument("--device", help="e.g. cuda:0 or cpu [an accelerator if there is one]")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """Add --device, --dtype and --trust-remote-code."""
    add_device(parser)
    parser.add_argument(
        "--dtype", default="auto", metavar="TYPE", help="type of the weights, e.g. bfloat16 [%(default)s]"
    )
    parser.add_argument(
        "--trust-remote-code", action="store_true", help="allow the code in the model's repository to run"
    )


def add_corpus(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add --dataset, --protocol and --data-dir."""
    parser.add_argument(
        "--dataset", required=required, help="fakeavceleb, mavos_dd, avfolder or another registered dataset"
    )
    parser.add_argument(
        "--protocol",
        help="its configuration, e.g. identity_70_30, or a JSON file of `avlmm protocols` [the dataset's default]",
    )
    parser.add_argument("--data-dir", required=required, metavar="DIR", help="folder of the unpacked corpus")


def add_windows(parser: argparse.ArgumentParser, things: str = "file") -> None:
    """Add --window-seconds, --hop-seconds and --aggregate."""
    parser.add_argument(
        "--window-seconds",
        type=float,
        metavar="SECONDS",
        help="length of a window [as long as one pass takes]",
    )
    parser.add_argument(
        "--hop-seconds",
        type=float,
        metavar="SECONDS",
        help="time from the start of one window to the start of the next [--window-seconds]",
    )
    parser.add_argument(
        "--aggregate",
        choices=("mean", "max"),
        help=f"how the scores of windows become that of the {things} [mean]",
    )


def add_faces(parser: argparse.ArgumentParser) -> None:
    """Add --faces."""
    parser.add_argument(
        "--faces",
        choices=("off", "largest", "all"),
        help="look at whole frames, at the largest face, or at every face [as the detector was made]",
    )


def add_batch_size(parser: argparse.ArgumentParser, default: int, what: str = "windows in one pass") -> None:
    """Add --batch-size."""
    parser.add_argument(
        "--batch-size", type=positive, default=default, metavar="N", help=f"{what} [%(default)s]"
    )


def add_workers(parser: argparse.ArgumentParser, what: str = "processes that decode") -> None:
    """Add --num-workers."""
    parser.add_argument("--num-workers", type=int, default=0, metavar="N", help=f"{what} [%(default)s]")


def add_reading(parser: argparse.ArgumentParser) -> None:
    """Add --read-seconds, --read-memory and --read-here; [`reading`] applies them."""
    parser.add_argument(
        "--read-seconds",
        type=above_zero,
        default=120.0,
        metavar="SECONDS",
        help="longest wait for a file to open, and for a window of it [%(default)g]",
    )
    parser.add_argument(
        "--read-memory",
        type=above_zero,
        default=4.0,
        metavar="GIB",
        help="memory that decoding a file may take [%(default)g]",
    )
    parser.add_argument(
        "--read-here",
        action="store_true",
        help="decode in this process, without limits: a file that crashes FFmpeg ends the run",
    )


def reading(options: argparse.Namespace, forked: bool = False) -> contextlib.AbstractContextManager:
    """
    Return the context in which files are decoded: in processes of their own, unless --read-here is given.

    `forked` is that of [`reader_processes`].
    """
    if options.read_here:
        return contextlib.nullcontext()
    from ..inference.reader_process import reader_processes  # here, as it imports PyTorch

    return reader_processes(reading_limits(options), forked)


def reading_limits(options: argparse.Namespace) -> ReaderLimits | None:
    """Return the limits on what decoding a file may cost; None with --read-here."""
    if options.read_here:
        return None
    from ..inference.reader_process import ReaderLimits

    return ReaderLimits(seconds=options.read_seconds, memory_gib=options.read_memory)


def add_engine(
    parser: argparse.ArgumentParser, things: str = "files", engines: tuple[str, ...] = ENGINES
) -> argparse._ArgumentGroup:
    """Add --engine, the options of Ray, and --shard in a group, and return it; [`ray_options`] reads those of Ray."""
    running = parser.add_argument_group(f"many {things}: on several processes or machines")
    running.add_argument(
        "--engine",
        choices=engines,
        default="local",
        help=f"what scores the {things}: this process, or the workers of a Ray cluster{', or a vLLM server' * ('vllm' in engines)} "
        "[%(default)s]",
    )
    running.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="the cluster, e.g. auto [$RAY_ADDRESS, or else one of this machine]",
    )
    running.add_argument(
        "--ray-workers",
        type=worker_range,
        metavar="N or LOW-HIGH",
        help="workers, each with the detector; Ray adds up to HIGH [as many as there is room for]",
    )
    running.add_argument("--ray-cpus", type=above_zero, metavar="N", help="CPUs of a worker [1]")
    running.add_argument("--ray-gpus", type=zero_or_more, metavar="N", help="GPUs of a worker, e.g. 0.5 [0]")
    running.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help=f"only the I-th of N shares of the {things}, e.g. 3/16; without it, the same command puts the shares together",
    )
    return running


def ray_options(options: argparse.Namespace) -> RayOptions:
    """Return the options of a run on Ray."""
    return RayOptions(**_given_to_ray(options), limits=reading_limits(options))


def check_engine(options: argparse.Namespace) -> None:
    """Raise `UsageError` for options of an engine that is not asked for, or shares of shares."""
    given = _given_to_ray(options)
    if given and options.engine != "ray":
        raise UsageError(f"--ray-{next(iter(given))} is an option of --engine ray")
    if options.shard and options.engine == "ray":
        raise UsageError("--shard divides the work without Ray: leave it or --engine ray out")


def _given_to_ray(options: argparse.Namespace) -> dict:
    values = {name: vars(options)[f"ray_{name}"] for name in ("address", "workers", "cpus", "gpus")}
    return {name: value for name, value in values.items() if value is not None}


def add_served(parser: argparse._ArgumentGroup) -> None:
    """Add the options of a server; [`check_served`] compares them."""
    parser.add_argument(
        "--endpoint", metavar="URL", help="server of --engine vllm, such as http://localhost:8000"
    )
    parser.add_argument(
        "--served-model", metavar="NAME", help="name of the detector on the server [its only model]"
    )
    parser.add_argument(
        "--api-key", metavar="KEY", default=os.environ.get(API_KEY), help=f"key of the server [${API_KEY}]"
    )
    parser.add_argument(
        "--request-seconds",
        type=above_zero,
        default=120.0,
        metavar="SECONDS",
        help="longest wait for an answer of the server [%(default)g]",
    )


def check_served(options: argparse.Namespace) -> None:
    """Raise `UsageError` for --engine vllm without a server or a detector, and for a server without --engine vllm."""
    if options.engine != "vllm":
        if options.endpoint or options.served_model:
            raise UsageError("--endpoint and --served-model are for a server: add --engine vllm")
        return
    if not options.endpoint:
        raise UsageError("--engine vllm needs the server's address: --endpoint http://localhost:8000")
    if not options.model and not os.environ.get(DEFAULT_MODEL):
        raise UsageError(
            "--engine vllm needs the detector that is served, for its prompts and threshold: --model FOLDER_OR_ID"
        )


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    """Add `--resamples` and `--seed`."""
    parser.add_argument(
        "--resamples",
        dest="n_resamples",
        type=count,
        default=1000,
        metavar="N",
        help="bootstrap resamples for intervals; 0 for none [%(default)s]",
    )
    parser.add_argument(
        "--seed", type=count, default=0, metavar="N", help="seed of the bootstrap [%(default)s]"
    )


def add_push(parser: argparse.ArgumentParser) -> None:
    """Add --push-to, --public and --token, for a dataset repository."""
    parser.add_argument("--push-to", metavar="REPO", help="upload to this dataset repository, owner/name")
    parser.add_argument(
        "--public",
        action="store_true",
        help="make a new repository public; check that the licence of the data allows it",
    )
    add_token(parser)


def add_token(parser: argparse.ArgumentParser) -> None:
    """Add --token."""
    parser.add_argument("--token", help="Hub token [the one of `hf auth login`]")


def above_zero(text: str) -> float:
    """Parse a number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be above 0, not {text}")
    return value


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def count(text: str) -> int:
    """Read a whole number of 0 or more; for `type=` of an option."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {value}")
    return value


def zero_or_more(text: str) -> float:
    """Parse a number of at least 0."""
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def worker_range(text: str) -> tuple[int, int]:
    """Parse `4`, or `2-16`, the fewest and the most."""
    low, _, high = text.partition("-")
    low, high = positive(low), positive(high or low)
    if low > high:
        raise argparse.ArgumentTypeError(f"the fewest come first: {high}-{low}, not {text}")
    return low, high


def shard(text: str) -> Shard:
    """Parse `3/16`, the third of 16 shares."""
    try:
        return Shard.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
