"""`python -m modeling_avlmm onnx`: a small detector as ONNX."""

import argparse
import contextlib
from functools import partial

from .console import UsageError, guarded
from .options import add_model, add_reading, reading

HELP = "export a small detector to ONNX"
DESCRIPTION = (
    "Write an SSAVD or facevoice detector as ONNX, with its configuration and processor, and check that onnxruntime gives the same "
    "logits as PyTorch, with and without picture and sound. The exit status is 0 when they agree, 2 otherwise."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    add_model(parser, "folder or Hub id of an SSAVD or facevoice detector")
    parser.add_argument("--to", required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--opset", type=int, default=18, metavar="N", help="ONNX operator set [%(default)s]")
    parser.add_argument("--int8", action="store_true", help="also write model_int8.onnx (SSAVD)")
    parser.add_argument(
        "--calibration",
        nargs="+",
        default=[],
        metavar="FILE",
        help="clips to fit the ranges of int8 on, each no longer than one pass [ranges are found at run time]",
    )
    add_reading(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    # ValueErrors are the exporter's own, and those of calibration clips that cannot be read.
    return guarded(partial(_export, options), ValueError, OSError)


def _export(options: argparse.Namespace) -> int:
    if options.calibration and not options.int8:
        raise UsageError("--calibration is for --int8")
    from ..inference import onnx_export

    # Only clips need a reader.
    with reading(options) if options.calibration else contextlib.nullcontext():
        made = onnx_export.export_onnx(
            options.model, options.to, options.opset, options.int8, options.calibration
        )
    for name, size in made.sizes.items():
        print(f"{made.path / name}: {size / 1e6:.2f} MB")
    print(f"logits differ from PyTorch's by at most {made.difference:.2g} (allowed: {made.tolerance:g})")
    if made.int8_difference is not None:
        print(
            f"with 8 bits, scores on noise differ by at most {made.int8_difference:.2g}: check them on data"
        )
    return 0
