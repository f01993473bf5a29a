"""Turn VidTIMIT (Sanderson & Lovell, 2009), the genuine clips of DeepfakeTIMIT, into video files.

VidTIMIT is distributed as a folder of JPEG images and a sound file per clip. This command puts the images into video
files as they are, without encoding them again:

    python -m dataset_scripts.vidtimit --input VidTIMIT --output VidTIMIT_avi

By hand, for one clip whose images are named 001, 002, ...:

    ffmpeg -framerate 25 -f image2 -c:v mjpeg -i fadg0/video/sa1/%03d -c:v copy sa1.avi
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from .corpus import find_root
from .errors import CorpusError, CorpusNotFoundError, MetadataError, MissingFilesError
from .files import written_whole

SUBJECT = re.compile(r"[fm][a-z]{3}\d")  # as in TIMIT: sex, initials, a digit
SENTENCE = re.compile(r"s[aix]\d+")  # the other sequences, head, head2 and head3, are turns of the head
_FRAME_RATE = 25
_JPEG_BEGIN, _JPEG_END = b"\xff\xd8", b"\xff\xd9"


def subjects_in(folder: str) -> list[str]:
    """Return the names of the speakers' folders in a folder."""
    return sorted(e.name for e in os.scandir(folder) if e.is_dir() and SUBJECT.fullmatch(e.name))


def image_folders(vidtimit: str) -> list[tuple[str, str]]:
    """Return (subject, sentence) of the clips that are folders of images."""
    clips = []
    for subject in subjects_in(vidtimit):
        folder = os.path.join(vidtimit, subject, "video")
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        clips += [
            (subject, n) for n in names if SENTENCE.fullmatch(n) and os.path.isdir(os.path.join(folder, n))
        ]
    return clips


def encode_vidtimit(vidtimit: str, output: str, frame_rate: float = _FRAME_RATE) -> Iterator[str]:
    """Turn VidTIMIT's folders of images into video files, with the sound files beside them.

    The JPEG images are stored as they are, as Motion JPEG in AVI: `<output>/<subject>/<sentence>.avi`. Nothing is
    encoded again. Existing clips are skipped, so that a stopped run can continue.

    Args:
        vidtimit (`str`):
            Folder with `<subject>/video/<sentence>/001, 002, ...` (also `001.jpg`) and
            `<subject>/audio/<sentence>.wav`, or the folder above.
        output (`str`):
            Folder to write to.
        frame_rate (`float`, defaults to 25):
            Images per second.

    Yields:
        `str`: each video file, when it and its sound file are complete.

    Raises:
        [`CorpusNotFoundError`]: `vidtimit` has no such folders.
        [`MetadataError`]: an image is missing in the middle of a clip, is not a JPEG, or is refused by ffmpeg.
        [`MissingFilesError`]: a clip has no sound file, or the ffmpeg command line is not installed.
    """
    if shutil.which("ffmpeg") is None:
        raise MissingFilesError("The ffmpeg command line is not installed; it makes the video files.")
    root = find_root(vidtimit, "VidTIMIT", "the folders of its speakers", lambda d: bool(subjects_in(d)))
    clips = image_folders(root)
    if not clips:
        raise CorpusNotFoundError(f"VidTIMIT: no folder of images in {root}, such as fadg0/video/sa1.")
    sounds = {clip: os.path.join(root, clip[0], "audio", f"{clip[1]}.wav") for clip in clips}
    silent = [sound for sound in sounds.values() if not os.path.isfile(sound)]
    if silent:
        raise MissingFilesError(f"VidTIMIT: {len(silent):,} sound files are missing, such as {silent[0]}.")
    for (subject, sentence), sound in sounds.items():
        video = os.path.join(output, subject, f"{sentence}.avi")
        if not os.path.isfile(video):
            os.makedirs(os.path.dirname(video), exist_ok=True)
            shutil.copyfile(sound, os.path.splitext(video)[0] + ".wav")
            _encode(_images(os.path.join(root, subject, "video", sentence)), video, frame_rate)
        yield video


def _images(folder: str) -> list[str]:
    """Return the images of a clip in the order of their numbers, which must be complete."""
    numbered: dict[int, str] = {}
    for name in os.listdir(folder):
        match = re.fullmatch(r"(\d+)(\.jpe?g)?", name, re.IGNORECASE)
        if match:
            numbered[int(match.group(1))] = os.path.join(folder, name)
    order = sorted(numbered)
    gaps = sorted(set(range(order[0], order[-1] + 1)) - set(order)) if order else []
    if not order or gaps:
        raise MetadataError(f"{folder}: {f'image {gaps[0]} is missing' if gaps else 'no numbered images'}.")
    return [numbered[number] for number in order]


def _encode(images: Sequence[str], video: str, frame_rate: float) -> None:
    frames = []
    for image in images:
        with open(image, "rb") as file:
            frames.append(file.read())
        if not frames[-1].startswith(_JPEG_BEGIN) or _JPEG_END not in frames[-1][-64:]:
            raise MetadataError(f"{image} is not a complete JPEG image.")
    source = ["-f", "image2pipe", "-c:v", "mjpeg", "-framerate", f"{frame_rate:g}", "-i", "-"]
    copies = ["-c:v", "copy", "-f"]
    with written_whole(video) as partial:
        outputs = [
            *copies,
            "avi",
            str(partial),
            *copies,
            "framecrc",
            "-",
        ]  # the second prints a line per image
        command = ["ffmpeg", "-loglevel", "error", "-y", *source, *outputs]
        done = subprocess.run(command, input=b"".join(frames), capture_output=True, check=False)
        stored = sum(not line.startswith(b"#") for line in done.stdout.splitlines())
        if done.returncode or stored != len(images):
            said = done.stderr.decode(errors="replace").strip()
            raise MetadataError(
                f"{os.path.dirname(images[0])}: ffmpeg stored {stored} of {len(images)} images. {said}".rstrip()
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m dataset_scripts.vidtimit`: see [`encode_vidtimit`]."""
    parser = argparse.ArgumentParser(
        prog="python -m dataset_scripts.vidtimit",
        description="Turn VidTIMIT's folders of images into video files, without loss, for `df_timit`.",
    )
    parser.add_argument("--input", required=True, help="folder of VidTIMIT, as downloaded")
    parser.add_argument(
        "--output", required=True, help="folder to write <speaker>/<sentence>.avi and .wav to"
    )
    parser.add_argument(
        "--frame-rate", type=float, default=_FRAME_RATE, help="images per second (%(default)s)"
    )
    options = parser.parse_args(arguments)
    clips: Counter[str] = Counter()
    try:
        for video in encode_vidtimit(options.input, options.output, options.frame_rate):
            clips[os.path.basename(os.path.dirname(video))] += 1
    except CorpusError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{clips.total():,} clips of {len(clips)} speakers are in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
