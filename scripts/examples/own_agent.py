"""An agent of your own: registered, trained and evaluated like the others.

Its policy wanders about; from the episodes it learns where the reward was highest, and goes there. What it meta-learns
is how boldly to wander before, and how closely to stay there after. Run folder, resume and curve come by themselves.

    python scripts/examples/own_agent.py
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import metarl
from metarl.learning import figures
from metarl.learning.rollout import collect


@dataclass(frozen=True, kw_only=True)
class SeekerConfig:
    """Settings: plain fields with defaults."""

    iterations: int = 30
    tasks: int = 20
    episodes: int = 5
    worlds: int = 100  # in parallel: tasks x episodes


@dataclass(frozen=True)
class Seeking:
    """M tasks in the middle of being learned, and the policy for them: a value, never changed in place."""

    spreads: torch.Tensor
    best: torch.Tensor | None = None  # [M, O], where the reward was highest

    @property
    def policy(self):
        """What acts at this point of adaptation."""
        return self

    def act(self, observation, generator):
        """Return an action in every world: a step towards the best place, and a bit of noise."""
        noise = torch.randn(observation.shape, generator=generator)
        if self.best is None:
            return self.spreads[0] * noise
        best = self.best.repeat_interleave(len(observation) // len(self.best), dim=0)
        return 10.0 * (best - observation) + self.spreads[1] * noise

    def learn(self, experience):
        """Return what is known after K more episodes of each task."""
        padding = experience.mask[:, :, 1:] == 0
        rewards = experience.rewards[:, :, :-1].masked_fill(padding, -torch.inf).flatten(1)
        places = experience.observations[:, :, 1:].flatten(1, 2)
        return replace(self, best=places[torch.arange(len(places)), rewards.argmax(1)])


class Seeker:
    """The agent: two numbers, improved by keeping a random change where it did better."""

    name = "seeker"
    trial = 1
    pools = True  # learns from all K episodes of a task together

    def __init__(self, config, spec, streams, device, ranks):
        self.config = config
        self.spreads = torch.tensor([0.1, 1.0])

    def train_iteration(self, env, sample_tasks, streams):
        """Try a change on new tasks; keep it if it leads to a higher return after adaptation."""
        tasks, tried = sample_tasks(self.config.tasks, "train", streams["tasks"]), []
        for spreads in (self.spreads, self.spreads * torch.randn(2, generator=streams["search"]).exp()):
            learner = Seeking(spreads)
            before = collect(env, learner.policy, tasks, self.config.episodes, streams["rollout"])
            after = collect(env, learner.learn(before).policy, tasks, self.config.episodes, streams["rollout"])
            tried.append((float(after.returns.mean()), spreads, before, after))
        _, self.spreads, before, after = max(tried, key=lambda one: one[0])
        return figures.of_returns(before, after) | figures.of_episodes([before, after])

    def start(self, tasks):
        """Return a fresh learner for new tasks."""
        return Seeking(self.spreads)

    def state_dict(self):
        """Return what training has changed."""
        return {"spreads": self.spreads}

    def load_state_dict(self, state):
        """Restore it."""
        self.spreads = state["spreads"]


metarl.agents.register("seeker", SeekerConfig, Seeker, "goes where the reward was highest")

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=30, help="of the training (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("runs/own-agent"), help="run folder (default: %(default)s)")
    options = parser.parse_args()
    run = metarl.train("seeker", "point-nav", iterations=options.iterations, out=options.out)
    print(metarl.evaluate(run, random=True, out=options.out / "evaluation" / "test"))
    print(f"Learned spreads: {run.agent.state_dict()['spreads'].tolist()}")
