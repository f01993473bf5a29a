"""Write small copies of KoDF: the international release, and the one of AI-Hub."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path

from dataset_factory import touch

METHODS = {"dfl": 1, "dffs": 2, "fsgan": 3, "fo": 4, "audio-driven": 5}
REAL_HEADER = ("영상ID", "UUID", "인물성별", "촬영장소", "촬영시작", "스크립트파일", "시나리오번호")
FAKE_HEADER = ("영상ID", "타겟영상", "타겟UUID", "소스UUID", "변조모델", "촬영시작", "인물성별")


def people(first: int, count: int) -> list[str]:
    """Return names of people: twenty hexadecimal digits, or six decimal ones."""
    return [f"{n:06d}" if n % 3 == 0 else f"{n * 7919:020x}" for n in range(first, first + count)]


def kodf_clips(named: list[str]) -> tuple[list[tuple[str, str]], list[tuple[str, str, str, str, str]]]:
    """Return genuine clips as (file, person) and fakes as (file, genuine clip, its person, other person, method)."""
    genuine = [(f"{person}_{n:03d}.mp4", person) for person in named for n in (1, 2)]
    fakes = []
    for place, person in enumerate(named):
        other = named[(place + 1) % len(named)]
        for method, code in METHODS.items():
            fakes.append(
                (f"{person}_{other}_{code}_{place:04d}.mp4", f"{person}_001.mp4", person, other, method)
            )
    return genuine, fakes


def write_kodf_international(root: Path, named: list[str]) -> list[str]:
    """Write the international release below `root` and return the paths of the clips."""
    genuine, fakes = kodf_clips(named)
    paths = [f"original_videos/{person}/{file}" for file, person in genuine]
    paths += [f"synthesized_videos/{method}/20200915/{person}/{file}" for file, _, person, _, method in fakes]
    for path in paths:
        touch(root / path)
    touch(root / "original_videos" / "readme.txt")
    return paths


def write_kodf_aihub(
    root: Path, parts: dict[str, list[str]], encoding: str = "utf-8-sig", decomposed: bool = False
) -> dict[str, tuple[list, list]]:
    """Write AI-Hub's distribution below `root`, and return the clips of each part.

    The parts are `training` and `validation`; the form of a `test` part, which is described in places, is a guess.

    With `decomposed`, the Korean letters of names and tables are decomposed, as macOS writes them.
    """

    def spelled(text: str) -> str:
        return unicodedata.normalize("NFD", text) if decomposed else text

    written = {}
    for part, named in parts.items():
        short = {"training": "train", "validation": "validate", "test": "test"}[part]
        top = (
            root
            / spelled("003.딥페이크")
            / {"training": "1.Training", "validation": "2.Validation", "test": "3.Test"}[part]
        )
        media, tables = top / spelled("원천데이터"), top / spelled("라벨링데이터") / f"{short}_meta_data"
        genuine, fakes = kodf_clips(named)
        tables.mkdir(parents=True)
        rows_of_genuine = [
            (file, person, "남" if n % 2 else "여", "실내", "2020.07.24:15.05.30", f"s{n}.txt", str(n))
            for n, (file, person) in enumerate(genuine)
        ]
        rows_of_fakes = [
            (file, target, person, other, method, "2020.07.24:15.05.30", "남")
            for file, target, person, other, method in fakes
        ]
        for name, header, rows in (
            ("원본영상", REAL_HEADER, rows_of_genuine),
            ("변조영상", FAKE_HEADER, rows_of_fakes),
        ):
            path = tables / spelled(f"{name}_{part}_메타데이터.csv")
            with open(path, "w", newline="", encoding=encoding) as file:
                csv.writer(file).writerows([[spelled(cell) for cell in row] for row in (header, *rows)])
        for file, person in genuine:
            touch(media / spelled(f"{short}_원본") / spelled("원본1") / person / file)
        for file, _, person, _, method in fakes:
            touch(media / spelled(f"{short}_변조") / f"{method.replace('-', '_')}1" / person / file)
        # Clips with adversarial noise have the names of their originals.
        noisy = media / spelled(f"{short}_탐지방해") / spelled("변조영상") / "01_noise"
        touch(noisy / fakes[0][0])
        written[part] = (genuine, fakes)
    return written
