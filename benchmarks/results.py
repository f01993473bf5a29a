"""Measured figures as CSV files whose names state the hardware and versions."""

import csv
import re
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from modeling_avlmm.inference.provenance import environment

FOLDER = Path(__file__).parent / "results"


def write_results(
    rows: Sequence[dict],
    topic: str,
    packages: Sequence[str] = ("torch",),
    folder: Path = FOLDER,
    **conditions,
) -> Path:
    """
    Write rows as `TOPIC_HARDWARE_CONDITIONS_VERSIONS.csv`, with all versions and the date in every row.

    Args:
        rows (`Sequence[dict]`): Measurements; the keys of the first are the columns.
        topic (`str`): Beginning of the name, e.g. `ssavd_streaming`.
        packages (`Sequence[str]`, *optional*, defaults to `("torch",)`): Packages whose versions the name states.
        folder (`Path`, *optional*): Folder of the file. Defaults to `benchmarks/results`.
        conditions: Further parts of the name, e.g. `threads=2`.

    Returns:
        `Path`: the file.
    """
    about = environment()
    for name in packages:
        try:
            about[name] = version(name)
        except PackageNotFoundError:
            about[name] = "none"
    hardware = re.sub(r"[^a-z0-9]+", "-", about["device"].lower()).strip("-")
    told = [f"{value}-{name}" for name, value in conditions.items()]
    told += [f"{name}-{about[name].partition('+')[0]}" for name in packages]
    path = folder / f"{'_'.join([topic, hardware, *told])}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {**about, "date": time.strftime("%Y-%m-%d")}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=[*rows[0], *(key for key in extra if key not in rows[0])])
        writer.writeheader()
        writer.writerows({**extra, **row} for row in rows)
    print(f"written to {path}")
    return path
