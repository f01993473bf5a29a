"""Measure the cost of SSAVD with its published and its fast front end, on PyTorch and onnxruntime, in one run.

    python benchmarks/ssavd_flops.py --threads 2
    python benchmarks/ssavd_flops.py --preset large --save

FLOPs are 2 per multiply-add of every convolution and matrix product (`torch.utils.flop_counter`), for one clip and without
training heads; they are the same everywhere. Clips per second depend on the machine and on what else runs there, so all take
turns, and the quickest pass of each counts, as it was disturbed least. `speedup` is over the published front end on the same
engine, `times_of_published` over the published front end on PyTorch. On a GPU only PyTorch is measured. On a busy machine set
OMP_WAIT_POLICY=PASSIVE; otherwise threads that wait for one another keep the cores from those that work.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from results import write_results
from torch.utils.flop_counter import FlopCounterMode

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection, SSAVDProcessor
from modeling_avlmm.configuration_ssavd import FRONT_ENDS, PRESETS
from modeling_avlmm.inference.onnx_detector import ONNXDetector
from modeling_avlmm.inference.onnx_export import export_onnx
from modeling_avlmm.inference.provenance import environment

ENGINES = ("pytorch", "onnxruntime")


def build(preset: str, frontend: str) -> SSAVDForDeepfakeDetection:
    config = SSAVDConfig.from_preset(preset, frontend=frontend, style_aug=False)
    return SSAVDForDeepfakeDetection(config).eval()


@torch.no_grad()
def settle(model: SSAVDForDeepfakeDetection) -> SSAVDForDeepfakeDetection:
    """Give a network with random weights running statistics as after training; without them activations overflow."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over all passes
    model.train()
    for _ in range(2):
        model(**make_inputs(model.config, 2, model.device))
    return model.eval()


def make_inputs(config: SSAVDConfig, batch_size: int, device: torch.device) -> dict[str, torch.Tensor]:
    shape = (batch_size, config.num_frames, 3, config.image_size, config.image_size)
    return {
        "pixel_values": torch.randint(0, 256, shape, dtype=torch.uint8, device=device),
        "audio_values": 0.1 * torch.randn(batch_size, config.audio_samples, device=device),
    }


@torch.no_grad()
def count_flops(preset: str, frontend: str) -> tuple[int, int]:
    """Return the FLOPs of one clip, for the whole network and for the front end that turns the waveform into bands."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        model = build(preset, frontend)
        batch = make_inputs(model.config, 1, torch.device("meta"))
    with counter:
        model(**batch)
    own = counter.get_flop_counts()
    front_end = next(sum(ops.values()) for name, ops in own.items() if name.endswith(".front_end"))
    return counter.get_total_flops(), front_end


def engines(
    model: SSAVDForDeepfakeDetection,
    wanted: list[str],
    folder: Path,
    threads: int,
    batch: dict[str, torch.Tensor],
) -> dict[str, Callable[[], object]]:
    """Return functions that pass the batch through PyTorch and, where it is wanted, through onnxruntime."""

    @torch.no_grad()
    def by_pytorch() -> None:
        model(**batch)
        if model.device.type == "cuda":
            torch.cuda.synchronize()

    found = {"pytorch": by_pytorch}
    if "onnxruntime" not in wanted or model.device.type != "cpu":
        return found
    if not (folder / "exported").exists():
        model.save_pretrained(folder / "model")
        SSAVDProcessor.from_config(model.config).save_pretrained(folder / "model")
        export_onnx(folder / "model", folder / "exported")
    clips, frames = batch["pixel_values"].shape[:2]
    whole = {"frame_mask": torch.ones(clips, frames).bool(), "audio_mask": torch.ones(clips).bool()}
    detector = ONNXDetector(folder / "exported", threads=threads)
    return found | {"onnxruntime": lambda: detector.logits({**batch, **whole})}


def seconds_per_pass(passes: dict, repeats: int) -> dict:
    """Return the shortest time of each pass. They take turns, so that a busy machine is busy for all of them."""
    times = {key: [] for key in passes}
    for repeat in range(-2, repeats):
        for key, run in passes.items():
            begin = time.perf_counter()
            run()
            if repeat >= 0:
                times[key].append(time.perf_counter() - begin)
    return {key: min(taken) for key, taken in times.items()}


def measure(options: argparse.Namespace, work: Path) -> list[dict]:
    """Return a row for each batch size, engine and front end, the published front end first."""
    models = {name: settle(build(options.preset, name).to(options.device)) for name in FRONT_ENDS}
    flops = {name: count_flops(options.preset, name) for name in FRONT_ENDS}
    rows = []
    for batch_size in options.batch_sizes:
        batch = make_inputs(models["sinc"].config, batch_size, torch.device(options.device))
        passes = {
            (engine, name): run
            for name, model in models.items()
            for engine, run in engines(model, options.engines, work / name, options.threads, batch).items()
        }
        seconds = seconds_per_pass(passes, options.repeats)
        for engine, name in sorted(passes, key=lambda key: key[0] != "pytorch"):
            taken = seconds[engine, name]
            rows.append(
                {
                    "preset": options.preset,
                    "engine": engine,
                    "frontend": name,
                    "parameters": models[name].num_parameters(),
                    "gflops": round(flops[name][0] / 1e9, 3),
                    "frontend_gflops": round(flops[name][1] / 1e9, 3),
                    "clips_per_second": round(batch_size / taken, 2),
                    "speedup": round(seconds[engine, "sinc"] / taken, 2),
                    "times_of_published": round(seconds["pytorch", "sinc"] / taken, 2),
                    "batch_size": batch_size,
                    "threads": options.threads,
                    "device": options.device,
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 8], help="clips at a time [%(default)s]"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each network [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="threads of the CPU [%(default)s]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [%(default)s]")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="ssavd-") as work:
        rows = measure(options, Path(work))
    for row in rows:
        print(
            f"{row['engine']:>11}, {row['frontend']:>4}: {row['gflops']:6.3f} GFLOPs a clip, {row['frontend_gflops']:.3f} of "
            f"them in the front end; {row['parameters']:,} parameters; {row['batch_size']} at a time: "
            f"{row['clips_per_second']:.2f} clips/s ({row['speedup']:.2f}x, {row['times_of_published']:.2f}x the published)"
        )
    print(f"on {environment()['device']}, {options.threads} threads, torch {torch.__version__}")
    if options.save:
        write_results(rows, f"ssavd_{options.preset}", threads=options.threads)


if __name__ == "__main__":
    main()
