"""Audio-visual deepfake detection: look at files, train and publish detectors, check and export datasets.

    python -m modeling_avlmm detect clip.mp4 --model my-org/my-detector
    python -m modeling_avlmm ui
    python -m modeling_avlmm train --recipe recipes/ssavd_demo.yaml
    python -m modeling_avlmm publish --model runs/ssavd_demo/model --to published/demo
    python -m modeling_avlmm audit --dataset fakeavceleb --data-dir FakeAVCeleb_v1.2

evaluate_avd.py evaluates a detector. COMMAND --help explains a command.
"""

import argparse
from typing import NoReturn

from .cli import (
    audit,
    bench,
    compare,
    demo,
    detect,
    export,
    instruct,
    leaderboard,
    onnx,
    protocols,
    publish,
    stream,
    train,
    ui,
    verify,
    wild,
)
from .cli.console import STOPPED, leave, tell

COMMANDS = {
    "detect": detect,
    "ui": ui,
    "stream": stream,
    "train": train,
    "publish": publish,
    "onnx": onnx,
    "audit": audit,
    "protocols": protocols,
    "compare": compare,
    "leaderboard": leaderboard,
    "export": export,
    "instruct": instruct,
    "bench": bench,
    "verify": verify,
    "wild": wild,
    "demo": demo,
}
"""Each module has `HELP`, `DESCRIPTION`, `add_arguments(parser)` and `run(options) -> int`, and imports quickly."""


def build_parser() -> argparse.ArgumentParser:
    """Build the command line."""
    as_it_stands = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="avlmm", description=__doc__, formatter_class=as_it_stands)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        layout = as_it_stands if "\n" in command.DESCRIPTION else argparse.HelpFormatter
        words = {"help": command.HELP, "description": command.DESCRIPTION, "formatter_class": layout}
        command.add_arguments(commands.add_parser(name, **words))
    return parser


def main(arguments: list[str] | None = None, own_process: bool = False) -> int:
    """
    Run one command and return its exit status.

    Args:
        arguments (`list[str]`, *optional*): The command and its options. Defaults to those of this process.
        own_process (`bool`, *optional*, defaults to `False`):
            Whether this process was started for the command and does nothing else.
    """
    parser = build_parser()
    options, unknown = parser.parse_known_args(arguments)
    options.own_process = own_process
    if "overrides" in options:  # of a recipe, whose fields the parser does not know
        options.overrides = unknown
    elif unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        return COMMANDS[options.command].run(options)
    except KeyboardInterrupt:  # while the command's libraries were imported
        tell("stopped")
        return STOPPED


def run_and_leave() -> NoReturn:
    """Be the process of a command: run it and end."""
    leave(main(own_process=True))


if __name__ == "__main__":
    run_and_leave()
