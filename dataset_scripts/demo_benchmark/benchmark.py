"""The demonstration benchmark: small synthetic copies of FakeAVCeleb v1.2 and MAVOS-DD that anyone can generate.

    python -m dataset_scripts.demo_benchmark --output-dir runs/demo

writes, in the true layouts of the two corpora and with their known quirks,

    runs/demo/FakeAVCeleb_v1.2/      meta_data.csv and 2-second talking-head clips
    runs/demo/MAVOS-DD/              a `datasets.Dataset.save_to_disk` table and clips
    runs/demo/real_annotations.jsonl what the generator knows about the genuine FakeAVCeleb clips
    runs/demo/README.md
    runs/demo/demo_benchmark.json    settings and which parts are complete (written last)

Faces, speech and forgeries are drawn by `demo_face.py`, `demo_speech.py` and `demo_forgery.py`. Every clip has its own
random stream from (seed, clip path), so its content does not depend on the number of workers or on the other clips.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torchcodec.encoders import Encoder

from dataset_scripts.demo_benchmark.face import FRAME_RATE, FRAME_SIZE, SKIN
from dataset_scripts.demo_benchmark.forgery import SECONDS, Clip, render, truth, utterance_of
from dataset_scripts.demo_benchmark.speech import LANGUAGES, SAMPLE_RATE, name_seed
from dataset_scripts.demonstration import MARK

FAKEAVCELEB, MAVOS_DD = "fakeavceleb", "mavos_dd"
FOLDERS = {FAKEAVCELEB: "FakeAVCeleb_v1.2", MAVOS_DD: "MAVOS-DD"}
GROUPS = [(race, gender) for race in SKIN for gender in ("men", "women")]
TYPES = {
    "A": "RealVideo-RealAudio",
    "B": "RealVideo-FakeAudio",
    "C": "FakeVideo-RealAudio",
    "D": "FakeVideo-FakeAudio",
}
OPEN_LANGUAGES = ("german", "hindi")
IN_DOMAIN_METHODS = ("echomimic", "inswapper", "liveportrait", "memo")
OPEN_METHODS = ("hififace", "roop", "sonic")
# MAVOS-DD clips per language: (split, open-set language?, reals, in-domain fakes, open-set fakes, identities).
MAVOS_CELLS = (
    ("train", False, 16, 16, 0, 8),
    ("validation", False, 3, 4, 0, 2),
    ("test", False, 6, 4, 3, 3),
    ("test", True, 10, 8, 6, 4),
)
CRF = 20
# Two runs of x264's macroblock-tree analysis differ on frames this small; without it the bits are always the same.
X264 = {"x264-params": "threads=1:no-mbtree=1"}


def _youtube_id(rng: np.random.Generator) -> str:
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"
    return "".join(letters[i] for i in rng.integers(len(letters), size=11))


def plan_fakeavceleb(seed: int, identities: int) -> tuple[list[Clip], list[list[str]]]:
    """Plans the FakeAVCeleb copy: clips, and the rows of `meta_data.csv` (with its junk and its duplicated rows).

    Unlike the corpus, which has one genuine clip per person, each person gets three A, two B, three C and three D
    clips, because a model of two million parameters trained from nothing needs more genuine clips.

    Args:
        seed: of the benchmark.
        identities: people; a positive multiple of 10, because the ten (race, gender) groups are equally represented.
    """
    if identities < 10 or identities % 10:
        raise ValueError(
            f"identities must be a positive multiple of 10 (ten race and gender groups), got {identities}"
        )
    rng = np.random.default_rng([seed, *name_seed("plan", FAKEAVCELEB)])
    numbers = np.sort(rng.choice(9000, size=identities, replace=False)) + 20
    names = rng.permutation([f"id{number:05d}" for number in numbers])
    people = [(str(name), *GROUPS[k % 10]) for k, name in enumerate(names)]
    people.sort(key=lambda p: (p[1], p[2], p[0]))
    spoken = sorted(set(LANGUAGES) - set(OPEN_LANGUAGES))
    clips: list[Clip] = []
    rows: list[list[str]] = []
    for index, person in enumerate(people):
        peers = [p for p in people if p[1:] == person[1:] and p != person] or [
            p for p in people if p != person
        ]
        donors = [peers[int(i)] for i in rng.integers(len(peers), size=8)]
        language = spoken[index % len(spoken)]
        first = int(rng.integers(1, 400))
        takes = [f"{first + k:05d}" for k in range(3)]
        tube = _youtube_id(rng)
        number = str(int(rng.integers(1, 12)))

        def add(
            category: str,
            method: str,
            file: str,
            target1: str = "-",
            target2: str = "-",
            *,
            donor: tuple[str, str, str] = donors[0],
            person: tuple[str, str, str] = person,
            language: str = language,
        ) -> None:
            name, race, gender = person
            folder = f"{TYPES[category]}/{race}/{gender}/{name}"
            scene = f"{TYPES['A']}/{race}/{gender}/{name}/{file.removesuffix('.mp4').split('_')[0]}.mp4"
            clips.append(Clip(f"{folder}/{file}", scene, person, donor, language, method, category in "BD"))
            row = [name, target1, target2, method, category, TYPES[category], race, gender, file]
            rows.append([*row, f"FakeAVCeleb/{folder}"])

        for take in takes:
            add("A", "real", f"{take}.mp4")
        for take in takes[:2]:
            add("B", "rtvc", f"{take}_fake.mp4", "fake.mp4")
        one, two, three = takes
        d = [donor[0] for donor in donors]
        if index % 2:
            add("C", "faceswap", f"{one}_{d[0]}_{tube}_faceswap.mp4", d[0], donor=donors[0])
        else:
            add("C", "faceswap", f"{one}_{number}.mp4", f"{number}.mp4", donor=donors[0])
        add("C", "fsgan", f"{two}_{d[1]}_{tube}.mp4", d[1], donor=donors[1])
        add("C", "wav2lip", f"{three}_{d[2]}_wavtolip.mp4", d[2], donor=donors[2])
        if index % 2:
            file = f"{two}_{d[3]}_{tube}_faceswap_{d[4]}_wavtolip.mp4"
            add("D", "faceswap-wav2lip", file, d[3], "faceswap", donor=donors[3])
        else:
            add("D", "faceswap-wav2lip", f"{two}_{number}_{d[4]}_wavtolip.mp4", number, donor=donors[3])
        file = f"{three}_{d[5]}_{tube}_{d[6]}_wavtolip.mp4"
        add("D", "fsgan-wav2lip", file, d[5], d[6], donor=donors[5])
        add("D", "wav2lip", f"{one}_{d[7]}_wavtolip.mp4", d[7], donor=donors[7])
        if index % 10 == 0:  # the corpus lists 22 D files twice, under two methods
            twice = list(rows[-1])
            twice[3] = "faceswap-wav2lip"
            rows.insert(len(rows) - 1, twice)
    rows.sort(key=lambda row: row[4])
    return clips, rows


def plan_mavos(seed: int, scale: float = 1.0) -> tuple[list[Clip], list[dict[str, object]]]:
    """Plans the MAVOS-DD copy: clips and the rows of its table (columns of release v1).

    People never appear in two splits. Open-set methods and languages appear in the test split only.

    Args:
        seed: of the benchmark.
        scale: multiplies the number of clips of each cell (at least one clip each).
    """
    rng = np.random.default_rng([seed, *name_seed("plan", MAVOS_DD)])
    clips: list[Clip] = []
    rows: list[dict[str, object]] = []
    for language in sorted(LANGUAGES):
        unseen = language in OPEN_LANGUAGES
        for split, for_open, *counts, people_count in MAVOS_CELLS:
            if for_open != unseen:
                continue
            reals, fakes, open_fakes = (0 if n == 0 else max(1, round(n * scale)) for n in counts)
            people = [
                (f"mavos-{language}-{split}-{k}", *GROUPS[int(rng.integers(10))])
                for k in range(max(2, round(people_count * scale)))
            ]
            scenes: list[tuple[str, tuple[str, str, str]]] = []

            def add(
                method: str,
                file: str,
                scene: str,
                person: tuple[str, str, str],
                donor: tuple[str, str, str],
                language: str = language,
                split: str = split,
                unseen: bool = unseen,
            ) -> None:
                path = f"{language}/{method}/{file}"
                clips.append(Clip(path, scene, person, donor, language, method))
                rows.append(
                    {
                        "video_path": path,
                        "label": "real" if method == "real" else "fake",
                        "split": split,
                        "open_set_model": method in OPEN_METHODS,
                        "open_set_language": unseen,
                        "language": language,
                        "generative_method": method,
                    }
                )

            for k in range(reals):
                person = people[k % len(people)]
                file = f"{_youtube_id(rng)}_{int(rng.integers(10, 900))}_{k}.mp4"
                scenes.append((f"{language}/real/{file}", person))
                add("real", file, scenes[-1][0], person, person)
            for methods, count in ((IN_DOMAIN_METHODS, fakes), (OPEN_METHODS, open_fakes)):
                for k in range(count):
                    scene, person = scenes[int(rng.integers(len(scenes)))]
                    others = [p for p in people if p != person]
                    donor = others[int(rng.integers(len(others)))]
                    stem = scene.rsplit("/", 1)[1]
                    file = f"{int(rng.integers(100000)):05d}.png_{stem}.mp4"
                    add(methods[k % len(methods)], file, scene, person, donor)
    return clips, rows


def write_clip(path: str | Path, seed: int, clip: Clip) -> None:
    """Renders and encodes one clip (H.264 yuv420p and AAC, one encoder setting for all), atomically."""
    rendered = render(seed, clip)
    path = Path(path)
    partial = path.with_name(f".{hashlib.sha1(path.name.encode()).hexdigest()[:12]}.partial.mp4")
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
    with encoder.open_file(str(partial)):
        video.add_frames(torch.from_numpy(rendered.frames).permute(0, 3, 1, 2).contiguous())
        audio.add_samples(torch.from_numpy(rendered.sound)[None])
    os.replace(partial, path)


def _start_worker() -> None:
    torch.set_num_threads(1)


def _write_batch(root: str, seed: int, clips: list[Clip]) -> int:
    for clip in clips:
        write_clip(Path(root) / clip.path, seed, clip)
    return len(clips)


def _generate(root: Path, seed: int, clips: list[Clip], workers: int, title: str) -> int:
    """Writes the clips that are not there yet; returns how many."""
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


def _finish_fakeavceleb(root: Path, seed: int, clips: list[Clip], rows: list[list[str]]) -> None:
    header = ["source", "target1", "target2", "method", "category", "type", "race", "gender", "path", ""]
    with open(root / "meta_data.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\r\n")
        writer.writerow(header)
        writer.writerows(rows)
    for folder in {
        (root / clip.path).parent for clip in clips if clip.method == "real"
    }:  # stray files of the corpus
        (folder / f"{folder.name}.txt").write_text("stray text file, as in the corpus\n")
    (root / "readme.txt").write_text("Synthetic demonstration copy; see ../README.md\n")
    with open(root.parent / "real_annotations.jsonl", "w", encoding="utf-8") as file:
        for clip in clips:
            if clip.method == "real":
                known = {"path": clip.path, "identity": clip.person[0], "language": clip.language}
                file.write(json.dumps(known | truth(utterance_of(seed, clip))) + "\n")


def _finish_mavos(root: Path, rows: list[dict[str, object]]) -> None:
    from datasets import Dataset, Features, Value
    from datasets.utils.logging import disable_progress_bar, enable_progress_bar

    kinds = {name: Value("bool" if name.startswith("open_set") else "string") for name in rows[0]}
    disable_progress_bar()
    Dataset.from_list(rows, features=Features(kinds)).save_to_disk(str(root))
    enable_progress_bar()


def _code_version() -> str:
    digest = hashlib.sha256()
    for name in ("benchmark.py", "face.py", "forgery.py", "speech.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:16]


def _prepare(output: Path, settings: dict[str, object]) -> list[str]:
    """Returns the corpora already complete in `output`; clears what an older code or other settings left there."""
    state = output / MARK
    if state.exists():
        known = json.loads(state.read_text())
        if known["settings"] == settings:
            return known["complete"]
        for folder in FOLDERS.values():
            shutil.rmtree(output / folder, ignore_errors=True)
    elif any((output / folder).exists() for folder in FOLDERS.values()):
        raise FileExistsError(
            f"{output} holds {' or '.join(FOLDERS.values())} but no {MARK}, so it was not made by this script; "
            "give another output directory"
        )
    output.mkdir(parents=True, exist_ok=True)
    state.write_text(json.dumps({"settings": settings, "complete": []}, indent=2))
    return []


def make_demo_benchmark(
    output_dir: str | Path,
    seed: int = 0,
    identities: int = 60,
    mavos_scale: float = 1.0,
    workers: int = 2,
    only: str | None = None,
) -> dict[str, object]:
    """Generates the demonstration benchmark, or completes a partial one, or does nothing if it is there.

    Args:
        output_dir: where to write; see the module's description for the tree.
        seed: same seed, same decoded content, whatever the number of workers.
        identities: people in the FakeAVCeleb copy (a multiple of 10); 11 clips each.
        mavos_scale: multiplies the clips per cell of the MAVOS-DD copy.
        workers: processes; with 1 everything runs in this process. With more, the caller needs the usual
            `if __name__ == "__main__"` guard.
        only: `"fakeavceleb"` or `"mavos_dd"` to make one of the two.

    Returns:
        dict with `output_dir`, `seconds`, `written` (clips written now), `counts` (clips per corpus, split and
        method), `bytes` and `complete` (corpora complete in the directory).

    Raises:
        ValueError: on a wrong `only` or number of identities.
        FileExistsError: if the directory holds corpora that this script did not make.
    """
    if only not in (None, *FOLDERS):
        raise ValueError(f"only must be one of {', '.join(FOLDERS)}, got {only!r}")
    started, output = time.perf_counter(), Path(output_dir)
    clips_favc, rows_favc = plan_fakeavceleb(seed, identities)
    clips_mavos, rows_mavos = plan_mavos(seed, mavos_scale)
    settings = {"seed": seed, "identities": identities, "mavos_scale": mavos_scale, "code": _code_version()}
    complete = _prepare(output, settings)
    written = 0
    plans = {FAKEAVCELEB: clips_favc, MAVOS_DD: clips_mavos}
    for corpus, clips in plans.items():
        if corpus in complete or only not in (None, corpus):
            continue
        root = output / FOLDERS[corpus]
        written += _generate(root, seed, clips, workers, FOLDERS[corpus])
        if corpus == FAKEAVCELEB:
            _finish_fakeavceleb(root, seed, clips, rows_favc)
        else:
            _finish_mavos(root, rows_mavos)
        complete = sorted({*complete, corpus})
        counts = _counts(clips_favc, rows_mavos, complete)
        (output / "README.md").write_text(_readme(settings, counts))
        (output / MARK).write_text(json.dumps({"settings": settings, "complete": complete}, indent=2))
    size = sum(file.stat().st_size for file in output.rglob("*") if file.is_file())
    return {
        "output_dir": str(output),
        "seconds": time.perf_counter() - started,
        "written": written,
        "counts": _counts(clips_favc, rows_mavos, complete),
        "bytes": size,
        "complete": complete,
    }


def _counts(
    clips: list[Clip], rows: list[dict[str, object]], complete: list[str]
) -> dict[str, dict[str, int]]:
    by_type = {folder: letter for letter, folder in TYPES.items()}
    favc = Counter(f"{by_type[clip.path.split('/')[0]]} {clip.method}" for clip in clips)
    mavos = Counter(f"{row['split']} {row['generative_method']}" for row in rows)
    counts = {FAKEAVCELEB: dict(sorted(favc.items())), MAVOS_DD: dict(sorted(mavos.items()))}
    return {corpus: counts[corpus] for corpus in complete}


def _readme(settings: dict[str, object], counts: dict[str, dict[str, int]]) -> str:
    lines = [
        "# Demonstration benchmark for audio-visual deepfake detection",
        "",
        "Every clip is synthetic: drawn faces, synthesised speech, simulated forgeries. No person appears in it. It has",
        "the layout, file names and metadata quirks of FakeAVCeleb v1.2 and MAVOS-DD (release v1), but none of their",
        "content, and results on it say nothing about results on them. All its generators share a strong local colour",
        "cast and grid on the face, so that a tiny model learns to find them in minutes; the open-set methods are therefore",
        "much easier than real ones. File size, loudness and other global properties are matched between real and fake.",
        "Whoever generates it may use it without any restriction (CC0 1.0).",
        "",
        f"Clips: {SECONDS:g} s, {FRAME_SIZE} x {FRAME_SIZE} pixels, {FRAME_RATE} frames/s, H.264 and AAC, mono at {SAMPLE_RATE} Hz.",
        "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + ".",
        "",
        "The FakeAVCeleb copy has several genuine clips per person (the corpus has one). `real_annotations.jsonl` holds",
        "the generator's own mouth opening (0..1), loudness (0..1) and pitch (Hz, 0 = unvoiced) of its genuine clips.",
        "",
    ]
    for corpus, table in counts.items():
        lines += [f"| {FOLDERS[corpus]} | clips |", "|---|---:|"]
        lines += [f"| {name} | {number} |" for name, number in table.items()]
        lines += [f"| total | {sum(table.values())} |", ""]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Command line; see `--help`."""
    parser = argparse.ArgumentParser(description="Generate the demonstration benchmark.")
    parser.add_argument("--output-dir", required=True, help="where to write it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--identities", type=int, default=60, help="people in the FakeAVCeleb copy, a multiple of 10"
    )
    parser.add_argument(
        "--mavos-scale", type=float, default=1.0, help="multiplies the clips of the MAVOS-DD copy"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--only", choices=list(FOLDERS), help="make one of the two corpora")
    options = vars(parser.parse_args(arguments))
    result = make_demo_benchmark(**options)
    for corpus, table in result["counts"].items():
        print(f"{FOLDERS[corpus]}: {sum(table.values())} clips")
        for name, number in table.items():
            print(f"  {name:<24}{number:>6}")
    print(
        f"{result['written']} clips written in {result['seconds']:.1f} s, "
        f"{result['bytes'] / 1e6:.1f} MB in {result['output_dir']}"
    )
