"""SSAVD as a whole: published sizes and cost, batches, absent parts, saving, export."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ssavd_factory import batch, tensor, tiny
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.initialization import no_init_weights

from modeling_avlmm import AutoModelForAVDeepfakeDetection, SSAVDConfig, SSAVDForDeepfakeDetection


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_parameters_are_the_published_ones():
    with torch.device("meta"):
        trained, small = SSAVDConfig.from_preset("small"), SSAVDConfig.from_preset("small", style_aug=False)
        model = SSAVDForDeepfakeDetection(small)
        assert SSAVDForDeepfakeDetection(trained).num_parameters() == 487_632  # 0.4876 M
        assert model.num_parameters() == 483_402  # 0.4834 M
        assert [count(stage) for stage in model.stages] == [92_706, 39_058, 169_286, 177_742]
        blocks = [{count(block) for block in stage.blocks} for stage in model.stages]
        assert blocks == [{38_561}, {18_681}, {27_137}, {76_263}]
        assert model.stages[0].blocks[0].joint.attention.position.numel() == 31_850
        assert count(model.front_end.filterbank) == 256
        large = SSAVDConfig.from_preset("large", style_aug=False)
        assert SSAVDForDeepfakeDetection(large).num_parameters() == 6_358_550  # 6.36 M
        fast = SSAVDConfig(frontend="fast", style_aug=False)
        assert SSAVDForDeepfakeDetection(fast).num_parameters() == 483_402 - 128 * 7 * 8


@pytest.mark.parametrize("frontend", ["sinc", "fast"])
def test_shapes_and_operations_of_the_published_size(frontend):
    config = SSAVDConfig(frontend=frontend)
    shapes, tokens = [], []
    with torch.device("meta"):
        model = SSAVDForDeepfakeDetection(config).eval()
        inputs = {
            "pixel_values": torch.empty(1, 10, 3, 224, 224, dtype=torch.uint8),
            "audio_values": torch.empty(1, 48_000),
        }
    model.front_end.register_forward_hook(lambda m, i, out: shapes.append(tuple(out.shape)))
    for stage in model.stages:
        stage.register_forward_hook(lambda m, i, out: shapes.extend(tuple(part.shape) for part in out))
        stage.blocks[0].joint.attention.register_forward_hook(lambda m, i, out: tokens.append(out.shape[1:]))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**inputs)
    assert shapes[0] == ((1, 256, 48_000) if frontend == "sinc" else (1, 128, 3000))
    assert shapes[1:] == [
        *((10, 8, 56, 56), (1, 8, 12_000)),
        *((10, 16, 28, 28), (1, 16, 6000)),
        *((10, 32, 14, 14), (1, 32, 3000)),
        *((10, 64, 7, 7), (1, 64, 1500)),
    ]
    assert [tuple(shape) for shape in tokens] == [(650, 49), (170, 49), (50, 49), (20, 49)]
    gflops = counter.get_total_flops() / 1e9
    if frontend == "sinc":
        assert gflops == pytest.approx(8.36, abs=0.01)
        assert pytest.approx(6.17, abs=0.01) == 2 * 48_000 * 256 * 251 / 1e9
    else:
        assert gflops < 2.5


def test_sizes_that_do_not_divide_are_refused():
    for options, text in (
        ({"image_size": 225}, "multiple of 224 for 4 stages"),
        ({"audio_samples": 48_001}, "multiple of 320 for 4 stages and 10 frames"),
        ({"depths": (1, 1)}, "equally long"),
        ({"frontend": "mel"}, "frontend must be one of"),
        ({"filter_length": 250}, "odd"),
    ):
        with pytest.raises(ValueError, match=text):
            SSAVDConfig(**options)
    with pytest.raises(ValueError, match="small, large"):
        SSAVDConfig.from_preset("huge")


def test_benchmark_counts_and_writes(tmp_path, monkeypatch):
    folder = Path(__file__).parent.parent / "benchmarks"
    words = ["--repeats", "1", "--threads", "1", "--batch-sizes", "1", "--engines", "pytorch"]
    done = subprocess.run(
        [sys.executable, str(folder / "ssavd_flops.py"), *words], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    # With --save the script writes into the repository; here it writes to another folder.
    monkeypatch.syspath_prepend(str(folder))
    from results import write_results
    from ssavd_flops import measure

    given = {
        "preset": "small",
        "engines": ["pytorch"],
        "batch_sizes": [1],
        "repeats": 1,
        "threads": 1,
        "device": "cpu",
    }
    rows = measure(argparse.Namespace(**given), tmp_path)
    path = write_results(rows, "ssavd_small", folder=tmp_path, threads=1)
    with path.open(newline="", encoding="utf-8") as file:
        sinc, fast = csv.DictReader(file)
    assert (sinc["frontend"], sinc["gflops"], sinc["frontend_gflops"]) == ("sinc", "8.365", "6.169")
    assert fast["frontend"] == "fast" and float(fast["gflops"]) < 2.5 and int(fast["parameters"]) == 476_234
    assert float(fast["speedup"]) > 0 and "2.289 GFLOPs" in done.stdout


# -- the whole network -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frontend", ["sinc", "fast"])
def test_a_batch_is_its_clips(frontend):
    model = tiny(frontend=frontend)
    inputs = batch(model.config)
    with torch.no_grad():
        together = model(**inputs)
        again = model(**inputs)
        for name in ("logits", "video_logits", "audio_logits"):
            assert torch.equal(together[name], again[name])
            singles = [
                model(**{key: value[row : row + 1] for key, value in inputs.items()})[name]
                for row in range(3)
            ]
            torch.testing.assert_close(together[name], torch.cat(singles), atol=1e-5, rtol=1e-5)
            assert (together[name][0] - together[name][1]).abs().max() > 1e-4
    assert together.loss is None and together.scores.shape == (3,)


def test_bytes_and_normalised_frames_are_the_same_picture():
    model = tiny()
    inputs = batch(model.config)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    )
    normalised = (inputs["pixel_values"].float() / 255 - mean) / std
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.testing.assert_close(
            model(normalised, inputs["audio_values"]).logits, expected, atol=1e-5, rtol=1e-5
        )


def test_picture_and_sound_each_reach_every_verdict():
    """There is one stream: the verdict on the sound depends on the picture, and vice versa."""
    model = tiny()
    inputs = batch(model.config)
    pixels = inputs["pixel_values"].float().div(255).requires_grad_()
    sound = inputs["audio_values"].requires_grad_()
    output = model(pixels, sound)
    for logits in (output.logits, output.video_logits, output.audio_logits):
        for gradient in torch.autograd.grad(logits[:, 1].sum(), (pixels, sound), retain_graph=True):
            assert gradient.abs().max() > 0


@torch.no_grad()
def test_clips_without_sound_or_picture():
    model = tiny()
    inputs = batch(model.config)
    masks = {
        "frame_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]),
        "audio_mask": tensor(True, False, True),
    }
    output = model(**inputs, **masks)
    whole = model(**inputs)
    for name in ("logits", "video_logits", "audio_logits"):
        torch.testing.assert_close(output[name][0], whole[name][0], atol=1e-5, rtol=1e-5)
    assert torch.equal(output.logits[1], output.video_logits[1]) and output.audio_logits[1].isnan().all()
    assert torch.equal(output.logits[2], output.audio_logits[2]) and output.video_logits[2].isnan().all()
    # Masked values have no influence, and leaving a part out is the same as masking it.
    noise = {"pixel_values": inputs["pixel_values"].clone(), "audio_values": inputs["audio_values"].clone()}
    noise["pixel_values"][1, 2:] = 7
    noise["pixel_values"][2] = 9
    noise["audio_values"][1] = 0.5
    torch.testing.assert_close(model(**noise, **masks).logits, output.logits)
    sound = model(audio_values=inputs["audio_values"])
    torch.testing.assert_close(sound.audio_logits[2], output.audio_logits[2], atol=1e-5, rtol=1e-5)
    assert torch.equal(sound.logits, sound.audio_logits) and sound.video_logits.isnan().all()
    picture = model(inputs["pixel_values"])
    assert torch.equal(picture.logits, picture.video_logits) and picture.audio_logits.isnan().all()
    nothing = model(**inputs, frame_mask=torch.zeros(3, 4), audio_mask=torch.zeros(3))
    assert nothing.logits.isnan().all()
    with pytest.raises(ValueError, match="pixel_values, audio_values or both"):
        model()


@torch.no_grad()
def test_without_stream_heads_there_is_one_verdict():
    model = tiny(stream_heads=False)
    inputs = batch(model.config)
    output = model(**inputs, audio_mask=tensor(True, False, True))
    assert output.video_logits is None and output.audio_logits is None
    # The joint head judges clips without sound too, as if they were silent.
    inputs["audio_values"][1] = 0
    torch.testing.assert_close(output.logits, model(**inputs).logits)
    assert not output.logits.isnan().any()


def test_wrong_shapes_are_told():
    model = tiny()
    inputs = batch(model.config)
    with pytest.raises(
        ValueError, match=r"pixel_values has shape \(3, 3, 3, 56, 56\), and this model takes \(3, 4"
    ):
        model(inputs["pixel_values"][:, :3], inputs["audio_values"])
    with pytest.raises(ValueError, match="audio_values has shape"):
        model(inputs["pixel_values"], inputs["audio_values"][:, :-1])
    with pytest.raises(ValueError, match="audio_mask has shape"):
        model(**inputs, audio_mask=torch.ones(3, 1))


# -- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frontend", ["sinc", "fast"])
def test_saves_and_loads_all_of_itself(tmp_path, frontend):
    model = tiny(frontend=frontend, threshold=0.3)
    model.save_pretrained(tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is SSAVDConfig and config.channels == (4, 8) and config.threshold == 0.3
    assert config.id2label == {0: "real", 1: "fake"}
    written = json.loads((tmp_path / "config.json").read_text())
    assert "prompts" not in written and config.prompts is None  # it reads no text
    (tmp_path / "config.json").write_text(
        json.dumps({**written, "prompts": None})
    )  # files that have it load too
    assert AutoConfig.from_pretrained(tmp_path).prompts is None
    inputs = batch(model.config)
    for auto in (AutoModel, AutoModelForAVDeepfakeDetection, SSAVDForDeepfakeDetection):
        loaded = auto.from_pretrained(tmp_path)
        assert type(loaded) is SSAVDForDeepfakeDetection and not loaded.training
        for name, value in model.state_dict().items():
            assert torch.equal(value, loaded.state_dict()[name]), name
        with torch.no_grad():
            assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_weights_load_without_the_heads_of_training(tmp_path, caplog):
    model = tiny()
    model.save_pretrained(tmp_path)
    config = SSAVDConfig.from_pretrained(tmp_path, style_aug=False)
    loaded, info = SSAVDForDeepfakeDetection.from_pretrained(
        tmp_path, config=config, output_loading_info=True
    )
    assert not info["unexpected_keys"] and not info["missing_keys"]
    inputs = batch(model.config)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_half_precision_keeps_the_bands_edges(tmp_path):
    model = tiny()
    model.save_pretrained(tmp_path)
    half = SSAVDForDeepfakeDetection.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.head.weight.dtype == torch.bfloat16
    assert torch.equal(half.front_end.filterbank.low_hz, model.front_end.filterbank.low_hz)
    inputs = batch(model.config)
    with torch.no_grad():
        scores = half(**inputs).scores
        torch.testing.assert_close(scores, model(**inputs).scores, atol=0.1, rtol=0)
        assert half(**inputs).logits.dtype == torch.float32


def test_exports_as_a_graph_of_static_shapes():
    """The graph from which exporters start gives the same results."""
    for frontend in ("sinc", "fast"):
        model = tiny(frontend=frontend)
        inputs = batch(model.config, 1)
        program = torch.export.export(model, (), inputs)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(**inputs).logits, model(**inputs).logits)


@torch.no_grad()
@pytest.mark.parametrize("frontend", ["sinc", "fast"])
def test_types_leave_the_filters_alone(frontend):
    """`.to(torch.bfloat16)` gives the same network as `from_pretrained(dtype=...)`, and float16 is computed in float32."""
    model = tiny(frontend=frontend)
    inputs = batch(model.config)
    exact = model(**inputs).logits
    bands = model.front_end(inputs["audio_values"])
    model.to(torch.float16)
    assert torch.equal(model(**inputs).logits, exact)
    model.bfloat16()
    assert model.head.weight.dtype == torch.bfloat16
    assert all(weight.dtype == torch.float32 for weight in model.front_end.parameters())
    assert torch.equal(model.front_end(inputs["audio_values"]), bands)


@torch.no_grad()
def test_a_network_made_without_initialisation_is_whole_after_loading_its_weights():
    """What is not in a file must not be memory of before."""
    model = tiny()
    with no_init_weights():
        other = SSAVDForDeepfakeDetection(model.config)
    other.load_state_dict(model.state_dict())
    inputs = batch(model.config)
    assert torch.equal(other.eval()(**inputs).logits, model(**inputs).logits)
