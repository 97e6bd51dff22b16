"""What a run has logged, and its adaptation curve, as numpy arrays.

With no run given, a small one is trained first.

    python scripts/examples/read_curve.py
    python scripts/examples/read_curve.py runs/point-nav@maml17-maml-trpo-seed0
"""

import argparse
from pathlib import Path

import numpy as np

import metarl

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", nargs="?", type=Path, help="run folder of `metarl train`")
parser.add_argument("--iterations", type=int, default=20, help="where a run is trained first (default: %(default)s)")
parser.add_argument("--out", type=Path, default=Path("runs/read-curve"), help="where to (default: %(default)s)")
options = parser.parse_args()
if options.run is None:
    metarl.train(
        "maml-trpo", "point-nav", iterations=options.iterations, tasks=10, episodes=10, inner_rate=0.5, out=options.out
    )
run = metarl.load(options.run or options.out)

# Every column of progress.csv; `metarl list --metrics` says what they mean.
progress = run.progress()
returns = progress["return/post"]
print(f"{run.agent.name} on {run.family.full_name}, {run.iteration} iterations; logged: {', '.join(progress)}")
print(f"Return after adaptation, training tasks: {returns[0]:.1f} at first, {returns[-5:].mean():.1f} in the end")

# Points of the curve [X], and every task's return [X, training seeds, tasks].
arrays = metarl.evaluate(run).arrays()
for point, episodes in enumerate(arrays["episodes"]):
    low, high = arrays["lower"][point], arrays["upper"][point]
    print(f"{episodes:4.0f} episodes: {arrays['mean'][point]:6.1f} [{low:.1f}, {high:.1f}]")
gain = arrays["returns"][-1] - arrays["returns"][0]
print(f"Adaptation helped on {np.mean(gain > 0):.0%} of the tasks, by {np.median(gain):.1f} in the median")
