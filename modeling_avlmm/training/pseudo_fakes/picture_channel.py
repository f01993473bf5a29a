"""Processing that a genuine picture and its fake go through alike: blur, noise, colour, resizing and compression.

A network that saw only fakes processed would learn to find processing. Here one draw holds for both pictures of a pair, down to
the noise, so that nothing but the forgery tells them apart. Ranges are our own choice: they cover what web video does to a face.
"""

from dataclasses import dataclass

import cv2
import numpy as np

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
INTERPOLATIONS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos": cv2.INTER_LANCZOS4,
}


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Return `picture` rounded and limited to 0..255, as uint8."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def resize(picture: np.ndarray, width: int, height: int, how: str = "linear") -> np.ndarray:
    """Return `picture` `(H, W, ...)` in another size. Shrinking by `linear` is antialiased (as `area`)."""
    if picture.shape[:2] == (height, width):
        return picture
    if how == "linear" and (height < picture.shape[0] or width < picture.shape[1]):
        how = "area"
    return cv2.resize(picture, (width, height), interpolation=INTERPOLATIONS[how])


def _sometimes(rng: np.random.Generator, chance: float, low: float, high: float) -> float | None:
    """Draw from [low, high] with a `chance`, else return None. Takes two numbers of `rng` either way."""
    draw, value = rng.random(), float(rng.uniform(low, high))
    return value if draw < chance else None


@dataclass(frozen=True)
class PictureChannel:
    """
    One draw of processing. Call it with each picture of a pair; equal pictures come out equal, bit for bit.

    Attributes:
        blur (`float`, *optional*): standard deviation of a Gaussian in pixels.
        sharpen (`float`, *optional*): share of the detail (what a Gaussian of 1 pixel takes away) added again, as cameras and
            broadcasters do.
        gain, contrast, gamma, saturation (`float`): of the colours; 1 leaves them as they are.
        tint (`tuple[float, float, float]`): added to red, green and blue, of 255.
        shrink (`float`, *optional*): share of the side to shrink to, and enlarge from again.
        way (`str`): interpolation of the enlarging.
        noise (`float`, *optional*): standard deviation of Gaussian noise, of 255.
        codecs (`tuple[tuple[str, int], ...]`): compressions one after another, `"jpeg"` or `"webp"` with their quality. WebP is
            VP8's coding of single frames: block prediction, transform and loop filter much like H.264's.
        seed (`int`): of the noise.
    """

    blur: float | None = None
    sharpen: float | None = None
    gain: float = 1.0
    contrast: float = 1.0
    gamma: float = 1.0
    saturation: float = 1.0
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    shrink: float | None = None
    way: str = "linear"
    noise: float | None = None
    codecs: tuple[tuple[str, int], ...] = ()
    seed: int = 0

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "PictureChannel":
        """Draw a channel. One in five leaves the colours alone, one in three compresses nothing."""
        plain = rng.random() < 0.2
        spread = 0.0 if plain else 1.0
        codecs: list[tuple[str, int]] = []
        for _ in range(int(rng.choice(3, p=[0.35, 0.55, 0.1]))):
            name = str(rng.choice(["jpeg", "webp"], p=[0.55, 0.45]))
            codecs.append((name, int(rng.integers(45, 98) if name == "jpeg" else rng.integers(35, 96))))
        saturation = 0.0 if rng.random() < 0.03 else 1 + spread * float(rng.uniform(-0.3, 0.3))
        return cls(
            blur=_sometimes(rng, 0.15, 0.3, 1.0),
            sharpen=_sometimes(rng, 0.15, 0.2, 1.2),
            gain=1 + spread * float(rng.uniform(-0.2, 0.2)),
            contrast=1 + spread * float(rng.uniform(-0.2, 0.2)),
            gamma=float(np.exp(spread * rng.uniform(-0.25, 0.25))),
            saturation=saturation,
            tint=tuple(spread * float(v) for v in rng.uniform(-8, 8, 3)),
            shrink=_sometimes(rng, 0.3, 0.5, 0.95),
            way=str(rng.choice(["linear", "cubic", "lanczos"])),
            noise=_sometimes(rng, 0.15, 0.5, 4.0),
            codecs=tuple(codecs),
            seed=int(rng.integers(2**31)),
        )

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """
        Args:
            picture (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB, at least 8 pixels each way.

        Returns:
            `np.ndarray` of shape `(H, W, 3)`: uint8, processed.
        """
        height, width = picture.shape[:2]
        if self.blur:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        if self.sharpen:
            soft = cv2.GaussianBlur(picture, (0, 0), 1.0)
            picture = cv2.addWeighted(picture, 1 + self.sharpen, soft, -self.sharpen, 0)
        picture = self._recolour(picture)
        if self.shrink:
            small = (max(8, round(self.shrink * width)), max(8, round(self.shrink * height)))
            picture = resize(resize(picture, *small, "area"), width, height, self.way)
        if self.noise:
            noise = np.random.default_rng(self.seed).standard_normal(picture.shape, np.float32)
            picture = to_uint8(picture + self.noise * noise)
        for name, quality in self.codecs:
            picture = compress(picture, name, quality)
        return picture

    def _recolour(self, picture: np.ndarray) -> np.ndarray:
        levels = np.arange(256, dtype=np.float32) / 255
        levels = (255 * levels**self.gamma - 128) * self.contrast * self.gain + 128
        table = to_uint8(levels[:, None] + np.asarray(self.tint, np.float32))
        picture = cv2.LUT(np.ascontiguousarray(picture), np.ascontiguousarray(table[None]))
        if self.saturation != 1:
            grey = (picture @ LUMA)[..., None]
            picture = to_uint8(grey + self.saturation * (picture - grey))
        return picture


def compress(picture: np.ndarray, name: str, quality: int) -> np.ndarray:
    """
    Return `picture` after a lossy compression in memory.

    Args:
        picture (`np.ndarray` of shape `(H, W, 3)`): uint8 RGB.
        name (`str`): `"jpeg"` or `"webp"`.
        quality (`int`): 1 (small) to 100 (good), on the codec's scale.

    Raises:
        ValueError: for another codec.
    """
    options = {
        "jpeg": (".jpg", cv2.IMWRITE_JPEG_QUALITY),
        "webp": (".webp", cv2.IMWRITE_WEBP_QUALITY),
    }
    if name not in options:
        raise ValueError(f"Unknown codec {name!r}: use one of {sorted(options)}.")
    suffix, flag = options[name]
    _, data = cv2.imencode(suffix, picture[..., ::-1], [flag, quality])
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
