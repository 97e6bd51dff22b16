"""From a robot's file to a policy that adapts on it, and that runs where metarl is not installed.

The quadruped of robot/quadruped.yaml is to walk at a speed that nobody tells it, with a load that nobody tells it. An
agent is trained on it, measured there and in two other realities, exported, and driven with NumPy alone.

    metarl check scripts/examples/robot/quadruped.yaml       (before anyone trains: tables, and a picture)
    python scripts/examples/own_robot.py
    python scripts/examples/own_robot.py --iterations 400 --out runs/walks    (about an hour: then it walks)
    metarl render runs/own-robot                             (a film: its first episode and its second)
"""

import argparse
from pathlib import Path

import metarl
from metarl.deployment.policy import Policy
from metarl.envs import FamilyEnv

ROBOT = Path(__file__).parent / "robot" / "quadruped.yaml"
REALITIES = ("slow", "worn")
TRAINING = {"tasks": 128, "minibatches": 4, "initial_std": 0.5}


def drive(policy, robot, episodes):
    """Let a policy act in one robot, and return the sum of rewards of each episode. What it learns, it keeps."""
    reward, returns = None, []
    for _ in range(episodes):
        policy.reset()
        observation, _ = robot.reset()
        over, total = False, 0.0
        while not over:
            action = policy.act(observation, reward)
            observation, reward, terminated, truncated, _ = robot.step(action)
            over, total = terminated or truncated, total + reward
        returns.append(total)
    return returns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-robot"), help="run folder (%(default)s)")
    parser.add_argument("--horizon", type=int, help="steps of an episode (the file's: 200)")
    options = parser.parse_args()

    kept = {"horizon": options.horizon, "out": options.out}
    run = metarl.train("rl2", str(ROBOT), iterations=options.iterations, **kept, **TRAINING)
    # On held-out speeds and loads: the curve at home and elsewhere, and what the memory knows after each episode.
    test = options.out / "evaluation" / "test"
    curve = metarl.evaluate(run, random=True, reality=REALITIES, probe=True, out=test)
    print(curve)
    for known in curve.probes[0]["probe"]:
        scores = ", ".join(f"{point['estimate']:.2f}" for point in known["points"])
        print(f"Told by its memory after 0, 1 and 2 episodes, R2 of the {known['parameter']}: {scores}")

    # The folder is all that the robot's computer needs: there it is `from policy import Policy`.
    folder = metarl.export(run, options.out / "policy").folder
    task = {"speed": 0.6, "payload": 3.0}
    policy, robot = Policy(folder), FamilyEnv(str(ROBOT), horizon=options.horizon, task=task)
    robot.reset(seed=0)
    for number, total in enumerate(drive(policy, robot, episodes=2), start=1):
        print(f"Driven with NumPy alone, episode {number} at 0.6 m/s with 3 kg: return {total:.1f}")
