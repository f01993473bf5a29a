"""Compare the time from a file to tensors for Qwen2.5-Omni: this package, the stock processor and qwen-omni-utils.

    python benchmarks/media_path.py --threads 2 --save
    python benchmarks/media_path.py --seconds 3 10 --heights 224 480 --turns 5

Clips are made with ffmpeg (moving test picture with noise, tone and noise; H.264 and AAC in MP4, 25 frames per second).
Three ways take turns on each, and the quickest turn of each counts, as it was disturbed least:

- `ours`: `AVLMMProcessor(path)`.
- `stock`: `Qwen2_5OmniProcessor.apply_chat_template(messages, load_audio_from_video=True, tokenize=True)`.
- `utils`: `qwen_omni_utils.process_mm_info`, then that processor; if the package is installed.

All get the same frames per second, the same range of pixels and the same question. The tokenizer is a small one made on the spot;
its texts are short and cost next to nothing. `pixel_difference` and `spectrum_difference` are the largest differences from ours, and
empty where shapes differ. The stock processor pads every spectrum to 300 s; only the part with sound is compared. It adds the two
channels of stereo sound at 0.71 each (FFmpeg's downmix), while this package and the loader of qwen-omni-utils average them, so its
spectra of such sound are log10(2) / 4 = 0.075 higher. The last frame may differ more, as it also takes the decoder's samples past
the end of the track. For mono sound all other frames are equal.
"""

import argparse
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from results import write_results
from transformers import Qwen2_5OmniProcessor
from transformers.utils import logging

from modeling_avlmm import AVLMMProcessor
from modeling_avlmm.inference.provenance import environment
from modeling_avlmm.training.tiny.backbone import make_tiny_backbone

WIDTHS = {224: 398, 480: 854, 720: 1280, 1080: 1920}


def make_clip(path: Path, seconds: float, height: int) -> Path:
    """Make a clip of about 0.1 bit a pixel and frame."""
    width = WIDTHS[height]
    picture = f"testsrc2=size={width}x{height}:rate=25:duration={seconds},noise=alls=8:allf=t"
    sound = f"aevalsrc='0.2*sin(2*PI*220*t)+0.1*(random(0)-0.5)|0.1*(random(1)-0.5)':s=48000:d={seconds}"
    codecs = ["-c:v", "libx264", "-preset", "veryfast", "-b:v", str(round(2.5 * width * height))]
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostdin", "-y", "-f", "lavfi", "-i", picture]
    command += ["-f", "lavfi", "-i", sound, *codecs, "-pix_fmt", "yuv420p", "-c:a", "aac", str(path)]
    subprocess.run(command, check=True)
    return path


def conversation(processor: AVLMMProcessor, path: Path, **video: object) -> list[dict]:
    """Return the question as chat messages."""
    return [
        {"role": "system", "content": [{"type": "text", "text": processor.prompts["system"]}]},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": processor.prompts["prefix"]},
                {"type": "video", "video": str(path), **video},
                {"type": "text", "text": processor.prompts["overall"]},
            ],
        },
    ]


def ways(processor: AVLMMProcessor, stock: Qwen2_5OmniProcessor, path: Path) -> dict[str, Callable[[], dict]]:
    """Return the ways from a file to tensors, by name."""
    sizes = {"shortest_edge": processor.min_pixels, "longest_edge": processor.max_pixels}

    def by_stock() -> dict:
        return stock.apply_chat_template(
            conversation(processor, path),
            load_audio_from_video=True,
            tokenize=True,
            return_dict=True,
            add_generation_prompt=True,
            processor_kwargs={
                "videos_kwargs": {"fps": processor.fps, "do_sample_frames": True, "size": sizes},
                "return_tensors": "pt",
            },
        )

    found = {"ours": lambda: processor([path]), "stock": by_stock}
    try:
        from qwen_omni_utils import process_mm_info
    except ImportError:
        return found

    def by_utils() -> dict:
        messages = conversation(
            processor,
            path,
            fps=processor.fps,
            min_pixels=processor.min_pixels,
            max_pixels=processor.max_pixels,
            max_frames=processor.max_frames,
        )
        text = stock.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        audio, _, videos = process_mm_info(messages, use_audio_in_video=True)
        return stock(
            text=[text],
            audio=audio,
            videos=videos,
            return_tensors="pt",
            load_audio_from_video=True,
            audio_from_video_indices=[0],
            videos_kwargs={"fps": processor.fps, "do_sample_frames": False, "do_resize": False},
        )

    return {**found, "utils": by_utils}


def difference(ours: dict, other: dict) -> dict[str, float | None]:
    """Return the largest differences of normalised pixels and of spectra; None where shapes differ, as sampling does."""
    pixels = other["pixel_values_videos"]
    spectra = other["input_features"][..., : ours["input_features"].shape[-1]]
    pairs = {
        "pixel_difference": (ours["pixel_values_videos"], pixels),
        "spectrum_difference": (ours["input_features"], spectra),
    }
    return {
        name: round((a.float() - b.float()).abs().max().item(), 5) if a.shape == b.shape else None
        for name, (a, b) in pairs.items()
    }


def measure(options: argparse.Namespace, work: Path) -> list[dict]:
    backbone = make_tiny_backbone(work / "backbone")
    stock = Qwen2_5OmniProcessor.from_pretrained(backbone)
    processor = AVLMMProcessor.from_backbone(
        str(backbone), fps=options.fps, max_frames=1024, max_seconds=600.0
    )
    rows = []
    for height in options.heights:
        for seconds in options.seconds:
            path = make_clip(work / f"{height}_{seconds:g}.mp4", seconds, height)
            made = ways(processor, stock, path)
            taken = {name: [] for name in made}
            results = {name: way() for name, way in made.items()}
            for _ in range(options.turns):
                for name, way in made.items():
                    begin = time.perf_counter()
                    way()
                    taken[name].append(time.perf_counter() - begin)
            for name, times in taken.items():
                rows.append(
                    {
                        "way": name,
                        "seconds": seconds,
                        "height": height,
                        "fps": options.fps,
                        "threads": options.threads,
                        "seconds_per_clip": round(min(times), 4),
                        "ours_is_times_faster": round(min(times) / min(taken["ours"]), 2),
                        "tokens": results[name]["input_ids"].shape[-1],
                        **difference(results["ours"], results[name]),
                        "load_at_start": round(os.getloadavg()[0], 2),
                    }
                )
            show(rows[-len(taken) :])
    return rows


def show(rows: list[dict]) -> None:
    for row in rows:
        print(
            f"{row['height']:>5}p {row['seconds']:>4g} s  {row['way']:<6} {1000 * row['seconds_per_clip']:8.1f} ms  "
            f"{row['ours_is_times_faster']:6.2f} of ours  pixels {row['pixel_difference']}  "
            f"spectra {row['spectrum_difference']}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--seconds", type=float, nargs="+", default=[3, 10, 60], help="lengths of the clips [%(default)s]"
    )
    parser.add_argument("--heights", type=int, nargs="+", choices=WIDTHS, default=[224, 480, 1080])
    parser.add_argument("--fps", type=float, default=2.0, help="sampled frames per second [%(default)s]")
    parser.add_argument("--turns", type=int, default=3, help="timed turns of each way [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch [%(default)s]")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    with tempfile.TemporaryDirectory(prefix="media-path-") as work:
        rows = measure(options, Path(work))
    print(f"on {environment()['device']}, {options.threads} threads")
    if options.save:
        packages = ("torch", "transformers", "torchcodec")
        write_results(rows, "media_path", packages, threads=options.threads)


if __name__ == "__main__":
    main()
