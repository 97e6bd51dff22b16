"""DPT: a transformer that is taught to name the best action by what was met (Lee et al. 2023, arXiv 2306.14892).

Each task is played by somebody who does not know it. At every prefix D of what was met so far the network is asked for
the best action a* in the state s that follows. A family that knows it says it (`EnvSpec.optimal_action`):

    min_θ  mean_n  -log π_θ(a*(s_n) | s_n, D_n),    D_n = (s_0, a_0, r_0, ..., s_{n-1}, a_{n-1}, r_{n-1})

Nobody's reward is maximised. π_θ comes to the posterior over what is best, so that to draw from it is to act as
Thompson sampling does. At test it acts online: actions are drawn, and its context is what it met in the trial itself.

Who plays does at every step, with a probability c of its trial, what is best for another task, else any action: an arm
by probabilities from Dirichlet(1), numbers within their bounds. c is one of 0, .1, ..., 1. For bandits that is the
paper's. In point-nav it is anything from a random walk to the straight way to a wrong goal, and standing still there.

Deviations from the paper:
* every second iteration the agent plays itself (`own_every`), as in DAgger: what it will meet is what it is taught on,
  such as a second episode after a short one. The theory asks only that who plays knows no more than what was met;
* the query at a prefix is the state in which it ended, the only one asked for at test; one pass answers all prefixes;
* tasks are new in every iteration; the transformer is that of metarl/nets/memory.py, its learning rate falls to 0;
* actions that are numbers, which the paper has not, are Gaussian, with a mean and a deviation of each state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from metarl import memory
from metarl.config import MOST_ITERATIONS, check
from metarl.errors import UserError
from metarl.learning import figures
from metarl.learning.imitation import Stranger, best_actions, check_best_is_known
from metarl.learning.optimisers import load_optimiser
from metarl.learning.ppo import in_one_kernel
from metarl.learning.recall import ActingNetwork, Actor, TrialLearner
from metarl.learning.rollout import collect_trials
from metarl.learning.supervised import descend
from metarl.learning.trials import Inputs, Trials, check_minibatches, input_size, join, memory_of_trials
from metarl.nets.layers import Layer, of_core, of_linear
from metarl.nets.memory import blank, make_core
from metarl.nets.policy import Distribution, Normal, chosen_by
from metarl.nets.stored import load_network, network_state
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, SampleTasks, Tasks

LEAST_LOG_STD = math.log(0.02)
"""Of actions that are numbers, in units of half their range: what is known exactly has no likelihood without it."""


@dataclass(frozen=True, kw_only=True)
class DptConfig:
    """Defaults are for bandits and point-nav."""

    iterations: int = 250
    """Updates, over which the learning rate goes from its first value to 0."""
    tasks: int = 200
    """Trials of an update, each with a task of its own, M."""
    episodes: int = 2
    """Episodes of a trial, n."""
    own_every: int = 2
    """Every so many iterations it plays itself, and learns from that; 0: it never does, as in the paper."""
    width: int = 64
    """Size of the transformer's features, H."""
    layers: int = 4
    """Its layers."""
    minibatches: int = 20
    """Steps of the optimiser in an update, which meets each trial once."""
    learning_rate: float = 1e-3
    """Of AdamW, at the start."""
    weight_decay: float = 1e-4
    """Of AdamW."""

    @property
    def worlds(self) -> int:
        """Parallel worlds of a training iteration, B: the episodes of a trial follow one another."""
        return self.tasks

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the network for a family."""
        context = self.episodes * spec.horizon + 1
        core = memory.memory_core("transformer", input_size(spec), self.width, self.layers, context)
        return core + 2 * self.width * spec.action_size

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        needed = memory_of_trials(self, spec, core="transformer", rows=-(-self.tasks // self.minibatches))
        return {"--tasks, --episodes, --width or --horizon": needed}

    def memory_of_each(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what each of several processes has whole, bytes: what asks for it -> how much."""
        return {"--width": memory.stored(self.network_weights(spec))}

    def check_family(self, spec: EnvSpec, known: Iterable[EnvSpec] = ()) -> None:
        """Refuse a family that does not say its optimal action, and name those of the known ones that do."""
        check_best_is_known("dpt", spec, known)

    def __post_init__(self) -> None:
        # Layer norm of a single number would leave nothing of it.
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "width": 2, "layers": 1, "minibatches": 1})
        check(self, at_least={"own_every": 0, "weight_decay": 0.0}, above={"learning_rate": 0.0})
        check(self, at_most={"iterations": MOST_ITERATIONS, "layers": 1000})
        check_minibatches(self)


class Network(ActingNetwork):
    """A transformer over all that was met, and what the best action is."""

    def __init__(self, config: DptConfig, spec: EnvSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.choices = spec.choices
        self.core = make_core(
            "transformer",
            inputs=input_size(spec),
            width=config.width,
            layers=config.layers,
            context=config.episodes * spec.horizon + 1,
            generator=generator,
        )
        self.head = blank(nn.Linear, config.width, spec.action_size * (1 if self.choices else 2))
        # It starts with even chances, or about N(0, 1).
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: Float[Tensor, "N L I"]) -> Distribution:
        """Compute what is best at all moments of whole trials."""
        return self.act(self.core(inputs))

    def act(self, features: Float[Tensor, "*N H"]) -> Distribution:
        """Compute the distribution over what is best from the core's features."""
        output = self.head(features)
        if self.choices:
            return chosen_by(output, self.choices)
        mean, spread = output.chunk(2, -1)
        return Normal(mean, LEAST_LOG_STD + softplus(spread - LEAST_LOG_STD))

    def told(self) -> tuple[tuple[Layer, ...], Tensor | None]:
        """Return core and head; of actions that are numbers the deviation has no description."""
        if not self.choices:
            raise UserError("Got dpt with actions that are numbers, which cannot be exported yet. Export a run of rl2.")
        return (*of_core(self.core), of_linear(self.head)), None


class Dpt:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes, and its optimal action.
        streams: `init` draws the initial parameters.
        device: where the network and the update live.
        ranks: the processes that train it together, each with its share of the trials.
    """

    name = "dpt"
    pools = False

    def __init__(
        self, config: DptConfig, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        config.check_family(spec)
        ranks.share(config.tasks)
        self.config, self.spec, self.device, self.ranks = config, spec, device, ranks
        self.trial = config.episodes
        self.network = Network(config, spec, streams["init"]).to(device)
        self.inputs = Inputs(spec)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), fused=in_one_kernel(device))
        self.iteration = 0

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Let each task be played, by somebody or by the agent itself, and learn what would have been best."""
        config, ranks = self.config, self.ranks
        tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(ranks.rows(config.tasks))
        own = config.own_every > 0 and (self.iteration + 1) % config.own_every == 0
        policy = Actor(self.network, self.inputs, self.device, ranks)
        if not own:
            policy = Stranger.drawn(self.spec, config.tasks, sample_tasks, streams["stranger"], ranks)
        played = collect_trials(env, policy, tasks, config.episodes, streams["rollout"], ranks)
        started = time.perf_counter()
        trials = join([episode.to(self.device) for episode in played])
        update = self._learn(trials, best_actions(self.spec, trials, tasks), streams["update"])
        self.iteration += 1
        return {
            **(figures.of_returns(played[0], played[-1]) if own else {}),
            **update,
            **figures.of_episodes(played),
            "time/update": time.perf_counter() - started,
        }

    def _learn(self, trials: Trials, best: Float[Tensor, "M L A"], generator: torch.Generator) -> Metrics:
        """Take the steps of an update."""
        config = self.config
        self.inputs.update(trials, self.ranks)
        inputs = self.inputs.of(trials)[:, :-1]
        rate = config.learning_rate * (1.0 - min(self.iteration / max(config.iterations, 1), 1.0))
        for group in self.optimiser.param_groups:
            group.update(lr=rate, weight_decay=config.weight_decay)
        loss = descend(
            self.network,
            self.optimiser,
            lambda rows: -self.network(inputs[rows]).log_prob(best[rows]),
            trials.mask,
            generator,
            epochs=1,
            minibatches=config.minibatches,
            ranks=self.ranks,
        )
        return {"train/loss": loss, "update/learning_rate": rate, "update/steps": float(config.minibatches)}

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> TrialLearner:
        """Return the learner of M new tasks, which has met nothing yet."""
        return TrialLearner(Actor(self.network, self.inputs, self.device))

    def state_dict(self) -> dict[str, Any]:
        """Return network, optimiser, moments and the number of updates."""
        return {
            # A copy: the optimiser works in place.
            "network": network_state(self.network),
            "optimiser": deepcopy(self.optimiser.state_dict()),
            "observation": self.inputs.observation.state_dict(),
            "reward": self.inputs.reward.state_dict(),
            "iteration": self.iteration,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything.

        Raises:
            ValueError: it does not fit.
        """
        load_network(self.network, state["network"])
        # It may have been stored on another device.
        load_optimiser(self.optimiser, state["optimiser"], fused=in_one_kernel(self.device))
        self.inputs.observation.load_state_dict(state["observation"])
        self.inputs.reward.load_state_dict(state["reward"])
        self.iteration = state["iteration"]
