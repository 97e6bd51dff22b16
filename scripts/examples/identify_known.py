"""Whether `metarl identify` is right: systems whose parameters are known, from logs with noise.

Each system is a held-out task of a family in simulation, which is driven by random actions; the log of it has normal
noise of 1% of each observation's spread, and the exact state that every episode begins in. What the log says is printed
beside the truth, and how many of the 90% intervals hold it.

    python scripts/examples/identify_known.py
    python scripts/examples/identify_known.py --families half-cheetah-vel+mass+friction --tasks 10
"""

import argparse
from pathlib import Path

import torch
from rich.console import Console

import metarl
from metarl.identification.recorder import Recorder

QUADRUPED = Path(__file__).parent / "robot" / "quadruped.yaml"
FAMILIES = ("half-cheetah-vel+mass+friction+damping+gain", "walker2d-vel+mass+gain", f"{QUADRUPED}+friction")
EPISODES, STEPS = 32, 20

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--families", nargs="+", default=FAMILIES, help="what is looked at (default: %(default)s)")
parser.add_argument("--tasks", type=int, default=2, help="systems of each family (default: %(default)s)")
parser.add_argument("--first", type=int, default=0, help="number of the first of them (default: %(default)s)")
parser.add_argument("--segments", type=int, default=32, help="of a log that are simulated (default: %(default)s)")
parser.add_argument("--noise", type=float, default=0.01, help="part of the spread (default: %(default)s)")
parser.add_argument("--out", type=Path, default=Path("runs/identify-known"), help="for the logs (default: %(default)s)")
options = parser.parse_args()


def record(name, number, path):
    """Write the log of a task; it has the truth in it, which only the table uses."""
    worlds = metarl.worlds(name, EPISODES)
    family, generator = worlds.family, torch.Generator().manual_seed(number)
    task = family.space.sample(1, "test", generator)
    worlds.set_tasks(task.select([0] * EPISODES))
    seen, done, paid, ends = [worlds.reset(generator)], [], [], []
    low, high = torch.tensor(family.action_low), torch.tensor(family.action_high)
    for _ in range(STEPS):
        action = 2.0 * torch.rand(EPISODES, family.action_size, generator=generator) - 1.0
        step = worlds.step(action)
        # Worlds take actions in -1..1 of their bounds; a log has them as the system was given them.
        done.append(low + 0.5 * (action + 1.0) * (high - low))
        seen.append(step.observation)
        paid.append(step.reward)
        ends.append(step.terminated | step.truncated)
        if ends[-1].all():
            break
    seen = torch.stack(seen)
    seen = seen + options.noise * seen.std((0, 1)) * torch.randn(seen.shape, generator=generator)
    truth = {f"task.{key}": value.expand(EPISODES, *value.shape[1:]).numpy() for key, value in task.values.items()}
    recorder = Recorder(family.full_name, family.step_seconds, **truth)
    for episode in range(EPISODES):
        start = {field: worlds.starts[field][episode].numpy() for field in ("qpos", "qvel")}
        recorder.reset(seen[0, episode], start=start)
        for time, (action, reward, end) in enumerate(zip(done, paid, ends, strict=True)):
            recorder.step(action[episode], seen[time + 1, episode], float(reward[episode]))
            if end[episode]:
                break
    path.unlink(missing_ok=True)
    recorder.save(path)


console = Console(width=120)
options.out.mkdir(parents=True, exist_ok=True)
held = numbers = 0
for name in options.families:
    for number in range(options.first, options.first + options.tasks):
        path = options.out / f"{Path(name).stem}-{number}.npz"
        record(name, number, path)
        found = metarl.identify(path, name, segments=options.segments, seed=number, progress=False)
        console.print(found.table())
        known = [row for row in found.quantities if not row.probabilities]
        held += sum(row.lower <= row.truth <= row.upper for row in known if row.truth is not None)
        numbers += len(known)
        print(f"{held} of {numbers} intervals of 90% hold the truth so far\n", flush=True)
