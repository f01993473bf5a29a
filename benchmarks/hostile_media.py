"""Score mutated media files, and count what a service must not do: crash, hang, give a verdict without a word.

    python benchmarks/hostile_media.py --files 500 --seed 0 --save
    python benchmarks/hostile_media.py --files 40 --here        decode in this process: a crash of FFmpeg ends the script

Twenty seed files of 2 s are made with ffmpeg, one for each container and codec below. Each mutated file is one of them
with bytes flipped, blocks overwritten, zeroed, removed, doubled or swapped, noise in its header, or its end cut off; a number
makes the same files again. The demonstration's detector, which judges any picture and any sound, scores them as `detect` does. For each format:

- `crashes`: files that ended the process which decoded them. The run goes on; without reader processes it would end.
- `hangs`: files that took longer than `--limit` seconds, and were stopped.
- `refused`: other files with an error in place of a verdict.
- `warned`: verdicts with a warning that the seed file does not get.
- `silent`: verdicts without one, though FFmpeg's command line reports an error (`ffmpeg -v error`) or the duration is more than
  0.4 s off that of the seed file.
- `same`: other verdicts without one, on the very pictures and sound of the seed file, bit by bit.
- `unnoticed`: the rest. Pictures or sound differ, and FFmpeg finds nothing wrong with them: other bytes of PCM sound, say.
- `escaped`: exceptions that would have ended the run.
- `peak_gib`: largest resident memory of a reader process.
"""

import argparse
import contextlib
import hashlib
import random
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from results import write_results

from modeling_avlmm.inference.default_model import DEMONSTRATION_MODEL
from modeling_avlmm.inference.loading import load_detector
from modeling_avlmm.inference.reader_process import ReaderLimits, reader_processes
from modeling_avlmm.media import MediaReader

EXACT = "-threads 1 -fflags +bitexact -flags:v +bitexact -flags:a +bitexact"  # so that a number makes the same files
H264 = "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p"
HEVC = "-c:v libx265 -x265-params log-level=none:pools=none:frame-threads=1 -pix_fmt yuv420p"
SEEDS = {
    "mp4": f"{H264} -c:a aac",
    "fragmented.mp4": f"{H264} -c:a aac -movflags frag_keyframe+empty_moov",
    "mov": f"{H264} -c:a pcm_s16le",
    "mkv": f"{H264} -c:a libopus",
    "hevc.mp4": f"{HEVC} -c:a aac",
    "ts": f"{H264} -c:a aac",
    "hevc.ts": f"{HEVC} -c:a aac",
    "mpeg2.ts": "-c:v mpeg2video -c:a mp2",
    "webm": "-c:v libvpx -deadline realtime -c:a libvorbis",
    "vp9.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus",
    "avi": "-c:v mpeg4 -c:a libmp3lame",
    "mjpeg.avi": "-c:v mjpeg -pix_fmt yuvj420p -c:a pcm_s16le",
    "mpg": "-c:v mpeg2video -c:a mp2",
    "flv": "-c:v flv -c:a libmp3lame -ar 44100",
    "wmv": "-c:v wmv2 -c:a wmav2",
    "ogv": "-c:v libtheora -c:a libvorbis",
    "3gp": "-c:v h263 -s 176x144 -c:a aac",
    "mp3": "-vn -c:a libmp3lame",
    "wav": "-vn -c:a pcm_s16le",
    "flac": "-vn -c:a flac",
}
SECONDS = 2
OUTCOMES = ("crashes", "hangs", "refused", "warned", "silent", "escaped", "same", "unnoticed")


def make_seeds(folder: Path) -> dict[str, Path]:
    """Make the seed files."""
    made = {}
    for name, codecs in SEEDS.items():
        made[name] = folder / f"seed.{name}"
        inputs = (
            f"-f lavfi -i testsrc2=size=320x240:rate=25:duration={SECONDS} -f lavfi -i sine=220:d={SECONDS}"
        )
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-nostdin",
            "-y",
            *inputs.split(),
            *codecs.split(),
            *EXACT.split(),
            str(made[name]),
        ]
        subprocess.run(command, check=True)
    return made


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return data with one to three faults."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data))
        block = slice(at, at + rng.choice((16, 256, 4096)))
        kind = rng.choice(("flip", "noise", "zero", "remove", "double", "swap", "head", "cut"))
        if kind == "flip":
            for _ in range(rng.randint(1, 64)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif kind == "noise":
            data[block] = rng.randbytes(len(data[block]))
        elif kind == "zero":
            data[block] = bytes(len(data[block]))
        elif kind == "remove":
            del data[block]
        elif kind == "double":
            data[at:at] = data[block]
        elif kind == "swap":
            other = rng.randrange(len(data))
            size = min(256, len(data) - max(at, other))
            data[at : at + size], data[other : other + size] = (
                data[other : other + size],
                data[at : at + size],
            )
        elif kind == "head":
            for _ in range(rng.randint(1, 16)):
                data[rng.randrange(min(2048, len(data)))] = rng.randrange(256)
        else:
            del data[max(64, at) :]
        if len(data) < 64:
            return bytes(data) + b"\0"
    return bytes(data)


class Peak(threading.Thread):
    """Watches the resident memory of the reader processes, grandchildren of this one, in GiB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.gib, self.ended = 0.0, threading.Event()

    def run(self):
        while not self.ended.wait(0.1):
            for status in Path("/proc").glob("[0-9]*/status"):
                with contextlib.suppress(OSError):
                    lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
                    line = (status.parent / "cmdline").read_bytes()
                    if b"reader_server" in line and "VmHWM" in lines:
                        self.gib = max(self.gib, int(lines["VmHWM"].split()[0]) / 1024**2)


def complains(path: Path) -> bool:
    """Return whether FFmpeg's command line reports an error in a file; what it says of its output does not count."""
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", str(path), "-f", "null", "-"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
        return done.returncode != 0 or any(
            not line.startswith(b"[null @") for line in done.stderr.splitlines()
        )
    return True


def content(path: Path) -> str:
    """Return a hash of the pictures and the sound of a file."""
    digest = hashlib.sha256()
    with MediaReader(path) as reader:
        for start, end in reader.windows(1.0):
            clip = reader.read(start, end, fps=25)
            for part in (clip.frames, clip.timestamps, clip.audio):
                digest.update(b"none" if part is None else part.contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass
class Seed:
    """A seed file, and what its own verdict and content are like."""

    path: Path
    duration: float
    warnings: set[str]
    content: str


def outcome(result: dict, path: Path, seed: Seed) -> str:
    """Return what became of a file that was made of a seed file."""
    error = result["error"]
    if error is not None:
        return {"DecoderCrashedError": "crashes", "DecoderStalledError": "hangs"}.get(
            error["type"], "refused"
        )
    if set(result["warnings"]) - seed.warnings:
        return "warned"
    if abs(result["duration"] - seed.duration) > 0.4 or complains(path):
        return "silent"
    return "same" if content(path) == seed.content else "unnoticed"


def main():
    """Run the campaign."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=500, help="mutated files [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="number of the campaign [%(default)s]")
    parser.add_argument(
        "--limit", type=float, default=60.0, metavar="SECONDS", help="for a window [%(default)g]"
    )
    parser.add_argument("--memory", type=float, default=4.0, metavar="GIB", help="for a file [%(default)g]")
    parser.add_argument("--here", action="store_true", help="decode in this process")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep files that crash, hang or are silent here"
    )
    parser.add_argument("--save", action="store_true", help="write the table to benchmarks/results")
    options = parser.parse_args()
    counts: dict[str, Counter] = {name: Counter() for name in SEEDS}
    detector, _ = load_detector(str(DEMONSTRATION_MODEL), "cpu")
    peak, began = Peak(), time.monotonic()
    peak.start()
    limits = ReaderLimits(seconds=options.limit, memory_gib=options.memory)
    apart = contextlib.nullcontext() if options.here else reader_processes(limits)
    with tempfile.TemporaryDirectory() as folder, apart:
        seeds = {}
        for name, path in make_seeds(Path(folder)).items():
            whole = detector(str(path))
            seeds[name] = Seed(path, whole["duration"], set(whole["warnings"]), content(path))
        rng = random.Random(options.seed)
        for number in range(options.files):
            name = list(SEEDS)[number % len(SEEDS)]
            path = Path(folder) / f"{options.seed}-{number}.{name}"
            path.write_bytes(mutated(seeds[name].path.read_bytes(), rng))
            try:
                (result,) = detector([str(path)])
                found = outcome(result, path, seeds[name])
            except Exception as error:  # the campaign counts what would have ended a run
                found = "escaped"
                print(f"{path.name}: {type(error).__name__}: {error}", flush=True)
            counts[name][found] += 1
            if options.keep and found in ("crashes", "hangs", "silent", "escaped"):
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{found}-{path.name}").write_bytes(path.read_bytes())
            path.unlink()
    peak.ended.set()
    peak.join()
    names = ("files", *OUTCOMES)
    counts["all"] = sum(counts.values(), Counter())
    rows = [{"format": name, **dict(zip(names, _row(count), strict=True))} for name, count in counts.items()]
    rows = [{**row, "peak_gib": round(peak.gib, 2) if row["format"] == "all" else ""} for row in rows]
    for row in [dict.fromkeys(rows[0], None), *rows]:
        cells = row if row["files"] is None else row.values()
        print(
            "".join(f"{cell!s:>15}" if number == 0 else f"{cell!s:>10}" for number, cell in enumerate(cells))
        )
    print(f"{options.files} files in {time.monotonic() - began:.0f} s, seed {options.seed}")
    if options.save:
        where = "here" if options.here else "apart"
        print(write_results(rows, "hostile_media", ("torchcodec",), seed=options.seed, decoded=where))


def _row(count: Counter) -> list[int]:
    return [count.total(), *(count[name] for name in OUTCOMES)]


if __name__ == "__main__":
    main()
