"""How long a policy's `act` takes, on one core, beside onnxruntime: in a process of its own, as a robot has it.

This file is run by itself, as `python latency.py FOLDER COUNT`, and imports no other file of metarl than policy.py: the
process begins as it would there. It prints JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
WARM_UP = 200
"""Calls that are not counted."""


def latency(folder: Path, count: int) -> dict[str, Any]:
    """Measure in a process of its own, on one core; see `measure`."""
    command = [sys.executable, "-P", str(Path(__file__)), str(folder), str(count)]
    # Where something is wrong with the folder, it was found before.
    done = subprocess.run(command, env=os.environ | ONE_THREAD, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def measure(folder: Path, count: int, started: float) -> dict[str, Any]:
    """Return seconds until the first action, and how long `count` calls of each runtime take, milliseconds.

    Args:
        folder: an exported policy.
        count: calls.
        started: clock when the process began to work.
    """
    import numpy as np

    # Not the folder's own: it may be a stranger's.
    spec = importlib.util.spec_from_file_location("policy", Path(__file__).with_name("policy.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    policy = module.Policy(folder)
    manifest = policy.manifest
    sizes = {part["of"]: part["size"] for part in manifest["network"]["inputs"]}
    observations = np.random.default_rng(0).standard_normal((count + WARM_UP, sizes["observation"])).astype(np.float32)
    task = {parameter["name"]: _middle(parameter) for parameter in manifest["tasks"]} if "task" in sizes else None
    policy.begin_task(task)
    policy.act(observations[0])
    begun = time.perf_counter() - started
    context = min((layer["numbers"].get("context", count) for layer in manifest["network"]["layers"]), default=count)

    def ours(number: int) -> None:
        if number % context == 0:
            policy.begin_task(task)
            policy.act(observations[number])
        else:
            policy.act(observations[number], 1.0)

    report = {"count": count, "start_seconds": begun, "policy.py": _times(ours, count)}
    if (folder / "model.onnx").exists() and importlib.util.find_spec("onnxruntime"):
        report["onnxruntime"] = _times(_by_onnxruntime(folder, observations, context), count)
    return report


def _by_onnxruntime(folder: Path, observations: Any, context: int) -> Any:
    """Return what takes a step with onnxruntime."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Parameters that may be given are told as a warning.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    empty = {}
    for entry in session.get_inputs():
        # The worlds: one. What grows: nothing yet.
        shape = [size if isinstance(size, int) else {"B": 1}.get(size, 0) for size in entry.shape]
        empty[entry.name] = np.zeros(shape, np.float32)
    given = dict(empty)

    def step(number: int) -> None:
        nonlocal given
        if number % context == 0:
            given = dict(empty)
        given["observation"] = observations[number : number + 1]
        for name, value in zip(outputs, session.run(outputs, given), strict=True):
            if name.startswith("next."):
                given[name.replace("next.", "memory.", 1)] = value

    return step


def _times(step: Any, count: int) -> dict[str, float]:
    """Return p50, p99 and worst, and p99 of the time on the core, milliseconds."""
    times, own = [], []
    for number in range(WARM_UP + count):
        own_before, before = time.thread_time(), time.perf_counter()
        step(number)
        times.append(1e3 * (time.perf_counter() - before))
        own.append(1e3 * (time.thread_time() - own_before))
    counted, of_core = sorted(times[WARM_UP:]), sorted(own[WARM_UP:])
    last = int(0.99 * (count - 1))
    return {"p50": counted[count // 2], "p99": counted[last], "worst": counted[-1], "processor": of_core[last]}


def _middle(parameter: dict[str, Any]) -> Any:
    """Return a task's number, or numbers; any will do."""
    return 1.0 if parameter["numbers"] == 1 else [1.0] * parameter["numbers"]


if __name__ == "__main__":
    begun_at = time.perf_counter()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]), begun_at)))
