"""A leaderboard from files of predictions alone: a table for each set of clips, file properties beside every detector."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path

from dataset_scripts.protocol_lists import split_fingerprint

from ..configuration_detector import SCORE_NAMES
from ..explain.words import count_of
from ..inference.provenance import short_name
from .carried_properties import carried_properties
from .comparison import ComparisonError, Run, read_run
from .evaluation_error import EvaluationError
from .leaderboard_figures import Subject
from .metrics_table import SUSPICIOUS_AUC

CLIP_SET = ("dataset", "protocol", "split", "fingerprint")
"""Facts that detectors must share to be in one table."""


def make_leaderboard(folder: str | Path, n_resamples: int = 1000, seed: int = 0) -> dict:
    """
    Make a leaderboard of every file of predictions below a folder.

    Detectors are in one table if dataset, protocol, split and fingerprint are the same. In a table those are ranked by AUC
    that scored the same clips: the set that most of them share, of equally common sets the largest. The others have
    figures on the clips that they scored, and no rank.

    Args:
        folder (`str` or `Path`): Folder with `predictions.parquet` files of [`evaluate_protocol`] or [`evaluate_scores`].
        n_resamples (`int`, *optional*, defaults to 1000): Resamples of the bootstrap by person; 0 for no intervals.
        seed (`int`, *optional*, defaults to 0): Seed of the resampling.

    Returns:
        `dict`:

        - **tables** -- Each with the facts of its clips and `rows`, see [`_table`].
        - **unusable** -- `file` and `reason` of each file that cannot be read or is not what it says.
        - **left_out** -- `file` and `reason` of each file that is in no table: of perturbed clips, or a copy.

    Raises:
        ComparisonError: for no folder, or a folder without any usable file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ComparisonError(f"There is no folder {folder}.")
    runs, unusable, left_out = _read_folder(folder)
    if not runs:
        why = (
            f" The first of {count_of(len(unusable), 'unusable file')}: {unusable[0]['reason']}"
            if unusable
            else ""
        )
        raise ComparisonError(f"{folder} holds no predictions of untouched clips (*.parquet).{why}")
    groups: dict[tuple, dict[str, Run]] = {}
    for name, run in runs.items():
        groups.setdefault(_clip_set(run), {})[name] = run
    tables = []
    for clip_set, of in sorted(groups.items(), key=lambda item: (item[0][:3], -len(item[1]), item[0][3])):
        kept, copies = _without_copies(of)
        left_out += copies
        tables.append(_table(dict(zip(CLIP_SET, clip_set, strict=True)), kept, n_resamples, seed))
    for table in tables:
        table["notes"] += _other_sets(table, tables, groups)
    return {
        "folder": folder.resolve().name,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "n_resamples": n_resamples,
        "seed": seed,
        "tables": tables,
        "unusable": unusable,
        "left_out": left_out,
    }


def _read_folder(folder: Path) -> tuple[dict[str, Run], list[dict], list[dict]]:
    """Return the runs by the name of their file in the folder, what cannot be used, and what is left out."""
    runs, unusable, left_out = {}, [], []
    for file in sorted(folder.rglob("*.parquet")):
        name = file.relative_to(folder).as_posix()
        try:
            run = read_run(file)
            _check_fingerprint(run)
        except EvaluationError as error:
            unusable.append({"file": name, "reason": str(error).replace(str(file), name)})
            continue
        if perturbed := run.about.get("perturbation"):
            left_out.append({"file": name, "reason": f"of perturbed clips ({perturbed})"})
        else:
            runs[name] = run
    return runs, unusable, left_out


def _check_fingerprint(run: Run) -> None:
    stated = (run.about.get("fingerprints") or {}).get(run.about["split"])
    own = _clip_set(run)[-1]
    if stated not in (None, own):
        raise ComparisonError(
            f"{run.file} says that its clips have the fingerprint {stated[:12]}, and they have {own[:12]}: rows were "
            "added, lost or relabelled since."
        )


def _clip_set(run: Run) -> tuple[str, str, str, str]:
    labelled = ((path, p["label"]) for path, p in run.clips.items() if p["label"] is not None)
    about = run.about
    return str(about["dataset"]), str(about["protocol"]), str(about["split"]), split_fingerprint(labelled)


def _without_copies(runs: dict[str, Run]) -> tuple[dict[str, Run], list[dict]]:
    """Return runs without those whose scores are those of an earlier one, and these."""
    kept, copies, known = {}, [], {}
    for name, run in runs.items():
        scores = frozenset((path, *(p[s] for s in SCORE_NAMES.values())) for path, p in run.clips.items())
        if (first := known.setdefault(scores, name)) == name:
            kept[name] = run
        else:
            copies.append({"file": name, "reason": f"has the scores of {first}"})
    return kept, copies


def _other_sets(table: dict, tables: list[dict], groups: dict[tuple, dict[str, Run]]) -> list[str]:
    """Return a sentence for each other table of the same protocol and split, whose clips are others."""
    own = _paths(table, groups)
    notes = []
    for other in tables:
        if other is not table and all(other[name] == table[name] for name in CLIP_SET[:3]):
            common = len(own & _paths(other, groups))
            notes.append(
                f"Not to be ranked with the table of fingerprint {other['fingerprint'][:12]}: that is of the same protocol "
                f"with other clips or labels ({count_of(common, 'path')} in common)."
            )
    return notes


def _paths(table: dict, groups: dict[tuple, dict[str, Run]]) -> set[str]:
    return set(next(iter(groups[tuple(table[name] for name in CLIP_SET)].values())).clips)


def _table(clip_set: dict, runs: dict[str, Run], n_resamples: int, seed: int) -> dict:
    """
    Return the table of one set of clips.

    Returns:
        `dict`: the facts of `CLIP_SET`, **clips**, **n_real**, **n_fake**, **people**, **official** (whether these are the
        official clips, in words; None: no list is known), **synthetic**, **ranked_on** (clips),
        **notes**, and **rows**, ranked ones first: `rank` (None: not ranked), `name`, `file`, `detector`, `outside`,
        `threshold`, `threshold_source`, `evaluated`, `scored` (clips), `lacking` (paths), the figures of [`Subject.figures`].
    """
    clips = next(iter(runs.values())).clips
    properties: dict[str, dict] = {}
    for run in runs.values():
        properties = carried_properties(list(run.clips.values())) | properties
    scored = {name: _scored(run) for name, run in runs.items()}
    counted = Counter(scored.values())
    chosen = max(counted, key=lambda paths: (counted[paths], len(paths), sorted(paths)))
    labels = [p["label"] for p in clips.values()]
    table = {
        **clip_set,
        "clips": len(clips),
        "n_real": labels.count(0),
        "n_fake": labels.count(1),
        "people": len({p["identity"] for p in clips.values() if p.get("identity")}),
        "official": _official(runs, clip_set["split"]),
        "synthetic": any(run.about.get("synthetic") for run in runs.values()),
        "ranked_on": len(chosen),
        "with_properties": sum(path in properties for path in clips),
    }
    names, rows = _names(runs), []
    for paths in [chosen, *(found for found in counted if found != chosen)]:
        of = {name: run for name, run in runs.items() if scored[name] == paths}
        subject = Subject(of, [path for path in clips if path in paths], properties, n_resamples, seed)
        rows += [_row(names[n], n, of[n], f, len(clips), paths) for n, f in subject.figures().items()]
    _rank(rows, chosen, scored)
    return {**table, "notes": _notes(table, rows), "rows": rows}


def _official(runs: dict[str, Run], split: str) -> str | None:
    """Return in words how the clips compare with the official list, as the first file that knows says."""
    said = [(run.about.get("official") or {}).get(split) for run in runs.values()]
    return next((judgement["text"] for judgement in said if judgement), None)


def _scored(run: Run) -> frozenset[str]:
    return frozenset(
        path for path, p in run.clips.items() if p["score"] is not None and p["label"] is not None
    )


def _names(runs: dict[str, Run]) -> dict[str, str]:
    """Return what to call each run: its model's short name, with the file's folder where two have the same."""
    short = {name: short_name(run.about["model"]) for name, run in runs.items()}
    times = Counter(short.values())
    return {
        name: model
        if times[model] == 1
        else f"{model} ({Path(name).parent.as_posix() if Path(name).parent.name else name})"
        for name, model in short.items()
    }


def _row(name: str, file: str, run: Run, figures: dict, clips: int, paths: frozenset[str]) -> dict:
    about = run.about
    return {
        "rank": None,
        "name": name,
        "file": file,
        "detector": about.get("detector"),
        "outside": bool(about.get("outside")),
        "threshold": run.threshold,
        "threshold_source": run.threshold_source,
        "evaluated": about.get("date"),
        "scored": len(paths),
        "lacking": [path for path in run.clips if path not in paths],
        **figures,
    }


def _rank(rows: list[dict], chosen: frozenset[str], scored: dict[str, frozenset[str]]) -> None:
    """Give the rows on the chosen clips their ranks, equal AUCs the same, and sort all rows."""
    auc = {row["file"]: (row["auc"] or {}).get("value") for row in rows}
    ranked = [row for row in rows if scored[row["file"]] == chosen and auc[row["file"]] is not None]
    for row in ranked:
        better = sum(auc[other["file"]] > auc[row["file"]] + 1e-12 for other in ranked)
        row["rank"] = better + 1
    rows.sort(key=lambda row: (row["rank"] is None, row["rank"] or 0, row["name"]))


def _notes(table: dict, rows: list[dict]) -> list[str]:
    notes = []
    if table["synthetic"]:
        notes.append(
            "The clips are synthetic (demonstration benchmark): these are not numbers of the real corpus."
        )
    if not table["with_properties"]:
        notes.append(
            "No file here carries properties of the clips' files, so there is no baseline. Run the evaluation again: it scores "
            "nothing anew and adds them."
        )
    elif table["with_properties"] < table["clips"]:
        notes.append(f"File properties are known of {table['with_properties']} of {table['clips']} clips.")
    for row in rows:
        auc = (row["auc"] or {}).get("value")
        if row["rank"] is None and auc is not None:
            notes.append(
                f"{row['name']} is not ranked: it scored {row['scored']} of {table['clips']} clips, not the "
                f"{table['ranked_on']} of the ranked ones. The command compare takes the clips that both have."
            )
        if row["outside"] and auc is not None and auc < SUSPICIOUS_AUC:
            notes.append(
                f"{row['name']}: an AUC of {auc:.3f} is far below 0.5. Is its polarity right (--higher-is)?"
            )
    return notes
