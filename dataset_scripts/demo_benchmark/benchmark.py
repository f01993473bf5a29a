"""The demonstration benchmark: small synthetic copies of FakeAVCeleb v1.2 and MAVOS-DD that anyone can generate.

    python -m dataset_scripts.demo_benchmark --output-dir runs/demo

writes, in the true layouts of the two corpora and with their known quirks,

    runs/demo/FakeAVCeleb_v1.2/      meta_data.csv and 2-second talking-head clips
    runs/demo/MAVOS-DD/              a `datasets.Dataset.save_to_disk` table and clips
    runs/demo/real_annotations.jsonl the generator's own values for the genuine FakeAVCeleb clips
    runs/demo/README.md
    runs/demo/demo_benchmark.json    settings, and the corpora that are complete (written last)

`--level hard` makes forgeries without colour cast and grid (see `levels.py`), and a third corpus, which `--only lav_df` makes at
either level:

    runs/hard/LAV-DF/                metadata.min.json and 6-second clips, the fakes forged for 1.5 to 3 seconds

`layouts.py` plans the clips; `face.py`, `speech.py`, `forgery.py` and `recording.py` draw them. Every clip has its own random stream from
(seed, clip path), so its content does not depend on the number of workers or on the other clips.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torchcodec.encoders import Encoder

from ..demonstration import MARK
from ..files import sha256_of, written_whole
from .face import FRAME_RATE, FRAME_SIZE, SECONDS
from .forgery import DrawnClip, render
from .layouts import (
    FAKEAVCELEB,
    LAV_DF,
    LAV_DF_SECONDS,
    MAVOS_DD,
    TYPES,
    plan_fakeavceleb,
    plan_lav_df,
    plan_mavos,
    write_fakeavceleb_metadata,
    write_lav_df_metadata,
    write_mavos_table,
)
from .levels import HARD, LEVELS, STANDARD
from .speech import SAMPLE_RATE

FOLDERS = {FAKEAVCELEB: "FakeAVCeleb_v1.2", MAVOS_DD: "MAVOS-DD", LAV_DF: "LAV-DF"}
CORPORA = {STANDARD: (FAKEAVCELEB, MAVOS_DD), HARD: (FAKEAVCELEB, MAVOS_DD, LAV_DF)}
Plan = tuple[list[DrawnClip], list]
CRF = 20
# Two runs of x264's macroblock-tree analysis differ on frames this small; without it the bits are always the same.
X264 = {"x264-params": "threads=1:no-mbtree=1"}


def write_clip(path: str | Path, seed: int, clip: DrawnClip) -> None:
    """Render one clip and encode it as H.264 yuv420p and AAC, with the same encoder settings for all clips."""
    rendered = render(seed, clip)
    encoder = Encoder()
    video = encoder.add_video(
        height=FRAME_SIZE,
        width=FRAME_SIZE,
        frame_rate=FRAME_RATE,
        codec="libx264",
        pixel_format="yuv420p",
        crf=CRF,
        preset="veryfast",
        extra_options=X264,
    )
    audio = encoder.add_audio(sample_rate=SAMPLE_RATE, num_channels=1, bit_rate=48_000)
    with written_whole(path) as partial, encoder.open_file(str(partial)):
        video.add_frames(torch.from_numpy(rendered.frames).permute(0, 3, 1, 2).contiguous())
        audio.add_samples(torch.from_numpy(rendered.sound)[None])


def _start_worker() -> None:
    torch.set_num_threads(1)


def _write_batch(root: str, seed: int, clips: list[DrawnClip]) -> int:
    for clip in clips:
        write_clip(Path(root) / clip.path, seed, clip)
    return len(clips)


def write_clips(root: Path, seed: int, clips: list[DrawnClip], workers: int, title: str) -> int:
    """Write the clips that do not exist yet, and return their number."""
    missing = [clip for clip in clips if not (root / clip.path).exists()]
    for folder in {(root / clip.path).parent for clip in missing}:
        folder.mkdir(parents=True, exist_ok=True)
    started, done = time.perf_counter(), 0

    def report() -> None:
        spent = time.perf_counter() - started
        left = spent / max(done, 1) * (len(missing) - done)
        end = "\n" if done == len(missing) else ""
        print(
            f"\r{title}: {done}/{len(missing)} clips, {spent:.0f} s, {left:.0f} s left ",
            end=end,
            file=sys.stderr,
            flush=True,
        )

    batches = [missing[i : i + 8] for i in range(0, len(missing), 8)]
    if workers <= 1:
        for batch in batches:
            done += _write_batch(str(root), seed, batch)
            report()
        return done
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker) as pool:
        for future in as_completed([pool.submit(_write_batch, str(root), seed, batch) for batch in batches]):
            done += future.result()
            report()
    return done


def _code_version() -> str:
    return sha256_of(*sorted(Path(__file__).parent.glob("*.py")))[:16]


def _prepare(output: Path, settings: dict[str, object], corpora: Sequence[str]) -> list[str]:
    """Return which of the complete corpora `output` holds, after removing those of older code or other settings."""
    state = output / MARK
    if state.exists():
        known = json.loads(state.read_text())
        if known["settings"] == settings:
            return known["complete"]
        for corpus in {*CORPORA[known["settings"].get("level", STANDARD)], *known["complete"]}:
            shutil.rmtree(output / FOLDERS[corpus], ignore_errors=True)
    for corpus in corpora:
        _refuse(output / FOLDERS[corpus])
    output.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps({"settings": settings, "complete": []}, indent=2))
    return []


def _refuse(folder: Path) -> None:
    """Raise an error if there is a folder that this script did not make."""
    if folder.exists():
        raise FileExistsError(
            f"{folder} was not made by this script: {MARK} beside it does not list it. Give another output directory."
        )


def make_demo_benchmark(
    output_dir: str | Path,
    seed: int = 0,
    identities: int = 60,
    mavos_scale: float = 1.0,
    workers: int = 2,
    only: str | None = None,
    level: str = STANDARD,
) -> dict[str, object]:
    """Generate the demonstration benchmark, or complete a partial one. A complete one is left alone.

    Args:
        output_dir (`str` or `Path`):
            Folder to write; the module's description shows the tree.
        seed (`int`, *optional*, defaults to 0):
            The same seed gives the same decoded content, whatever the number of workers.
        identities (`int`, *optional*, defaults to 60):
            People in the FakeAVCeleb copy, a multiple of 10; each has 11 clips.
        mavos_scale (`float`, *optional*, defaults to 1):
            Factor on the clips per cell of the MAVOS-DD copy.
        workers (`int`, *optional*, defaults to 2):
            Processes. With 1 everything runs in this process; with more, the caller needs the usual
            `if __name__ == "__main__"` guard.
        only (`str`, *optional*):
            `"fakeavceleb"`, `"mavos_dd"` or `"lav_df"` to make one of the corpora. If left out, the standard level makes
            the first two and the hard level all.
        level (`str`, *optional*, defaults to `"standard"`):
            `"standard"`, or `"hard"` for forgeries without colour cast and grid.

    Returns:
        `dict`: `output_dir`, `seconds`, `written` (clips written now), `counts` (clips per corpus, split and method),
        `bytes` and `complete` (corpora that are complete in the folder).

    Raises:
        `ValueError`: `only`, `level` or the number of identities is wrong.
        `FileExistsError`: the folder holds corpora that this script did not make.
    """
    if level not in LEVELS:
        raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}")
    if only not in (None, *FOLDERS):
        raise ValueError(f"only must be one of {', '.join(FOLDERS)}, got {only!r}")
    started, output = time.perf_counter(), Path(output_dir)
    plans = _plans(seed, identities, mavos_scale, level)
    wanted = (only,) if only else CORPORA[level]
    settings = {"seed": seed, "identities": identities, "mavos_scale": mavos_scale, "code": _code_version()}
    if level != STANDARD:
        settings["level"] = level
    complete = _prepare(output, settings, wanted)
    written = 0
    for corpus, (clips, rows) in plans.items():
        if corpus in complete or corpus not in wanted:
            continue
        root = output / FOLDERS[corpus]
        # An interrupted run leaves no metadata, which are written last.
        if corpus == LAV_DF and (root / "metadata.min.json").exists():
            _refuse(root)
        written += write_clips(root, seed, clips, workers, FOLDERS[corpus])
        if corpus == FAKEAVCELEB:
            write_fakeavceleb_metadata(root, seed, clips, rows)
        elif corpus == MAVOS_DD:
            write_mavos_table(root, rows)
        else:
            write_lav_df_metadata(root, rows)
        complete = sorted({*complete, corpus})
        (output / "README.md").write_text(_readme(settings, _counts(plans, complete)))
        (output / MARK).write_text(json.dumps({"settings": settings, "complete": complete}, indent=2))
    return {
        "output_dir": str(output),
        "seconds": time.perf_counter() - started,
        "written": written,
        "counts": _counts(plans, complete),
        "bytes": sum(file.stat().st_size for file in output.rglob("*") if file.is_file()),
        "complete": complete,
    }


def _plans(seed: int, identities: int, mavos_scale: float, level: str) -> dict[str, Plan]:
    """Return the clips and the rows of metadata of each corpus of a level."""
    plans = {
        FAKEAVCELEB: plan_fakeavceleb(seed, identities),
        MAVOS_DD: plan_mavos(seed, mavos_scale),
        LAV_DF: plan_lav_df(seed, identities),
    }
    return {
        corpus: ([replace(clip, level=level) for clip in clips], rows)
        for corpus, (clips, rows) in plans.items()
    }


def _counts(plans: dict[str, Plan], complete: list[str]) -> dict[str, dict[str, int]]:
    """Return corpus -> kind of clip -> their number, of the complete corpora."""
    letters = {folder: letter for letter, folder in TYPES.items()}
    kinds = {
        FAKEAVCELEB: lambda clip: f"{letters[clip.path.split('/')[0]]} {clip.method}",
        LAV_DF: lambda clip: f"{clip.path.split('/')[0]} {clip.method}{' + rtvc' if clip.fake_audio else ''}",
    }
    counts = {corpus: Counter(map(kind, plans[corpus][0])) for corpus, kind in kinds.items()}
    counts[MAVOS_DD] = Counter(f"{row['split']} {row['generative_method']}" for row in plans[MAVOS_DD][1])
    return {corpus: dict(sorted(counts[corpus].items())) for corpus in complete}


_CUES = {
    STANDARD: [
        "content, and results on it say nothing about results on them. All its generators share a strong local colour",
        "cast and grid on the face, so that a tiny model learns to find them in minutes; the open-set methods are therefore",
        "much easier than real ones. File size, loudness and other global properties are matched between real and fake.",
    ],
    HARD: [
        "content, and results on it say nothing about results on them. Its forgeries are blended in, resampled and drawn",
        "again, its forged voices re-synthesised; there is no colour cast, no grid and no tone. File size, loudness and other",
        "global properties are matched between real and fake.",
    ],
}


def _readme(settings: dict[str, object], counts: dict[str, dict[str, int]]) -> str:
    level = str(settings.get("level", STANDARD))
    copies = "the corpora below" if LAV_DF in counts else "FakeAVCeleb v1.2 and MAVOS-DD (release v1)"
    lines = [
        "# Demonstration benchmark for audio-visual deepfake detection",
        "",
        "Every clip is synthetic: drawn faces, synthesised speech, simulated forgeries. No person appears in it. It has",
        f"the layout, file names and metadata quirks of {copies}, but none of their",
        *_CUES[level],
        "Whoever generates it may use it without any restriction (CC0 1.0).",
        "",
        f"Clips: {SECONDS:g} s, {FRAME_SIZE} x {FRAME_SIZE} pixels, {FRAME_RATE} frames/s, H.264 and AAC, mono at {SAMPLE_RATE} Hz.",
        "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".",
        "",
        "The FakeAVCeleb copy has several genuine clips per person (the corpus has one). `real_annotations.jsonl` holds",
        "the generator's own mouth opening (0..1), loudness (0..1) and pitch (Hz, 0 = unvoiced) of its genuine clips.",
        "",
    ]
    if LAV_DF in counts:
        lines += [f"The LAV-DF copy has clips of {LAV_DF_SECONDS:g} s; a part of each fake is forged.", ""]
    for corpus, table in counts.items():
        lines += [f"| {FOLDERS[corpus]} | clips |", "|---|---:|"]
        lines += [f"| {name} | {number} |" for name, number in table.items()]
        lines += [f"| total | {sum(table.values())} |", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Generate the demonstration benchmark.")
    parser.add_argument("--output-dir", required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--identities", type=int, default=60, help="people in the FakeAVCeleb copy, a multiple of 10"
    )
    parser.add_argument(
        "--mavos-scale", type=float, default=1.0, help="factor on the clips of the MAVOS-DD copy"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--only", choices=list(FOLDERS), help="make one corpus")
    parser.add_argument(
        "--level", choices=list(LEVELS), default=STANDARD, help="how visible the forgeries are [%(default)s]"
    )
    options = vars(parser.parse_args(arguments))
    try:
        result = make_demo_benchmark(**options)
    except (ValueError, FileExistsError) as error:
        parser.error(str(error))
    for corpus, table in result["counts"].items():
        print(f"{FOLDERS[corpus]}: {sum(table.values())} clips")
        for name, number in table.items():
            print(f"  {name:<24}{number:>6}")
    print(
        f"{result['written']} clips written in {result['seconds']:.1f} s, "
        f"{result['bytes'] / 1e6:.1f} MB in {result['output_dir']}"
    )
