"""Small frozen encoders for AVPL's demonstration, of the real classes, trained here on genuine clips.

    python -m modeling_avlmm.training.tiny.encoders --data-dir runs/demo/data --output-dir runs/demo/encoders

AVPL is built on a CLIP that has seen 400 million pictures and a Whisper that has heard 680,000 hours. Random encoders know
nothing, and prompts can't teach them much. So a small CLIP learns how open the mouth is in each frame, and a small Whisper
learns how loud and how high the voice is, and how open the mouth must be. Both learn from annotated genuine clips of the
training split and never see a fake. It takes a few minutes on one core. All of it is our own choice.
"""

import argparse
import math
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

from dataset_scripts.files import written_whole

from ...configuration_avpl import TOKENS_PER_SECOND, AVPLConfig
from ...processing_avpl import AVPLProcessor
from ..clip_reading import read_row
from .backbone import scale_weights_by_fan_in
from .dense import load_annotations, pitch_level

CORPUS = "FakeAVCeleb_v1.2"
SECONDS = 2.0
FRAMES = 20  # ten a second, at the times of the annotations

_VISION_LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 4}
_AUDIO_LAYERS = {"encoder_layers": 2, "encoder_attention_heads": 4}
SIZES = {
    "test": {
        "vision": _VISION_LAYERS
        | {
            "hidden_size": 32,
            "intermediate_size": 64,
            "image_size": 32,
            "patch_size": 8,
            "projection_dim": 16,
        },
        "audio": _AUDIO_LAYERS | {"d_model": 24, "encoder_ffn_dim": 48},
    },
    "demo": {
        "vision": _VISION_LAYERS
        | {
            "hidden_size": 192,
            "intermediate_size": 384,
            "image_size": 96,
            "patch_size": 16,
            "projection_dim": 64,
        },
        "audio": _AUDIO_LAYERS | {"d_model": 128, "encoder_ffn_dim": 256},
    },
}


def make_tiny_encoders(size: str = "test", seed: int = 0) -> tuple[CLIPVisionModel, WhisperModel]:
    """
    Make a small CLIP and a small Whisper with random weights.

    Args:
        size (`str`, *optional*, defaults to `"test"`): `"test"` or `"demo"`.
        seed (`int`, *optional*, defaults to 0): Seed of the weights.
    """
    sizes = SIZES[size]
    audio_config = WhisperConfig(
        **sizes["audio"],
        max_source_positions=round(SECONDS * TOKENS_PER_SECOND),
        # Every Whisper checkpoint has a decoder; nothing here uses it.
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
    """Save both as checkpoints for [`~AVPLForDeepfakeDetection.from_encoders`], and return their folders."""
    folders = Path(output_dir) / "vision", Path(output_dir) / "audio"
    vision.save_pretrained(folders[0])
    audio.save_pretrained(folders[1])
    return folders


def make_demo_encoders(
    data_dir: str | Path, output_dir: str | Path, steps: int = 700, batch_size: int = 8, seed: int = 0
) -> tuple[Path, Path]:
    """
    Train the demonstration's encoders and save them in `output_dir/vision` and `output_dir/audio`.

    Args:
        data_dir (`str` or `Path`): The demonstration benchmark, with `FakeAVCeleb_v1.2` and `real_annotations.jsonl`.
        output_dir (`str` or `Path`): The folder to write. Encoders that are already there are kept.
        steps (`int`, *optional*, defaults to 700): Optimiser steps.
        batch_size (`int`, *optional*, defaults to 8): Clips per step.
        seed (`int`, *optional*, defaults to 0): Seed of the weights and of the order of clips.

    Returns:
        `tuple[Path, Path]`: the folders of the vision encoder and of the audio encoder.

    Raises:
        FileNotFoundError: if the benchmark isn't in `data_dir`.
        FileExistsError: if `output_dir` holds something else.
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
    if output_dir.exists() and any(output_dir.iterdir()):
        raise FileExistsError(f"{output_dir} holds other files: name another folder for the encoders.")
    vision, audio = make_tiny_encoders("demo", seed)
    clips = annotated_clips(data_dir / CORPUS, annotations, vision, audio)
    train_encoders(vision, audio, clips, steps, batch_size, seed)
    with written_whole(output_dir) as partial:
        save_encoders(vision, audio, partial)
    print(f"wrote {output_dir}")
    return output_dir / "vision", output_dir / "audio"


def annotated_clips(
    corpus: Path, annotations: Path, vision: CLIPVisionModel, audio: WhisperModel
) -> dict[str, torch.Tensor]:
    """
    Read the genuine clips of the training split that have annotations.

    Returns:
        `dict[str, torch.Tensor]`: the inputs `frames (N, T, 3, H, W)` and `spectra (N, mel, 2 K)`, and the targets
        `mouth (N, T)` and `voice (N, K, 3)`: loudness, pitch and mouth opening at each audio token.
    """
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
    """Train both in place, each with a linear readout that is thrown away. `clips` come from [`annotated_clips`]."""
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
        every = slice(step % 2, None, 2)  # every other frame: neighbours add little
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
    """Run the command line, and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m modeling_avlmm.training.tiny.encoders",
        description="Train small encoders for AVPL's demonstration.",
    )
    parser.add_argument(
        "--data-dir", default="runs/demo/data", help="the demonstration benchmark [%(default)s]"
    )
    parser.add_argument("--output-dir", default="runs/demo/encoders", help="folder to write [%(default)s]")
    parser.add_argument("--steps", type=int, default=700, help="optimiser steps [%(default)s]")
    parser.add_argument("--batch-size", type=int, default=8, help="clips per step [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of weights and order [%(default)s]")
    options = parser.parse_args(arguments)
    try:
        make_demo_encoders(**vars(options))
    except (FileNotFoundError, FileExistsError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
