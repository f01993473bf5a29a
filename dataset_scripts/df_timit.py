"""DeepfakeTIMIT (Korshunov & Marcel, arXiv:1812.08685): face swaps of 32 of VidTIMIT's 43 speakers, in two qualities.

The corpus has fakes only; its genuine clips are those of VidTIMIT (Sanderson & Lovell, 2009), a separate download that
holds each clip as a folder of JPEG images and a sound file. This command turns the images into video files, without
loss:

    python -m dataset_scripts.vidtimit --input VidTIMIT --output VidTIMIT_avi

Only the pictures of the fakes were changed. In both corpora, silent video files lie beside sound files.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

import datasets

from .builder import EVERY_CLIP, CorpusBuilder, SeededConfig
from .corpus import VIDEO_SUFFIXES, Corpus, MissingFiles, find_root, scan_folders
from .errors import CorpusNotFoundError, MissingFilesError
from .schema import FAKE, REAL, ClipRow, make_row
from .splits import FULL_SPLIT, by_split, split_twice
from .vidtimit import SENTENCE, SUBJECT, image_folders, subjects_in

_QUALITIES = {"higher_quality": "higher", "lower_quality": "lower"}  # folder -> column quality
_FAKES_PER_QUALITY = 320
_FAKE_NAME = re.compile(
    rf"({'|'.join(_QUALITIES)})/({SUBJECT.pattern})/({SENTENCE.pattern})-video-({SUBJECT.pattern})\.avi"
)
_CLIPS_OF_VIDTIMIT = 430
_CLIPS = {
    "higher_quality": "the genuine clips and the fakes of the higher quality",
    "lower_quality": "the genuine clips and the fakes of the lower quality",
}


@dataclass
class DFTimitConfig(SeededConfig):
    """Settings of `df_timit`; `name` is the protocol. `seed` draws the `identity_70_30` protocols.

    Attributes:
        vidtimit_dir (`str`, *optional*):
            Folder of VidTIMIT, as video files. Defaults to a folder named `VidTIMIT` (in any case) in `data_dir` or
            beside the folder of the fakes.
        all_speakers (`bool`, defaults to `False`):
            Take the genuine clips of all 43 speakers, not only of the 32 who are in the fakes.
    """

    vidtimit_dir: str | None = None
    all_speakers: bool = False

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
        forged, other_forged = scan_folders(fakes, list(_QUALITIES), (".avi", ".wav"))
        spoken, other_spoken = scan_folders(genuine, subjects_in(genuine), (*VIDEO_SUFFIXES, ".wav"))
        media = [f"DeepfakeTIMIT/{file}" for file in forged] + [f"VidTIMIT/{file}" for file in spoken]
        return _TwoCorpora(fakes, [], media, other_forged + other_spoken, genuine)


@dataclass
class _TwoCorpora(Corpus):
    """Both corpora: in a path, `DeepfakeTIMIT/` stands for `root` and `VidTIMIT/` for `genuine`."""

    genuine: str = ""

    def absolute(self, path: str) -> str:
        corpus, *below = path.split("/")
        return os.path.join(self.genuine if corpus == "VidTIMIT" else self.root, *below)

    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint()} {self.genuine}".encode()).hexdigest()


def _vidtimit_near(data_dir: str | None, fakes: str) -> str:
    """Return the folder named VidTIMIT in `data_dir` or beside the folder of the fakes."""
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


class DFTimit(CorpusBuilder):
    """DeepfakeTIMIT with the genuine clips of VidTIMIT.

    ```py
    >>> load_dataset("df_timit", "lower_quality", data_dir="corpora")  # corpora/DeepfakeTIMIT, corpora/VidTIMIT
    >>> load_dataset("df_timit", data_dir="DeepfakeTIMIT", vidtimit_dir="VidTIMIT_avi")
    ```

    `data_dir` holds `higher_quality` and `lower_quality`, or one of them, or is the folder above. VidTIMIT must be
    video files: any file of a speaker's folder that is named after a sentence (`fadg0/sa1.avi`, `fadg0/video/sa1.mp4`),
    with its sound in `fadg0/sa1.wav`, `fadg0/audio/sa1.wav`, or, without either, in the video file itself. For the
    folders of images that VidTIMIT consists of, see [`dataset_scripts.vidtimit.encode_vidtimit`].

    Protocols:

    - `higher_quality` (default), `lower_quality`: all fakes of one quality and all genuine clips, in one split,
      `full`. The corpus has no official split, and is mostly used whole, as a test set.
    - `all`: both qualities, in one split, `full`. It has twice as many fakes as genuine clips.
    - `identity_70_30`, `identity_70_30_higher_quality`, `identity_70_30_lower_quality`: 70 / 30, the 70 % again 90 / 10
      into train and validation, by pairs of speakers, evenly over the sexes. Faces were swapped within 16 pairs; a
      pair stays together, so that neither the speaker nor the donor of the face is in two splits. This is our own
      choice.

    The genuine clips are those that the fakes were made from: 10 sentences of each of 32 speakers. `all_speakers` adds
    those of the other 11, without moving anyone to another test set.

    `path` of a fake is its file, `DeepfakeTIMIT/higher_quality/fadg0/sa1-video-fram1.avi`; that of a genuine clip is
    its folder of images, `VidTIMIT/fadg0/video/sa1`, whatever video file was made of it. `identity` is the speaker, in
    whose folder a clip is; a fake has the face of `donor`. The sound is genuine and in a file of its own, `audio`. A
    fake whose sound file is missing counts as missing. `generator` is `faceswap-gan`.

    Columns after the common ones: `quality` (`higher`, `lower`; None for genuine clips), `donor`, `gender` (`women`,
    `men`), `sentence`.
    """

    BUILDER_CONFIG_CLASS = DFTimitConfig
    PROTOCOLS = {
        **{name: f"{clips}, in one split, `{FULL_SPLIT}`." for name, clips in _CLIPS.items()},
        **EVERY_CLIP,
        "identity_70_30": "every clip, 70 / 30 by pair of speakers, the 70 % again 90 / 10.",
        **{f"identity_70_30_{name}": f"{clips}, as identity_70_30." for name, clips in _CLIPS.items()},
    }
    ONE_SPLIT = (*_CLIPS, "all")
    DESCRIPTION = "DeepfakeTIMIT: face swaps of VidTIMIT, with its genuine clips."
    HOMEPAGE = "https://www.idiap.ch/en/scientific-research/data/deepfaketimit"
    CORPUS_COLUMNS = dict.fromkeys(("quality", "donor", "gender", "sentence"), datasets.Value("string"))
    GROUP_COLUMNS = ("quality", "gender")

    def read(self, corpus: Corpus) -> tuple[list[ClipRow], MissingFiles]:
        """See [`CorpusBuilder.read`]. Each quality should have the fakes that either of them has."""
        fakes, strays = _fakes(corpus.media)
        if not fakes:
            raise CorpusNotFoundError(
                f"df_timit: no fake in {corpus.root}, such as higher_quality/fadg0/sa1-video-fram1.avi; "
                f"{corpus.others:,} files are of another kind."
            )
        clips = sorted({clip for members in fakes.values() for clip in members})
        missing = MissingFiles()
        rows = self._genuine_rows(corpus, {(subject, sentence) for subject, sentence, _ in clips}, missing)
        on_disk = set(corpus.media)
        for quality in _QUALITIES:
            if self.config.name.endswith("_quality") and not self.config.name.endswith(quality):
                continue
            found = len(fakes.get(quality, ()))
            if found != _FAKES_PER_QUALITY:
                self.note_size(f"{quality} has {found:,} fakes", f"{_FAKES_PER_QUALITY}")
            rows += [_fake(corpus, quality, clip, on_disk, missing) for clip in clips]
        self.note_unused(strays, f"avi files in {corpus.root} are not named like fakes")
        return rows, missing

    def deal(self, rows: list[ClipRow]) -> dict[str, list[ClipRow]]:
        """See [`CorpusBuilder.deal`]."""
        group_of = _pairs(rows)
        swapped = {row["identity"] for row in rows if row["label"] == FAKE}
        # The strata are dealt in alphabetical order: speakers without fakes come last, so that they move no pair.
        strata = {
            group_of[subject]: f"{'pairs' if subject in swapped else 'without fakes'} {subject[0]}"
            for subject in sorted(group_of)
        }
        splits = split_twice(strata, self.config.seed)
        return by_split(rows, lambda row: splits[group_of[row["identity"]]])

    def _genuine_rows(
        self, corpus: Corpus, spoken: set[tuple[str, str]], missing: MissingFiles
    ) -> list[ClipRow]:
        """Return the rows of the genuine clips `spoken`, or of all there are, as (subject, sentence)."""
        genuine = _Genuine(corpus.media)
        if self.config.all_speakers:
            spoken = spoken | {*genuine.videos, *image_folders(corpus.absolute("VidTIMIT"))}
            if len(spoken) != _CLIPS_OF_VIDTIMIT:
                self.note_size(f"VidTIMIT has {len(spoken):,} clips", f"{_CLIPS_OF_VIDTIMIT}")
        rows = [_real(corpus, genuine, *clip, missing) for clip in sorted(spoken)]
        _require_videos(corpus, rows)
        inside = sum(row["audio"] is None and row["video"] is not None for row in rows)
        if inside:
            self.note(
                f"{inside:,} genuine clips have no wav file: their sound is expected in the video file."
            )
        if genuine.repeated:
            self.note(
                f"{len(genuine.repeated):,} genuine clips have several video files, of which the first by name is "
                f"used, such as {genuine.repeated[0]}."
            )
        return rows


def _real(corpus: Corpus, genuine: _Genuine, subject: str, sentence: str, missing: MissingFiles) -> ClipRow:
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


def _require_videos(corpus: Corpus, rows: list[ClipRow]) -> None:
    """Raise [`MissingFilesError`], with the command to run, if VidTIMIT is still folders of images."""
    images = [
        row["path"] for row in rows if row["video"] is None and os.path.isdir(corpus.absolute(row["path"]))
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
    """Return (subject, sentence, donor) of the fakes of each quality, and the avi files with other names."""
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
    """The video and sound files of VidTIMIT by (subject, sentence), anywhere in the subject's folder."""

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
    """Return speaker -> the first by name of all speakers connected with them by swapped faces."""
    first = {row["identity"]: row["identity"] for row in rows}
    swaps = {(row["identity"], row["donor"]) for row in rows if row["donor"] is not None}
    for subject, donor in sorted(swaps):
        one, other = first[subject], first.setdefault(donor, donor)
        if one != other:
            joined = min(one, other)
            first = {name: joined if group in (one, other) else group for name, group in first.items()}
    return first
