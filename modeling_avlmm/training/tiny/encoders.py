"""Small frozen encoders for AVPL's demonstration: of the real classes, trained here on genuine clips.

    python -m modeling_avlmm.training.tiny.encoders --data-dir runs/demo/data --output-dir runs/demo/encoders

CLIP and Whisper have seen 400 million pictures and heard 680,000 hours before AVPL is built on them. Random encoders have
not, and prompts cannot teach them much. Here a small CLIP learns how open the mouth is in each frame, and a small Whisper
how loud and how high the voice is and how open its mouth must be, from genuine clips of the training split and their
annotations; neither ever meets a fake. A few minutes on one core. All of it is our own choice.
"""

import argparse
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, Video, load_dataset
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, WhisperConfig, WhisperModel
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ...configuration_avpl import TOKENS_PER_SECOND, AVPLConfig
from ...processing_avpl import AVPLProcessor
from ..batches import read_row
from .backbone import scale_weights_by_fan_in
from .dense import load_annotations, pitch_level

SECONDS = 2.0
FRAMES = 20
"""Ten a second, at the times of the annotations."""

SIZES = {
    "test": {
        "vision": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        | {"image_size": 32, "patch_size": 8, "projection_dim": 16},
        "audio": {"d_model": 24, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 48},
    },
    "demo": {
        "vision": {
            "hidden_size": 192,
            "intermediate_size": 384,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        | {"image_size": 96, "patch_size": 16, "projection_dim": 64},
        "audio": {"d_model": 128, "encoder_layers": 2, "encoder_attention_heads": 4, "encoder_ffn_dim": 256},
    },
}


def make_tiny_encoders(size: str = "test", seed: int = 0) -> tuple[CLIPVisionModel, WhisperModel]:
    """
    A small CLIP and a small Whisper with random weights.

    Args:
        size (`str`, *optional*, defaults to `"test"`): `"test"` or `"demo"`.
        seed (`int`, *optional*, defaults to 0): Seed of the weights.
    """
    sizes = SIZES[size]
    audio_config = WhisperConfig(
        **sizes["audio"],
        max_source_positions=round(SECONDS * TOKENS_PER_SECOND),
        # The decoder is part of every Whisper checkpoint; nothing here uses it.
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=8,
        vocab_size=16,
        max_target_positions=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        begin_suppress_tokens=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        vision, audio = CLIPVisionModel(CLIPVisionConfig(**sizes["vision"])), WhisperModel(audio_config)
        positions = audio.encoder.embed_positions.weight.clone()
        for model in (vision, audio):
            scale_weights_by_fan_in(model)
        with torch.no_grad():
            audio.encoder.embed_positions.weight.copy_(positions)
            vision.embeddings.position_embedding.weight.mul_(0.3)
    return vision.eval(), audio.eval()


def save_encoders(vision: CLIPVisionModel, audio: WhisperModel, output_dir: str | Path) -> tuple[Path, Path]:
    """Writes the two as checkpoints that [`~AVPLForDeepfakeDetection.from_encoders`] loads; returns their folders."""
    folders = Path(output_dir) / "vision", Path(output_dir) / "audio"
    vision.save_pretrained(folders[0])
    audio.save_pretrained(folders[1])
    return folders


def make_demo_encoders(
    data_dir: str | Path, output_dir: str | Path, steps: int = 700, batch_size: int = 8, seed: int = 0
) -> tuple[Path, Path]:
    """
    Trains the demonstration's encoders and writes them to `output_dir/vision` and `output_dir/audio`.

    Args:
        data_dir (`str` or `Path`): The demonstration benchmark: `FakeAVCeleb_v1.2` and `real_annotations.jsonl`.
        output_dir (`str` or `Path`): Folder to write; what is there already is kept.
        steps (`int`): Optimiser steps.
        batch_size (`int`): Clips of a step.
        seed (`int`): Seed of weights and order.

    Raises:
        FileNotFoundError: when the benchmark is not in `data_dir`.
    """
    data_dir, output_dir = Path(data_dir), Path(output_dir)
    annotations = data_dir / "real_annotations.jsonl"
    if not annotations.is_file():
        raise FileNotFoundError(
            f"{annotations} is not there: make the benchmark with `python -m dataset_scripts.demo_benchmark`."
        )
    if (output_dir / "audio" / "config.json").is_file():
        print(f"done before, in {output_dir}")
        return output_dir / "vision", output_dir / "audio"
    vision, audio = make_tiny_encoders("demo", seed)
    clips = genuine_clips(data_dir / "FakeAVCeleb_v1.2", annotations, vision, audio)
    train_encoders(vision, audio, clips, steps, batch_size, seed)
    unfinished = output_dir.with_name(output_dir.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    save_encoders(vision, audio, unfinished)
    shutil.rmtree(output_dir, ignore_errors=True)
    unfinished.rename(output_dir)
    print(f"wrote {output_dir}")
    return output_dir / "vision", output_dir / "audio"


def genuine_clips(
    corpus: Path, annotations: Path, vision: CLIPVisionModel, audio: WhisperModel
) -> dict[str, torch.Tensor]:
    """The genuine clips of the training split: `frames (N, T, 3, H, W)`, `spectra (N, mel, 2 K)`, and what is to be told:
    `mouth (N, T)` and `voice (N, K, 3)`, loudness, pitch and mouth for every audio token."""
    config = AVPLConfig(
        vision_config=vision.config.to_dict(),
        audio_config=audio.config.to_dict(),
        num_frames=FRAMES,
        clip_seconds=SECONDS,
    )
    processor, known = AVPLProcessor.from_config(config), load_annotations(annotations)
    table: Dataset = load_dataset("fakeavceleb", "identity_70_30", data_dir=str(corpus), split="train")
    clips = {"frames": [], "spectra": [], "mouth": [], "voice": []}
    times = np.arange(config.num_audio_tokens) / TOKENS_PER_SECOND
    for row in table.cast_column("video", Video(decode=False)):
        if row["label"] or row["path"] not in known:
            continue
        encoded, truth = processor.encode(read_row(row, processor, SECONDS, None)), known[row["path"]]
        pitch = [pitch_level(hertz) for hertz in truth["pitch_hz"]]
        voice = [
            np.interp(times, truth["seconds"], v) for v in (truth["loudness"], pitch, truth["mouth_open"])
        ]
        clips["frames"].append(encoded["pixel_values"])
        clips["spectra"].append(encoded["input_features"][:, : 2 * config.num_audio_tokens])
        clips["mouth"].append(torch.tensor(truth["mouth_open"][:FRAMES]))
        clips["voice"].append(torch.tensor(np.stack(voice, axis=-1), dtype=torch.float32))
    return {name: torch.stack(values) for name, values in clips.items()}


def train_encoders(
    vision: CLIPVisionModel,
    audio: WhisperModel,
    clips: dict[str, torch.Tensor],
    steps: int,
    batch_size: int,
    seed: int = 0,
) -> None:
    """Trains both in place, with linear read-outs that are thrown away."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        look = nn.Linear(vision.config.hidden_size, 1)
        listen = nn.Linear(audio.config.d_model, clips["voice"].shape[-1])
    encoder = audio.encoder
    weights = [*vision.parameters(), *encoder.parameters(), *look.parameters(), *listen.parameters()]
    weights = [weight for weight in weights if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-3, total_steps=steps, pct_start=0.1)
    scale = {name: clips[name].flatten(0, 1).var(dim=0) for name in ("mouth", "voice")}
    mean, std = (torch.tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
    order, start = [], time.perf_counter()
    for model in (vision, encoder):
        model.train()
    for step in range(1, steps + 1):
        while len(order) < batch_size:
            order += torch.randperm(len(clips["mouth"]), generator=generator).tolist()
        rows, order = order[:batch_size], order[batch_size:]
        # Every other frame: neighbours tell little that is new.
        every = slice(step % 2, None, 2)
        frames = (clips["frames"][rows, every].flatten(0, 1).float() / 255 - mean) / std
        if step % 4 > 1:
            frames = frames.flip(-1)
        mouth = look(vision(frames).pooler_output)[:, 0]
        voice = listen(encoder(clips["spectra"][rows]).last_hidden_state)
        missed = F.mse_loss(mouth, clips["mouth"][rows, every].flatten()) / scale["mouth"]
        misheard = ((voice - clips["voice"][rows]).square().mean(dim=(0, 1)) / scale["voice"]).mean()
        optimizer.zero_grad()
        (missed + misheard).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        if step % 25 == 0 or step == steps:
            spent = time.perf_counter() - start
            print(
                f"step {step}/{steps}  unexplained variance: picture {missed.item():.3f}, sound {misheard.item():.3f}  "
                f"{spent:.0f} s, {math.ceil(spent / step * (steps - step))} s left",
                flush=True,
            )
    for model in (vision, encoder):
        model.eval()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Small frozen encoders for AVPL's demonstration.")
    parser.add_argument("--data-dir", default="runs/demo/data", help="the demonstration benchmark")
    parser.add_argument("--output-dir", default="runs/demo/encoders", help="folder to write")
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        make_demo_encoders(**vars(options))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
