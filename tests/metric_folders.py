"""Loads a folder of `modeling_avlmm.evaluation.metrics` as a user does, and runs the examples of its card."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import modeling_avlmm.evaluation.metrics

FOLDER = Path(modeling_avlmm.evaluation.metrics.__file__).parent

LOADED = """
import doctest, json, sys
if sys.argv[2] == "alone":
    sys.modules["modeling_avlmm"] = None  # importing it fails
import evaluate
metric = evaluate.load(sys.argv[1])
assert (sys.argv[2] == "alone") or "modeling_avlmm" not in sys.modules
card = open(sys.argv[1] + "/README.md", encoding="utf-8").read()
failed = attempted = 0
for name, text in (("card", card), ("docstring", metric.inputs_description)):
    examples = doctest.DocTestParser().get_doctest(
        text.replace("path/to/", sys.argv[1].rpartition("/")[0] + "/"), {"evaluate": evaluate}, name, name, 0
    )
    runner = doctest.DocTestRunner()
    runner.run(examples)
    failed, attempted = failed + runner.failures, attempted + runner.tries
calls = json.load(sys.stdin)
results = []
for call in calls:
    try:
        results.append(metric.compute(**call))
    except Exception as error:
        results.append(f"{type(error).__name__}: {error}")
print("RESULT" + json.dumps({"failed": failed, "attempted": attempted, "results": results}))
"""


def run_loaded(folder: Path, where: Path, calls: list[dict], package: str) -> dict:
    """Loads the metric in a new process, offline, elsewhere; runs the examples of its card, then `calls`."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(where / "home"),
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", LOADED, str(folder), package],
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        cwd=where,
        env=environment,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    output, _, result = run.stdout.partition("RESULT")
    result = json.loads(result)
    assert result["failed"] == 0, output
    return result
