"""DeepfakeTIMIT (Korshunov & Marcel, arXiv:1812.08685): face swaps of 32 of the 43 speakers of VidTIMIT, in two qualities.

The corpus has fakes only; its genuine clips are those of VidTIMIT (Sanderson & Lovell, 2009), which is a download of its
own and holds each clip as a folder of JPEG images and a sound file. They are put into video files, image by image and
without loss, by

    python -m dataset_scripts.vidtimit --input VidTIMIT --output VidTIMIT_avi

The pictures of the fakes alone were changed, and silent video files lie beside sound files in both corpora.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from typing import Any, ClassVar

import datasets

from .builder import CorpusBuilder, CorpusConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, find_root, scan_files
from .errors import CorpusNotFoundError, MissingFilesError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, split_twice
from .vidtimit import SENTENCE, SUBJECT, image_folders, subjects_in

_QUALITIES = {"higher_quality": "higher", "lower_quality": "lower"}  # folder -> column quality
_FAKES_PER_QUALITY = 320
_FAKE_NAME = re.compile(
    rf"({'|'.join(_QUALITIES)})/({SUBJECT.pattern})/({SENTENCE.pattern})-video-({SUBJECT.pattern})\.avi"
)
_SHARES = {"train": 63, "validation": 7, "test": 30}
_CLIPS_OF_VIDTIMIT = 430


@dataclass
class DFTimitConfig(CorpusConfig):
    """Settings of `df_timit`; `name` is the protocol.

    Attributes:
        vidtimit_dir (`str`, *optional*):
            Folder of VidTIMIT, as video files. Defaults to a folder named `VidTIMIT` (in any case) in `data_dir` or
            beside the folder of the fakes.
        all_speakers (`bool`, defaults to `False`):
            Take the genuine clips of all 43 speakers, not only of the 32 who are in the fakes.
        seed (`int`, defaults to 0):
            Seed of the `identity_70_30` protocols.
    """

    vidtimit_dir: str | None = None
    all_speakers: bool = False
    seed: int = 0

    def locate(self) -> Corpus:
        """Find the folders of both corpora, the video files of each and the sound files."""
        fakes = find_root(
            self.data_dir,
            "DeepfakeTIMIT",
            f"the folders {' and '.join(_QUALITIES)}",
            lambda d: any(os.path.isdir(os.path.join(d, quality)) for quality in _QUALITIES),
        )
        genuine = find_root(
            self.vidtimit_dir or _vidtimit_near(self.data_dir, fakes),
            "VidTIMIT",
            "the folders of its speakers (fadg0, faks0, ...)",
            lambda d: bool(subjects_in(d)),
        )
        media: list[str] = []
        others = 0
        for quality in _QUALITIES:
            if os.path.isdir(os.path.join(fakes, quality)):
                files, rest = scan_files(os.path.join(fakes, quality), (".avi", ".wav"))
                media += [f"DeepfakeTIMIT/{quality}/{file}" for file in files]
                others += rest
        for subject in subjects_in(genuine):
            files, rest = scan_files(os.path.join(genuine, subject), (*VIDEO_SUFFIXES, ".wav"))
            media += [f"VidTIMIT/{subject}/{file}" for file in files]
            others += rest
        return _TwoCorpora(fakes, [], media, others, genuine)


@dataclass
class _TwoCorpora(Corpus):
    """`DeepfakeTIMIT/` in a path stands for `root`, `VidTIMIT/` for `genuine`, wherever the two are."""

    genuine: str = ""

    def absolute(self, path: str) -> str:
        corpus, *below = path.split("/")
        return os.path.join(self.genuine if corpus == "VidTIMIT" else self.root, *below)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint()} {self.genuine}".encode()).hexdigest()


def _vidtimit_near(data_dir: str | None, fakes: str) -> str:
    """A folder named VidTIMIT in `data_dir` or beside the folder of the fakes."""
    above = [os.path.abspath(os.path.expanduser(str(data_dir))), os.path.dirname(fakes)]
    for folder in dict.fromkeys(above):
        for name in sorted(os.listdir(folder)):
            if name.lower() == "vidtimit" and os.path.isdir(os.path.join(folder, name)):
                return os.path.join(folder, name)
    raise CorpusNotFoundError(
        f"df_timit: DeepfakeTIMIT has no genuine clips. Put VidTIMIT beside it, in {above[-1]}/VidTIMIT, or pass its "
        f"folder as `vidtimit_dir`. If it is as downloaded, images in folders: {_command('VidTIMIT')}"
    )


def _command(vidtimit: str) -> str:
    return (
        f"`python -m dataset_scripts.vidtimit --input {vidtimit} --output VidTIMIT_avi` makes video files of them, "
        'without loss; then pass vidtimit_dir="VidTIMIT_avi".'
    )


def _configs() -> list[DFTimitConfig]:
    clips = {
        "higher_quality": "the genuine clips and the fakes of the higher quality",
        "lower_quality": "the genuine clips and the fakes of the lower quality",
    }
    descriptions = {
        **{name: f"{what}, in one split, `{FULL_SPLIT}`." for name, what in clips.items()},
        "all": f"every clip in one split, `{FULL_SPLIT}`.",
        "identity_70_30": "every clip, 70 / 30 by pair of speakers, the 70 % again 90 / 10.",
        **{f"identity_70_30_{name}": f"{what}, as identity_70_30." for name, what in clips.items()},
    }
    return [DFTimitConfig(name=name, version="1.0.0", description=d) for name, d in descriptions.items()]


class DFTimit(CorpusBuilder):
    """DeepfakeTIMIT with the genuine clips of VidTIMIT.

    ```py
    >>> load_dataset("df_timit", "lower_quality", data_dir="corpora")  # corpora/DeepfakeTIMIT, corpora/VidTIMIT
    >>> load_dataset("df_timit", data_dir="DeepfakeTIMIT", vidtimit_dir="VidTIMIT_avi")
    ```

    `data_dir` holds `higher_quality` and `lower_quality`, or one of them, or is the folder above. VidTIMIT must be
    video files: any file of a speaker's folder that is named after a sentence (`fadg0/sa1.avi`, `fadg0/video/sa1.mp4`),
    with its sound in `fadg0/sa1.wav`, `fadg0/audio/sa1.wav`, or, where there is neither, in the video file itself. For
    its own form, folders of images, see [`dataset_scripts.vidtimit.encode_vidtimit`].

    Protocols:

    - `higher_quality` (default), `lower_quality`: all fakes of one quality and all genuine clips, in one split,
      `full`. The corpus has no official split, and is mostly used whole, to test on.
    - `all`: both qualities, in one split, `full`. There are then twice as many fakes as genuine clips.
    - `identity_70_30`, `identity_70_30_higher_quality`, `identity_70_30_lower_quality`: 70 / 30, the 70 % again 90 / 10
      into train and validation, by pairs of speakers, evenly over the sexes. Faces were swapped within 16 pairs; a
      pair stays together, so that neither the speaker nor the donor of the face is in two splits. This is our own
      choice.

    The genuine clips are those the fakes were made from: 10 sentences of each of 32 speakers. With `all_speakers` those
    of the other 11 are added; they move no one to another test set.

    `path` of a fake is its file, `DeepfakeTIMIT/higher_quality/fadg0/sa1-video-fram1.avi`; that of a genuine clip is
    its folder of images, `VidTIMIT/fadg0/video/sa1`, whatever video file was made of it. `identity` is the speaker,
    whose folder a clip is in; the face of a fake is that of `donor`. The sound is genuine and in a file of its own,
    `audio`. A clip whose sound file is missing counts as missing. `generator` is `faceswap-gan`.

    Columns after the common ones: `quality` (`higher`, `lower`; None for genuine clips), `donor`, `gender` (`women`,
    `men`), `sentence`.
    """

    BUILDER_CONFIG_CLASS = DFTimitConfig
    BUILDER_CONFIGS: ClassVar[list[DFTimitConfig]] = _configs()
    DEFAULT_CONFIG_NAME = "higher_quality"
    DESCRIPTION = "DeepfakeTIMIT: face swaps of VidTIMIT, with its genuine clips."
    HOMEPAGE = "https://www.idiap.ch/en/scientific-research/data/deepfaketimit"
    CORPUS_COLUMNS: ClassVar[dict[str, Any]] = {
        "quality": datasets.Value("string"),
        "donor": datasets.Value("string"),
        "gender": datasets.Value("string"),
        "sentence": datasets.Value("string"),
    }
    GROUP_COLUMNS: ClassVar[tuple[str, ...]] = ("quality", "gender")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. What one quality has, the other should have too."""
        fakes, strays = _fakes(corpus.media)
        if not fakes:
            raise CorpusNotFoundError(
                f"df_timit: no fake in {corpus.root}, such as higher_quality/fadg0/sa1-video-fram1.avi; "
                f"{corpus.others:,} files are of another kind."
            )
        clips = sorted({clip for members in fakes.values() for clip in members})
        missing = MissingFiles()
        on_disk = set(corpus.media)
        genuine = _Genuine(corpus.media)
        spoken = {(subject, sentence) for subject, sentence, _ in clips}
        if self.config.all_speakers:
            spoken |= {*genuine.videos, *image_folders(corpus.absolute("VidTIMIT"))}
            if len(spoken) != _CLIPS_OF_VIDTIMIT:
                self.note(f"VidTIMIT has {len(spoken):,} clips, not the published {_CLIPS_OF_VIDTIMIT}.")
        rows = [self._real(corpus, genuine, *clip, missing) for clip in sorted(spoken)]
        self._require_videos(corpus, rows)
        for quality in _QUALITIES:
            if self.config.name.endswith("_quality") and not self.config.name.endswith(quality):
                continue
            found = len(fakes.get(quality, ()))
            if found != _FAKES_PER_QUALITY:
                self.note(
                    f"{quality} has {found:,} fakes, not the published {_FAKES_PER_QUALITY}: numbers "
                    "from it may not compare with published ones."
                )
            rows += [self._fake(corpus, quality, clip, on_disk, missing) for clip in clips]
        inside = sum(
            row["label"] == REAL and row["audio"] is None and row["video"] is not None for row in rows
        )
        if inside:
            self.note(
                f"{inside:,} genuine clips have no wav file: their sound is looked for in the video file."
            )
        if strays:
            self.note(
                f"{len(strays):,} avi files in {corpus.root} are not named as fakes are and are not used, such as "
                f"{', '.join(strays[:3])}."
            )
        if genuine.repeated:
            self.note(
                f"{len(genuine.repeated):,} genuine clips have several video files, of which the first by name is "
                f"used, such as {genuine.repeated[0]}."
            )
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        if not self.config.name.startswith("identity_70_30"):
            return {FULL_SPLIT: rows}
        group_of = _pairs(rows)
        swapped = {row["identity"] for row in rows if row["label"] == FAKE}
        # Speakers without fakes come last, so that they move no pair.
        strata = {
            group_of[subject]: f"{'pairs' if subject in swapped else 'without fakes'} {subject[0]}"
            for subject in sorted(group_of)
        }
        splits = split_twice(strata, self.config.seed)
        dealt: dict[str, list[ClipRow]] = {split: [] for split in _SHARES}
        for row in rows:
            dealt[splits[group_of[row["identity"]]]].append(row)
        return dealt

    def _real(
        self, corpus: Corpus, genuine: _Genuine, subject: str, sentence: str, missing: MissingFiles
    ) -> ClipRow:
        path = _genuine_path(subject, sentence)
        video = genuine.videos.get((subject, sentence))
        sound = genuine.sounds.get((subject, sentence))
        missing.count(path, f"VidTIMIT/{subject}", video is not None)
        return make_row(
            None if video is None else corpus.absolute(video),
            path,
            REAL,
            audio=None if sound is None else corpus.absolute(sound),
            language="en",
            identity=subject,
            quality=None,
            donor=None,
            gender=_gender(subject),
            sentence=sentence,
        )

    def _fake(
        self,
        corpus: Corpus,
        quality: str,
        clip: tuple[str, str, str],
        on_disk: set[str],
        missing: MissingFiles,
    ) -> ClipRow:
        subject, sentence, donor = clip
        folder = f"DeepfakeTIMIT/{quality}/{subject}"
        path, sound = f"{folder}/{sentence}-video-{donor}.avi", f"{folder}/{sentence}.wav"
        for file in (path, sound):
            missing.count(file, f"DeepfakeTIMIT/{quality}", file in on_disk)
        return make_row(
            corpus.absolute(path) if {path, sound} <= on_disk else None,
            path,
            FAKE,
            audio=corpus.absolute(sound),
            video_label=FAKE,
            audio_label=REAL,
            generator="faceswap-gan",
            language="en",
            identity=subject,
            source=_genuine_path(subject, sentence),
            quality=_QUALITIES[quality],
            donor=donor,
            gender=_gender(subject),
            sentence=sentence,
        )

    def _require_videos(self, corpus: Corpus, rows: list[ClipRow]) -> None:
        """Say what to do where VidTIMIT is as downloaded."""
        images = [
            row["path"]
            for row in rows
            if row["video"] is None and os.path.isdir(corpus.absolute(row["path"]))
        ]
        if images:
            vidtimit = corpus.absolute("VidTIMIT")
            raise MissingFilesError(
                f"df_timit: {len(images):,} genuine clips in {vidtimit} are folders of images, such as {images[0]}, "
                f"and not video files. {_command(vidtimit)}"
            )


def _gender(subject: str) -> str:
    return "women" if subject.startswith("f") else "men"


def _genuine_path(subject: str, sentence: str) -> str:
    return f"VidTIMIT/{subject}/video/{sentence}"


def _fakes(media: list[str]) -> tuple[dict[str, set[tuple[str, str, str]]], list[str]]:
    """(Subject, sentence, donor) of the fakes of each quality that is there, and the avi files of other names."""
    fakes: dict[str, set[tuple[str, str, str]]] = {}
    strays: list[str] = []
    for path in media:
        corpus, _, below = path.partition("/")
        if corpus != "DeepfakeTIMIT" or path.endswith(".wav"):
            continue
        match = _FAKE_NAME.fullmatch(below)
        if match is None:
            strays.append(path)
        else:
            quality, *clip = match.groups()
            fakes.setdefault(quality, set()).add(tuple(clip))
    return fakes, strays


class _Genuine:
    """The video and sound files of VidTIMIT by (subject, sentence), wherever in the subject's folder they are."""

    def __init__(self, media: list[str]) -> None:
        self.videos: dict[tuple[str, str], str] = {}
        self.sounds: dict[tuple[str, str], str] = {}
        self.repeated: list[str] = []
        for path in media:
            corpus, subject, *_, name = path.split("/")
            sentence, suffix = os.path.splitext(name)
            if corpus != "VidTIMIT" or not SENTENCE.fullmatch(sentence):
                continue
            found = self.sounds if suffix.lower() == ".wav" else self.videos
            if found.setdefault((subject, sentence), path) != path and found is self.videos:
                self.repeated.append(path)


def _pairs(rows: list[ClipRow]) -> dict[str, str]:
    """Speaker -> the first by name of all speakers whom swapped faces connect with them, themselves included."""
    first = {row["identity"]: row["identity"] for row in rows}
    swaps = {(row["identity"], row["donor"]) for row in rows if row["donor"] is not None}
    for subject, donor in sorted(swaps):
        one, other = first[subject], first.setdefault(donor, donor)
        if one != other:
            joined = min(one, other)
            first = {name: joined if group in (one, other) else group for name, group in first.items()}
    return first
