"""AV-Deepfake1M++ (Cai et al., arXiv:2507.20579): two million clips of VoxCeleb2, LRS3 and silent recordings.

The second edition of AV-Deepfake1M, for the 2025 challenge, with other generators and with disturbances like those of
real recordings. The test splits A and B are published without labels and cannot be loaded.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import datasets

from .av_deepfake1m import ORIGINS, AVDeepfake1M
from .errors import MetadataError


class AVDeepfake1MPlusPlus(AVDeepfake1M):
    """AV-Deepfake1M++ from the folder its authors distribute.

    ```py
    >>> load_dataset("av_deepfake1m_pp", data_dir="AV-Deepfake1M-PlusPlus", parts=["val"])
    ```

    Folder, protocols, labels and columns are those of [`AVDeepfake1M`], except:

    - `generator` is `video_model` (`Talklip`, `diff2lip`).
    - `identity` is the speaker of VoxCeleb2, `subject_<n>` for the silent recordings, and for LRS3 the recording of
      the clip (a talk, which we assume shows one person).
    - `source`: where the metadata name a file of VoxCeleb2 or LRS3 instead of one of the release, it is the genuine
      clip that names the same file.
    - The column `origin` is added: `vox_celeb_2`, `lrs3` or `silent_videos`; None for paths of another form. The form
      of the paths is known for `val`; we assume the same for `train`.
    - Some clips have no sound: see `audio_frames`.

    The number of clips is published for `val` only; `train` has more than a million, whose rows take several GB of
    memory while the table is built.
    """

    DESCRIPTION = "AV-Deepfake1M++: audio-visual deepfakes with replaced words and real-world perturbations."
    HOMEPAGE = "https://huggingface.co/datasets/ControlNet/AV-Deepfake1M-PlusPlus"
    CORPUS_COLUMNS = {
        **AVDeepfake1M.CORPUS_COLUMNS,
        "origin": datasets.Value("string"),
    }
    GROUP_COLUMNS = ("modify_type", "origin")
    KNOWN_ROWS: ClassVar[dict[str, int]] = {"val": 77_326}

    def describe(self, file: str, entry: dict[str, Any], where: str) -> dict[str, Any]:
        """See [`AVDeepfake1M.describe`]."""
        if "video_model" not in entry:
            raise MetadataError(
                f"{where}: no video_model. If this is the first edition, load `av_deepfake1m` instead."
            )
        first, *below = file.split("/")
        identity = below[0] if len(below) > 1 else None
        if first == "silent_videos" and identity is not None:
            match = re.match(r"subject_\d+(?=_|$)", identity)
            identity = match.group() if match else None
        return {
            "generator": entry["video_model"],
            "identity": identity if first in ORIGINS else None,
            "origin": first if first in ORIGINS else None,
        }
