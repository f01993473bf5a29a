"""A case report: everything about one file's verdict that a desk keeps with the file, as one HTML page or as PDF."""

import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from dataset_scripts.files import sha256_of

from ..configuration_detector import AVDetectorConfig
from ..explain.attribution import Attribution
from ..explain.regions import BAND_NAMES, REGION_NAMES
from ..explain.words import (
    capital,
    clock,
    deciding,
    describe_disagreement,
    headline,
    how_attributed,
    meaning,
    part_rows,
)
from ..inference.identity import detector_identity
from ..inference.provenance import environment
from ..media import MediaError, MediaReader
from ..media_sources import is_link, name_of
from ..pipeline_avd import AVDeepfakeDetectionPipeline, split_source
from .figures import (
    Draw,
    describe_attribution,
    describe_timeline,
    draw_disagreement,
    draw_picture,
    draw_ranking,
    draw_sound,
    draw_timeline,
    full_colour,
    svg,
)

TAGS = (
    "encoder",
    "creation_time",
    "major_brand",
    "com.apple.quicktime.make",
    "com.apple.quicktime.model",
    "title",
    "comment",
)
"""What a container says of its origin, as far as it says anything; anyone can write anything there."""


@dataclass
class Plot:
    """A figure of a report: what it shows, and in words for those who do not see it."""

    title: str
    caption: str
    words: str
    draw: Draw
    width: float
    height: float

    @property
    def svg(self) -> str:
        return svg(self.draw, self.width, self.height)


@dataclass
class Case:
    """
    One file, one verdict, and what is needed to check it.

    Attributes:
        name (`str`): The file, as it was named.
        time (`str`): When the case was made, UTC, ISO 8601.
        headline (`str`): The verdict in a few words.
        result (`dict`): All that the pipeline gave.
        parts (`list[dict]`): The verdicts on whole, picture and sound, each with its meaning ([`part_rows`]).
        meaning (`list[str]`): What the verdict means and does not, in sentences.
        notice (`str`, *optional*): What has to be known of the detector before anything else.
        warnings (`list[str]`): What was odd about the file.
        sha256 (`str`, *optional*): Of the file's bytes; None where there are none to hash, as for a link.
        file, detector, software (`list[tuple[str, str]]`): Facts, by name.
        timeline (`list[dict]`): The windows.
        plots (`list[Plot]`): Of the timeline.
        attribution ([`Attribution`], *optional*), attribution_plots (`list[Plot]`): What the detector looked at.
        conversation (`list[tuple[str, str]]`): Who said what.
    """

    name: str
    time: str
    headline: str
    result: dict
    parts: list[dict]
    meaning: list[str]
    notice: str | None
    warnings: list[str]
    sha256: str | None
    file: list[tuple[str, str]]
    detector: list[tuple[str, str]]
    software: list[tuple[str, str]]
    timeline: list[dict]
    plots: list[Plot] = field(default_factory=list)
    attribution: Attribution | None = None
    attribution_plots: list[Plot] = field(default_factory=list)
    conversation: list[tuple[str, str]] = field(default_factory=list)


def build_case(
    file: Any,
    result: dict,
    *,
    detector: AVDeepfakeDetectionPipeline,
    attribution: Attribution | None = None,
    conversation: Sequence[Mapping] | None = None,
    time: datetime | None = None,
) -> Case:
    """
    Puts together what is known of a file and its verdict.

    ```python
    >>> result = detector("clip.mp4")
    >>> case = build_case("clip.mp4", result, detector=detector, attribution=attribute(detector, "clip.mp4"))
    >>> write_html(case, "clip.html")
    >>> write_pdf(case, "clip.pdf")
    ```

    Args:
        file (path, URL, `bytes`, `{"video": ..., "audio": ...}`, ...): What the pipeline was given.
        result (`dict`): What it gave.
        detector ([`AVDeepfakeDetectionPipeline`]): Whose verdict it is; with a gate, `result["decided_by"]` tells which.
        attribution ([`Attribution`], *optional*): What the detector looked at.
        conversation (`Sequence[Mapping]`, *optional*): Questions and answers about the file: messages with `role` and `content`.
        time (`datetime`, *optional*): When; now, if left out.

    Raises:
        OSError: when the file is gone.
    """
    now = (time or datetime.now(timezone.utc)).astimezone(timezone.utc)
    judge = deciding(detector, result)
    config: AVDetectorConfig = judge.model.config
    sha256, facts = file_facts(file)
    case = Case(
        name=_title(file),
        time=now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        headline=headline(result),
        result=result,
        parts=part_rows(result),
        meaning=meaning(result, config),
        notice=config.notice,
        warnings=[text for text in result["warnings"] if text != config.notice],
        sha256=sha256,
        file=facts,
        detector=detector_facts(detector, result),
        software=[(name, str(value)) for name, value in environment().items()],
        timeline=result["windows"],
        attribution=attribution,
        conversation=[(str(turn["role"]), _spoken(turn["content"])) for turn in conversation or ()],
    )
    if result["error"] is not None:
        case.warnings.append(f"Reading stopped: {result['error']['message']}")
    if len(result["windows"]) > 1:
        case.plots.append(timeline_plot(result))
    if result.get("timeline"):
        case.plots.append(disagreement_plot(result))
    if attribution is not None:
        case.attribution_plots = attribution_plots(attribution)
    return case


def timeline_plot(result: dict) -> Plot:
    """Scores over time, of a file of several windows."""
    return Plot(
        "Over time",
        "Score of each window. Solid with circles: the whole; dashed with squares: the picture; dotted with triangles: the sound.",
        describe_timeline(result),
        partial(draw_timeline, result=result),
        7.4,
        2.6,
    )


def disagreement_plot(result: dict) -> Plot:
    """Picture against sound over time, of a detector that compares them."""
    return Plot(
        "Picture against sound",
        "How little the picture of each frame belongs to the sound of its moment.",
        describe_disagreement(result),
        partial(draw_disagreement, result=result),
        7.4,
        1.8,
    )


def attribution_plots(found: Attribution) -> list[Plot]:
    """The maps and rankings of an attribution."""
    plots = []
    covering = found.method == "occlusion"
    falls = "score falls" if found.measure == "score" else "log-odds fall"
    if found.picture is not None:
        count, rows, columns = found.picture.shape
        step, r, c = (int(i) for i in _strongest(found.picture))
        height, width = found.frames.shape[1:3]
        colours = (
            f"Orange: the {falls} without this cell; purple: the opposite."
            if covering
            else "Orange: this cell raised the log-odds; purple: it lowered them."
        )
        place = f"at {clock(found.frame_times[step])}, row {r + 1} of {rows} from the top and column {c + 1} of {columns} from the left"
        plots.append(
            Plot(
                "In the picture",
                f"{colours} The outlined cell is the strongest of its step; full colour is a change of {full_colour(found):.3f}.",
                _largest(found.picture[step, r, c], place, "cell", covering),
                partial(draw_picture, found=found),
                7.4 if count > 1 else 3.2,
                min(4.2, 7.0 / max(count, 2) * height / width + 0.75),
            )
        )
        plots.append(
            Plot(
                "By region of the face",
                f"How far the {falls} when a region is covered all through, under a fixed layout of a face crop."
                if covering
                else "How far each region moved the log-odds, under a fixed layout of a face crop.",
                describe_attribution(found.regions, REGION_NAMES),
                partial(draw_ranking, values=found.regions, names=REGION_NAMES, axis=_axis(found)),
                5.2,
                0.7 + 0.27 * len(found.regions),
            )
        )
    if found.sound is not None:
        band, step = (int(i) for i in _strongest(found.sound))
        low, high = found.band_edges_hz[band : band + 2]
        place = f"between {low:.0f} and {high:.0f} Hz around {clock(found.times[step])}"
        plots.append(
            Plot(
                "In the sound",
                f"Below, how far the {falls} without a band of frequencies in a passage (the outlined one most); above, without "
                "the whole passage."
                if covering
                else "Below, how far each band of frequencies in a passage moved the log-odds (the outlined one most); above, all of "
                "the passage.",
                _largest(found.sound[band, step], place, "band of a passage", covering),
                partial(draw_sound, found=found),
                7.4,
                3.4,
            )
        )
        plots.append(
            Plot(
                "By band of the sound",
                f"How far the {falls} when a band is taken out all through."
                if covering
                else "How far each band moved the log-odds, all through.",
                describe_attribution(found.bands, BAND_NAMES),
                partial(draw_ranking, values=found.bands, names=BAND_NAMES, axis=_axis(found)),
                5.2,
                0.7 + 0.27 * len(found.bands),
            )
        )
    return plots


def _axis(found: Attribution) -> str:
    return "drop when covered" if found.method == "occlusion" else "share of the log-odds"


def _largest(value: float, place: str, what: str, covering: bool) -> str:
    if value <= 0:
        return f"There is no {what} that raises it."
    return f"The largest {'drop' if covering else 'share'}, {value:+.3f}, is {place}."


def file_facts(source: Any) -> tuple[str | None, list[tuple[str, str]]]:
    """SHA-256 of a source's bytes, where it has any here, and what its container says."""
    media, audio = split_source(source)
    if isinstance(media, Mapping) and not {"frames", "audio", "array"} & set(media):
        media = media["bytes"] if media.get("bytes") is not None else media.get("path")
    facts, sha256 = [("Name", _title(source))], None
    if isinstance(media, bytes):
        sha256 = hashlib.sha256(media).hexdigest()
        facts += [("SHA-256", sha256), ("Size", _size(len(media)))]
    elif is_link(media):
        facts.append(
            (
                "SHA-256",
                "none: a link was read, and what it leads to can change. Save the file and look at that to have one.",
            )
        )
    elif isinstance(media, str | Path):
        sha256 = sha256_of(media)
        about = os.stat(media)
        changed = (
            datetime.fromtimestamp(about.st_mtime, timezone.utc)
            .isoformat(timespec="seconds")
            .replace("+00:00", "Z")
        )
        facts += [("SHA-256", sha256), ("Size", _size(about.st_size)), ("Changed", changed)]
    else:
        facts.append(("SHA-256", "none: frames and samples were given, not a file"))
    if isinstance(audio, str | Path) and not is_link(audio):
        facts.append(("Separate sound", f"{audio} (SHA-256 {sha256_of(audio)})"))
    if not is_link(media):  # which would be fetched once more, and may be another file by now
        facts += _media_facts(media, audio)
    return sha256, facts


def _media_facts(media: Any, audio: Any) -> list[tuple[str, str]]:
    facts = []
    if isinstance(media, str | Path) and shutil.which("ffprobe"):
        from ..evaluation.audit.file_properties import probe_file

        try:
            container = probe_file(str(Path(media).absolute())).get("format", {})
        except MediaError as error:
            facts.append(("Container", f"not known: {error.reason}"))
        else:
            facts.append(
                ("Container", str(container.get("format_long_name") or container.get("format_name")))
            )
            tags = {name.lower(): value for name, value in container.get("tags", {}).items()}
            facts += [(f"Tag {name.rpartition('.')[2]}", str(tags[name])) for name in TAGS if name in tags]
    try:
        with MediaReader(media, audio=audio) as reader:
            info = reader.info
    except MediaError as error:
        return [*facts, ("Tracks", f"cannot be read: {error.reason}")]
    facts.append(("Length", f"{clock(info.duration)} ({info.duration:.3f} s)"))
    if info.has_video:
        codec = f"{info.video_codec}, " if info.video_codec else ""
        facts.append(
            (
                "Picture",
                f"{codec}{info.width} x {info.height}, {info.average_fps:.3g} frames/s, {info.num_frames} frames",
            )
        )
    else:
        facts.append(("Picture", "none"))
    if info.has_audio:
        codec = f"{info.audio_codec}, " if info.audio_codec else ""
        facts.append(("Sound", f"{codec}{info.sampling_rate} Hz"))
    else:
        facts.append(("Sound", "none"))
    if info.has_audio and info.has_video and abs(info.av_offset) > 0.001:
        facts.append(("Sound starts", f"{info.av_offset:+.3f} s after the picture"))
    return facts


def detector_facts(detector: AVDeepfakeDetectionPipeline, result: dict) -> list[tuple[str, str]]:
    """Which detector gave the verdict, so that the same one can be asked again."""
    judge = deciding(detector, result)
    config, name = judge.model.config, judge.model.name_or_path
    revision = getattr(config, "_commit_hash", None)
    identity = detector_identity(judge.model, judge.processor)
    facts = [
        ("Model", Path(name).name if os.path.isdir(name) else name or "not loaded from anywhere"),
        ("Revision", revision or "none: a folder, not a repository"),
        ("Kind", type(judge.model).__name__),
        *((f"Fingerprint, {key}", value) for key, value in identity.items() if key != "dtype"),
        ("Numbers", identity["dtype"]),
        ("Threshold", f"{result['threshold']:.4f}"),
    ]
    temperature = config.temperature
    fitted = (
        ", ".join(f"{part} {value:.3f}" for part, value in temperature.items())
        if temperature
        else "none: not calibrated"
    )
    facts.append(("Temperature", fitted))
    if band := config.abstain_band:
        facts.append(("Uncertain scores", f"{band[0]:.4f} to {band[1]:.4f}"))
    if detector.gate is not None:
        low, high = detector.gate.band
        sure = f"sure below {low:.3f} and above {high:.3f}"
        if "decided_by" in result:
            own = result["decided_by"] == "gate"
            score = "-" if result["gate_score"] is None else f"{result['gate_score']:.4f}"
            sure = f"score {score}, {sure}: {'its own verdict stands' if own else 'not sure, so the model was asked'}"
        facts.append(("Gate", sure))
    return facts


def write_html(case: Case, path: str | Path) -> None:
    """Writes a case as one HTML file that asks for nothing else: styles and plots are inside."""
    Path(path).write_text(template("case.html").render(case=case), encoding="utf-8")


def write_pdf(case: Case, path: str | Path) -> None:
    """Writes a case as PDF, A4."""
    from .pdf import write_pages

    write_pages(case, Path(path))


def template(name: str) -> jinja2.Template:
    """A template of `templates_report`; everything is escaped but the plots."""
    loader = jinja2.PackageLoader(__package__, "templates")
    loaded = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    loaded.filters |= {"clock": clock, "how_attributed": how_attributed, "capital": capital}
    return loaded.get_template(name)


def case_stem(file: str) -> str:
    """What a case's files are called: the name of what was looked at, and a hash of where it lies, as names repeat."""
    where = file if is_link(file) else os.path.abspath(file)
    name = re.sub(r"[^\w.-]+", "_", Path(name_of(file)).name)[:80] or "file"
    return f"{name}-{hashlib.sha256(where.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}"


def _title(source: Any) -> str:
    media, _ = split_source(source)
    name = name_of(media)
    # Bytes that are no text, and characters that would turn the line around, are shown as what they are.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _size(count: int) -> str:
    value, unit = float(count), "bytes"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit} ({count} bytes)"


def _spoken(content: Any) -> str:
    """The text of a message, whose content is text or a list of parts."""
    if isinstance(content, str):
        return content
    parts = [part["text"] if part.get("type") == "text" else f"[{part.get('type')}]" for part in content]
    return "\n".join(parts)


def _strongest(values: np.ndarray) -> tuple:
    return np.unravel_index(values.argmax(), values.shape)


__all__ = ["Case", "Plot", "build_case", "write_html", "write_pdf"]
