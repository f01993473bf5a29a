"""`python -m modeling_avlmm stream`: scores of a recording while it is written, a line a second."""

import argparse
import json
import sys
from collections.abc import Iterator
from functools import partial

from ..explain.words import PART_NAMES, clock, count_of
from ..inference.quiet import quiet_libraries
from .console import guarded, tell
from .options import add_default_model, add_reading, model_or_default, reading

HELP = "score a recording while it grows"
DESCRIPTION = (
    "Score a recording while it is written, every second, until the file stops growing. Give - to read standard input. "
    "The exit status is 1 when the recording could not be read, 2 on wrong usage."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "file", metavar="FILE", help="a recording that is being written, or - for standard input"
    )
    add_default_model(parser, "folder or Hub id of an SSAVD or facevoice detector, or an ONNX folder")
    parser.add_argument("--int8", action="store_true", help="use model_int8.onnx of an ONNX folder")
    parser.add_argument(
        "--hop-seconds",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="time between two scores [%(default)g]",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="end when the file has not grown for so long [%(default)g]",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="threads; with 2 or more, one of them decodes [1]"
    )
    add_reading(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object a line, the summary last")


def run(options: argparse.Namespace) -> int:
    """Run the command and return its exit status."""
    return guarded(partial(_stream, options), ValueError, OSError)


def _stream(options: argparse.Namespace) -> int:
    from ..inference.onnx_detector import ONNXDetector
    from ..inference.streaming import StreamingDetector

    quiet_libraries()
    model = model_or_default(options.model)
    if options.int8:
        model = ONNXDetector(model, True, max(1, (options.threads or 1) - 1))
    detector = StreamingDetector(model, hop_seconds=options.hop_seconds, threads=options.threads)
    source = sys.stdin.buffer if options.file == "-" else options.file
    status = 0
    try:
        with reading(options):
            for window in detector.stream_file(source, options.patience):
                print(json.dumps(window) if options.json else _line(window, detector.summary()), flush=True)
    except ValueError as error:  # MediaError among them
        tell(error)
        status = 1
    except KeyboardInterrupt:
        tell("stopped")
    summary = detector.summary()
    if options.json:
        print(json.dumps(summary))
    elif summary["label"] is not None:
        print(
            f"{summary['label']}: mean {summary['score']:.3f}, max {summary['max_score']:.3f} of {summary['windows']} "
            f"windows in {summary['seconds']:.1f} s"
        )
        for line in _people(summary):
            print(line)
    for note in summary["warnings"]:
        print(f"  {note}", file=sys.stderr)
    return status


def _line(window: dict, summary: dict) -> str:
    shown = {"score": "score", PART_NAMES["video"]: "video_score", PART_NAMES["audio"]: "audio_score"}
    parts = [
        f"{title} {'-' if window[name] is None else format(window[name], '.3f')}"
        for title, name in shown.items()
    ]
    several = window.get("faces", ()) if len(window.get("faces", ())) > 1 else ()
    people = "".join(f"  person {face['index'] + 1} {_face_score(face)}" for face in several)
    mean = "-" if summary["score"] is None else f"{summary['score']:.3f}"
    return f"{window['start']:8.1f} - {window['end']:8.1f} s  {'  '.join(parts)}  mean so far {mean}{people}"


def _face_score(face: dict) -> str:
    score = face["score"] if face["video_score"] is None else face["video_score"]
    return "-" if score is None else f"{score:.3f}"


def _people(summary: dict) -> Iterator[str]:
    """Yield a line for each of the most suspicious people, where there are several."""
    if summary.get("faces_found", 0) < 2:
        return
    for face in summary["faces"]:
        when = f"{clock(face['start'])} to {clock(face['end'])}"
        yield f"  person {face['index'] + 1}, {when}: {_face_score(face)}"
    if (more := summary["faces_found"] - len(summary["faces"])) > 0:
        yield f"  and {count_of(more, 'face')} with lower scores or none"
