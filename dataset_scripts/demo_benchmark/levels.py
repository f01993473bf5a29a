"""The levels of the demonstration benchmark: what its forgeries leave behind.

`standard` gives every generator a colour cast and a grid, so that a tiny model learns to find them in minutes. `hard` has
neither. There a forged face is only blended in, resampled and drawn again: it has lost fine detail, and lips may follow
other speech. A forged voice is only re-synthesised.
"""

from __future__ import annotations

from dataclasses import dataclass

from .speech import VoiceForgery

STANDARD, HARD = "standard", "hard"


@dataclass(frozen=True)
class VideoForgery:
    """The parameters of one method.

    Args:
        region (`str`, *optional*): `"inner"` (brows to chin), `"full"` (whole head) or `None` (face left alone).
        swap (`bool`): Whether the region shows another identity.
        low_res (`float`): Canvas pixels per generator pixel; smaller detail is lost.
        grid (`float`): Amplitude of the upsampling grid, see [`~forgery.fingerprint`].
        tint (`tuple[float, float, float]`): RGB colour error of the generated region.
        flicker (`float`): Standard deviation of the frame-to-frame gain.
        rim (`float`): Brightness error along the blending boundary.
        mouth (`str`, *optional*): The speech that drives a re-rendered mouth: `"other"`, the clip's `"own"`, or `None`
            (not re-rendered).
        seam (`float`): Darkening along the boundary of a re-rendered mouth.
        texture (`float`): Gain of the person's own skin texture where the face is drawn again (0.055 in a genuine one).
        colour_match (`float`): Share of the difference in skin colour that a swap corrects.
        blend (`float`): Width of the blending boundary, in canvas pixels.
        upsampling (`str`): `"bilinear"` or `"bicubic"`: how the generator's picture is enlarged.
    """

    region: str | None = None
    swap: bool = False
    low_res: float = 2.0
    grid: float = 0.0
    tint: tuple[float, float, float] = (0.0, 0.0, 0.0)
    flicker: float = 0.0
    rim: float = 0.0
    mouth: str | None = None
    seam: float = 0.09
    texture: float = 0.0
    colour_match: float = 0.75
    blend: float = 5.0
    upsampling: str = "bilinear"


# Every generator here leans towards green: the one cue that even a linear layer can read, if it looks at the face alone
# (the background is shifted the other way, see `recording.match_statistics`). Red and blue move together, so that the overall
# saturation tells nothing either.
_STANDARD_METHODS: dict[str, VideoForgery] = {
    "real": VideoForgery(),
    "rtvc": VideoForgery(),
    "faceswap": VideoForgery("inner", True, 2.2, 0.10, (-0.020, 0.050, -0.020), 0.010, -0.10),
    "fsgan": VideoForgery("inner", False, 3.0, 0.13, (-0.025, 0.045, -0.025), 0.008, 0.03),
    "wav2lip": VideoForgery(None, False, 2.2, 0.13, (-0.025, 0.055, -0.025), mouth="other"),
    "faceswap-wav2lip": VideoForgery(
        "inner", True, 2.2, 0.10, (-0.020, 0.050, -0.020), 0.010, -0.10, "other"
    ),
    "fsgan-wav2lip": VideoForgery("inner", False, 3.0, 0.13, (-0.025, 0.045, -0.025), 0.008, 0.03, "other"),
    "inswapper": VideoForgery("inner", True, 2.6, 0.11, (-0.020, 0.045, -0.020), 0.010, -0.08),
    "liveportrait": VideoForgery("full", False, 2.6, 0.12, (-0.020, 0.040, -0.020), 0.010, 0.05),
    "echomimic": VideoForgery("full", False, 3.2, 0.12, (-0.025, 0.045, -0.025), 0.012, 0.04, "own"),
    "memo": VideoForgery("full", False, 2.4, 0.13, (-0.020, 0.045, -0.020), 0.010, 0.0, "own"),
    "sonic": VideoForgery("full", False, 2.8, 0.09, (-0.015, 0.040, -0.015), 0.010, 0.03, "own"),
    "hififace": VideoForgery("inner", True, 2.0, 0.08, (-0.015, 0.040, -0.015), 0.010, -0.06),
    "roop": VideoForgery("inner", True, 3.0, 0.07, (-0.020, 0.050, -0.020), 0.005, -0.11),
}


def _hard(
    region: str | None,
    swap: bool,
    low_res: float,
    mouth: str | None = None,
    blend: float = 8.0,
    upsampling: str = "bilinear",
) -> VideoForgery:
    """Return a method that leaves no grid, colour error, flicker or brightness edge."""
    return VideoForgery(
        region=region,
        swap=swap,
        low_res=low_res,
        mouth=mouth,
        seam=0.0,
        texture=0.02,
        colour_match=1.0,
        blend=blend,
        upsampling=upsampling,
    )


_HARD_METHODS: dict[str, VideoForgery] = {
    "real": VideoForgery(),
    "rtvc": VideoForgery(),
    "faceswap": _hard("inner", True, 2.2),
    "fsgan": _hard("inner", False, 2.6),
    "wav2lip": _hard(None, False, 2.4, "other"),
    "faceswap-wav2lip": _hard("inner", True, 2.2, "other"),
    "fsgan-wav2lip": _hard("inner", False, 2.6, "other"),
    "inswapper": _hard("inner", True, 2.4, None, 10.0),
    "liveportrait": _hard("full", False, 2.2),
    "echomimic": _hard("full", False, 2.6, "own"),
    "memo": _hard("full", False, 2.2, "own"),
    "sonic": _hard("full", False, 2.4, "own", 6.0, "bicubic"),
    "hififace": _hard("inner", True, 1.9, None, 12.0, "bicubic"),
    "roop": _hard("inner", True, 2.8, None, 5.0, "bicubic"),
}


@dataclass(frozen=True)
class Level:
    """A level of the benchmark.

    Args:
        methods (`dict[str, VideoForgery]`): What each method does to the picture.
        voice (`VoiceForgery`): The forged voice. With its tones, genuine recordings have a device's whine.
    """

    methods: dict[str, VideoForgery]
    voice: VoiceForgery


LEVELS: dict[str, Level] = {
    STANDARD: Level(_STANDARD_METHODS, VoiceForgery()),
    HARD: Level(
        _HARD_METHODS,
        VoiceForgery(wander=5.0, melody=0.4, formants=0.03, bands=56, iterations=4, hold=2, tones=False),
    ),
}
