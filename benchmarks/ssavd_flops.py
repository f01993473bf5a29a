"""Cost of SSAVD with its published and its fast front end, measured in one run.

    python benchmarks/ssavd_flops.py --threads 2
    python benchmarks/ssavd_flops.py --preset large --save

FLOPs are 2 per multiply-add of every convolution and matrix product (`torch.utils.flop_counter`), for one clip and without
training heads; they are the same everywhere. Clips per second depend on the machine and on what else runs there: both
front ends take turns, and of each the quickest pass counts, which was disturbed least. Where others compute too, set OMP_WAIT_POLICY=PASSIVE: else threads that wait for one another take the
processors away from each other.
"""

import argparse
import time

import torch
from results import write_results
from torch.utils.flop_counter import FlopCounterMode

from modeling_avlmm import SSAVDConfig, SSAVDForDeepfakeDetection
from modeling_avlmm.configuration_ssavd import FRONT_ENDS, PRESETS
from modeling_avlmm.environment import environment


def build(preset: str, frontend: str) -> SSAVDForDeepfakeDetection:
    config = SSAVDConfig.from_preset(preset, frontend=frontend, style_aug=False)
    return SSAVDForDeepfakeDetection(config).eval()


@torch.no_grad()
def settle(model: SSAVDForDeepfakeDetection) -> SSAVDForDeepfakeDetection:
    """Gives random weights the statistics of activations that training gives: without, they overflow."""
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
    """FLOPs of one clip: of the whole network, and of its front end, which turns the waveform into bands."""
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        model = build(preset, frontend)
        batch = make_inputs(model.config, 1, torch.device("meta"))
    with counter:
        model(**batch)
    own = counter.get_flop_counts()
    front_end = next(sum(ops.values()) for name, ops in own.items() if name.endswith(".front_end"))
    return counter.get_total_flops(), front_end


@torch.no_grad()
def seconds_per_pass(
    models: dict[str, SSAVDForDeepfakeDetection], batch: dict[str, torch.Tensor], repeats: int
) -> dict[str, float]:
    """Least time of a forward pass of each model, taken in turn, so that a busy machine is busy for all of them."""
    times = {name: [] for name in models}
    for repeat in range(-2, repeats):
        for name, model in models.items():
            begin = time.perf_counter()
            model(**batch)
            if batch["pixel_values"].is_cuda:
                torch.cuda.synchronize()
            if repeat >= 0:
                times[name].append(time.perf_counter() - begin)
    return {name: min(taken) for name, taken in times.items()}


def measure(preset: str, batch_size: int, repeats: int, device: str) -> list[dict]:
    """One row for each front end, the published one first."""
    models = {name: settle(build(preset, name).to(device)) for name in FRONT_ENDS}
    batch = make_inputs(models["sinc"].config, batch_size, torch.device(device))
    seconds = seconds_per_pass(models, batch, repeats)
    rows = []
    for name, model in models.items():
        total, front_end = count_flops(preset, name)
        rows.append(
            {
                "preset": preset,
                "frontend": name,
                "parameters": model.num_parameters(),
                "gflops": round(total / 1e9, 3),
                "frontend_gflops": round(front_end / 1e9, 3),
                "clips_per_second": round(batch_size / seconds[name], 2),
                "speedup": round(seconds["sinc"] / seconds[name], 2),
                "batch_size": batch_size,
                "threads": torch.get_num_threads(),
                "device": device,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8], help="[%(default)s]")
    parser.add_argument("--repeats", type=int, default=15, help="timed passes of each [%(default)s]")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU [%(default)s]")
    parser.add_argument("--device", default="cpu", help="cpu or cuda [%(default)s]")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    rows = []
    for batch_size in options.batch_sizes:
        rows += measure(options.preset, batch_size, options.repeats, options.device)
    for row in rows:
        print(
            f"{row['frontend']:>5}: {row['gflops']:6.3f} GFLOPs a clip, {row['frontend_gflops']:.3f} of them in the front "
            f"end; {row['parameters']:,} parameters; {row['batch_size']} at a time: {row['clips_per_second']:.2f} clips/s "
            f"({row['speedup']:.2f}x)"
        )
    print(f"on {environment()['device']}, {options.threads} threads, torch {torch.__version__}")
    if options.save:
        write_results(rows, f"ssavd_{options.preset}", threads=options.threads)


if __name__ == "__main__":
    main()
