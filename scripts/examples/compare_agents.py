"""Two agents in one figure: meta-learning beside one policy for all tasks that is fine-tuned at test.

Both are trained with two seeds; runs of one agent make one curve, whose interval is over seeds and tasks.

    python scripts/examples/compare_agents.py
"""

import argparse
from pathlib import Path

import metarl

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--iterations", type=int, default=50, help="of each training (default: %(default)s)")
parser.add_argument(
    "--out", type=Path, default=Path("runs/compare"), help="folder for all of it (default: %(default)s)"
)
options = parser.parse_args()

runs = [
    metarl.train(
        agent,
        "point-nav",
        seed=seed,
        iterations=options.iterations,
        tasks=10,
        episodes=10,
        inner_rate=0.5,
        out=options.out / f"{agent}-seed{seed}",
    )
    for agent in ("maml-trpo", "multitask")
    for seed in (0, 1)
]
curve = metarl.evaluate(runs, random=True)
print(curve)

# A matplotlib figure, to be changed as you like. `curve.write(folder)` writes picture, CSV and JSON as they are.
figure = curve.figure()
figure.suptitle("Finding an unseen goal")
figure.savefig(options.out / "compare.png", dpi=150)
print(f"Picture  {options.out / 'compare.png'}")
