"""Measure why the corpora do not use the stock module factory of `datasets`: listing a folder, and the import itself.

    python benchmarks/corpus_listing.py --save

`datasets` lists and stats every file below `data_dir` before it makes a builder; the corpus builders scan the folder
once. Both are timed on the same folder of empty files, and the import of `datasets` in a process of its own.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def make_folder(root: Path, clips: int) -> None:
    """Write empty clips, 100 in a folder."""
    for number in range(clips):
        path = root / f"{number // 100:04d}" / f"{number:06d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def measure(what: str, count: Callable[[], int], who: int = resource.RUSAGE_SELF) -> dict:
    """Return files listed, wall and CPU seconds of one call."""
    before, started = resource.getrusage(who), time.perf_counter()
    files = count()
    wall, after = time.perf_counter() - started, resource.getrusage(who)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"what": what, "files": files, "wall_s": round(wall, 2), "cpu_s": round(cpu, 3)}


def import_datasets() -> int:
    """Import `datasets` in a new process."""
    subprocess.run([sys.executable, "-c", "import datasets"], check=True)
    return 0


def compare(clips: int) -> list[dict]:
    """Return the rows of the table."""
    rows = [measure("import datasets", import_datasets, resource.RUSAGE_CHILDREN)]
    from datasets import load

    from dataset_scripts.corpus import scan_files

    with tempfile.TemporaryDirectory() as folder:
        make_folder(Path(folder), clips)

        def stock() -> int:
            module = load.PackagedDatasetModuleFactory("videofolder", data_dir=folder).get_module()
            return sum(map(len, module.builder_kwargs["data_files"].values()))

        rows.append(measure("stock factory", stock))
        rows.append(measure("corpus builders", lambda: len(scan_files(folder)[0])))
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clips", type=int, default=21_600, help="files in the folder (%(default)s)")
    parser.add_argument("--save", action="store_true", help="write a CSV to benchmarks/results")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"  # the stock factory reports the load over the network
    rows = compare(options.clips)
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    if options.save:
        from results import write_results

        write_results(rows, "corpus_listing", packages=("datasets",))


if __name__ == "__main__":
    main()
