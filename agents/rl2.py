"""RL2: a policy with a memory, trained over whole trials so that it learns to learn (Duan et al. 2016).

A trial is n episodes in a row with one task. The policy sees, at every step of it,

    (observation, previous action, previous reward, whether the previous step ended an episode)

and its memory lasts from the first step of the trial to its last; the last triple of an episode reaches it with the
first observation of the next. It is trained by PPO (Schulman et al. 2017) on the trial's return: advantages run across
the episodes and stop at the trial's end. What adapts at test time is the memory alone.

    A_t = Σ_l (γλ)^l δ_{t+l},   δ_t = r_t + γ V_{t+1} - V_t                     (metarl/learning/trial_advantages.py)
    max_θ  mean_t  min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t),   ρ_t = π_θ / π_old

Behind the trial's last step V is 0 after a terminal state; where the time limit cut the last episode it is that of what
would have come, unless `finite_horizon` says that nothing was to come: the memory can count the steps.

Policy and values are linear in the memory's features, or have hidden layers (`head`). They may be shown the present
observation beside these, which need not carry it then (`head_observations`); or it is all that they are shown, and the
memory emits their weights (`core` hyper; Beck et al. 2023, metarl/nets/heads.py).

Whole trials go through the core at once (metarl/nets/memory.py), in minibatches of trials (metarl/learning/ppo.py); the
states are computed anew from the first step. Observations, and rewards as inputs, are scaled by running moments; values
by those of the returns from each step of a trial on, so that the network need not learn how much of the trial is left.
All are in the checkpoint. Before anything was met, in the first iteration, observations, rewards and values count as 0.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl import memory
from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.errors import UserError
from metarl.launches import launches_on
from metarl.learning import figures
from metarl.learning.chunks import passes
from metarl.learning.optimisers import load_optimiser
from metarl.learning.ppo import in_one_kernel
from metarl.learning.recall import ActingNetwork, Actor, TrialLearner
from metarl.learning.rollout import collect_trials
from metarl.learning.trial_advantages import Over
from metarl.learning.trial_update import update_on_trials
from metarl.learning.trials import Inputs, Trials, check_minibatches, input_size, join, memory_of_trials
from metarl.nets.heads import BesideCore, Emitted, perceptron
from metarl.nets.layers import Layer, of_core, of_perceptron
from metarl.nets.memory import CoreName, make_core
from metarl.nets.moments import Moments
from metarl.nets.pictures import FEATURES, Encoder, SeeingCore, with_pictures
from metarl.nets.policy import Distribution, Normal, chosen_by
from metarl.nets.stored import load_network, network_state
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, SampleTasks, Tasks

ACT_GAIN = 0.01
"""Scale of the policy head's initial weights: small, so that training starts near zero actions, or even chances."""


MOST_LAYERS = 1000
"""Layers of a transformer."""
Rl2Core = Literal[CoreName, "hyper"]
"""Memories by name; hyper is a gru that emits the weights of policy and values."""


@dataclass(frozen=True, kw_only=True)
class Rl2Config:
    """Defaults are for robots; for bandits and MDPs see agents/README.md."""

    iterations: int = 400
    """Updates, over which learning rate and entropy weight go from their first values to their final ones."""
    tasks: int = 100
    """Trials of an update, each with a task of its own, M."""
    episodes: int = 2
    """Episodes of a trial, n."""
    core: Rl2Core = "gru"
    """Memory: gru, lstm or transformer; or hyper, a gru that emits all weights of policy and values."""
    width: int = 128
    """Size of the memory's features, H."""
    layers: int = 1
    """Layers of a transformer."""
    head: tuple[int, ...] = ()
    """Hidden layers of the policy and of the values behind the memory; none: they are linear."""
    head_observations: bool = False
    """Show policy and values the present observation beside the memory's features. (With --core hyper they are shown
    nothing else.)"""
    encode_pictures: bool = True
    """Show the network of pictures among the observations what a small convolutional encoder, trained with it, makes
    of their pixels; if not, pixels are numbers as others."""
    center_rewards: bool = False
    """Show the memory rewards less their mean, in deviations; if not, in units of their size. Small differences between
    large rewards are seen better so."""
    discount: float = 0.99
    """γ per step."""
    trace: float = 0.95
    """λ of the advantages."""
    finite_horizon: bool = False
    """Nothing follows a trial's end: never bootstrap the value there."""
    advantages: Over = "batch"
    """What advantages are standardised over: all trials of the update, or each trial by itself."""
    clip: float = 0.2
    """ε of the clipped objective."""
    epochs: int = 4
    """Passes over the trials in an update."""
    minibatches: int = 10
    """Steps of the optimiser in a pass."""
    learning_rate: float = 1e-3
    """Of AdamW, at the start."""
    final_learning_rate: float = 1e-4
    """After the last of the iterations, with a straight line between."""
    weight_decay: float = 0.0
    """Of AdamW."""
    entropy: float = 0.0
    """Weight of the policy's entropy in the objective, at the start."""
    final_entropy: float = 0.0
    """After the last of the iterations, with a straight line between."""
    value_weight: float = 0.5
    """Weight of the values' squared error."""
    max_gradient_norm: float = 0.5
    """Gradients are shortened to this norm."""
    max_kl: float = 0.05
    """The update ends early where KL(π_old ‖ π) has come to this, nats."""
    initial_std: float = 1.0
    """Initial standard deviation of the actions, in units of half the action range."""

    @property
    def worlds(self) -> int:
        """Parallel worlds of a training iteration, B: the episodes of a trial follow one another."""
        return self.tasks

    @property
    def memory_core(self) -> CoreName:
        """The memory itself."""
        return "gru" if self.core == "hyper" else self.core

    def shown(self, spec: EnvSpec) -> int:
        """Return how many numbers of an observation policy and values are shown; pictures come encoded."""
        if not self.head_observations and self.core != "hyper":
            return 0
        return Encoder(spec.observation_size, with_pictures(spec, self.encode_pictures).pictures).outputs

    def _heads(self, spec: EnvSpec) -> tuple[int, int]:
        """Return the weights of policy and values, and how many numbers a gradient takes for them at each moment."""
        shown, outputs = self.shown(spec), (spec.action_size, 1)
        if self.core == "hyper":
            emitted = sum(memory.layers(shown, self.head, count) for count in outputs)
            return (self.width + 1) * emitted, 2 * emitted
        weights = sum(memory.layers(self.width + shown, self.head, count) for count in outputs)
        return weights, 4 * (shown + 2 * sum(self.head))

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the network for a family; pictures have an encoder before it."""
        encoder, context = len(spec.pictures) * FEATURES * spec.observation_size, self.episodes * spec.horizon + 1
        core = memory.memory_core(self.memory_core, input_size(spec), self.width, self.layers, context)
        return encoder + core + self._heads(spec)[0]

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        length, rows = self.episodes * spec.horizon, -(-self.tasks // self.minibatches)
        heads = memory.FLOAT * rows * length * self._heads(spec)[1]
        trials = memory_of_trials(self, spec, core=self.memory_core, rows=rows)
        return {"--tasks, --episodes, --width or --horizon": trials, "--head, --tasks or --episodes": heads}

    def memory_of_each(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what each of several processes has whole, bytes: what asks for it -> how much."""
        return {"--width or --head": memory.stored(self.network_weights(spec))}

    def unused(self, name: str, spec: EnvSpec, device: torch.device) -> dict[str, str]:
        """Return settings that change nothing for an agent of this name and a family -> what they would need."""
        unused = {} if self.core == "transformer" else {"layers": "--core transformer"}
        if self.core == "hyper":
            unused["head_observations"] = "another --core (hyper's policy and values are shown nothing else)"
        if spec.discrete:
            unused["initial_std"] = "a family whose actions are numbers"
        if not spec.pictures:
            unused["encode_pictures"] = "a family with pictures among its observations"
        return unused

    def __post_init__(self) -> None:
        # Layer norm of a single number would leave nothing of it.
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "width": 2, "layers": 1})
        check(self, at_least={"epochs": 1, "minibatches": 1, "weight_decay": 0.0, "entropy": 0.0, "final_entropy": 0.0})
        check(self, at_least={"discount": 0.0, "trace": 0.0, "value_weight": 0.0, "final_learning_rate": 0.0})
        check(self, above={"clip": 0.0, "learning_rate": 0.0, "max_gradient_norm": 0.0, "max_kl": 0.0})
        check(self, above={"initial_std": 0.0}, at_most={"discount": 1.0, "trace": 1.0})
        check(self, at_most={"iterations": MOST_ITERATIONS, "epochs": MOST_STEPS, "layers": MOST_LAYERS})
        if any(size < 1 for size in self.head):
            raise UserError(f"Got --head {' '.join(map(str, self.head))}. Give each hidden layer at least 1 unit.")
        check_minibatches(self)


class Network(ActingNetwork):
    """Core, which has an encoder before it where there are pictures; policy head and value head."""

    def __init__(self, config: Rl2Config, spec: EnvSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.choices = spec.choices
        self.shown = config.shown(spec)
        encoder = Encoder(input_size(spec), spec.pictures)
        core = make_core(
            config.memory_core,
            inputs=encoder.outputs,
            width=config.width,
            layers=config.layers,
            context=config.episodes * spec.horizon + 1,
            generator=generator,
        )
        core = BesideCore(core, self.shown) if self.shown else core
        self.core = SeeingCore(encoder, core, generator) if spec.pictures else core

        def head(outputs: int, gain: float) -> nn.Module:
            if config.core == "hyper":
                return Emitted(self.shown, config.width, config.head, outputs, gain=gain, generator=generator)
            return perceptron(self.core.width, config.head, outputs, gain=gain, generator=generator)

        self.policy, self.value = head(spec.action_size, ACT_GAIN), head(1, 1.0)
        self.log_std = None
        if not spec.discrete:
            self.log_std = nn.Parameter(torch.full((spec.action_size,), config.initial_std).log())

    def forward(self, inputs: Float[Tensor, "N L I"]) -> tuple[Distribution, Float[Tensor, "N L"]]:
        """Compute the action distributions and the (scaled) values of whole trials."""
        features = self.core(inputs)
        return self.act(features), self.value(features).squeeze(-1)

    def act(self, features: Float[Tensor, "*N H"]) -> Distribution:
        """Compute the action distribution from the core's features."""
        output = self.policy(features)
        return chosen_by(output, self.choices) if self.log_std is None else Normal(output, self.log_std.expand(1, -1))

    def remembered(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N R"]:
        """Return what the memory gives."""
        return features[..., self.shown :]

    def told(self) -> tuple[tuple[Layer, ...], Tensor | None]:
        """Return core and policy head, and log σ."""
        return (*of_core(self.core), *of_perceptron(self.policy)), self.log_std


class Rl2:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where the network and the update live.
        ranks: the processes that train it together: every minibatch has the trials that it would have in one process,
            and a rank computes those of them that are its own.
    """

    name = "rl2"
    pools = False

    def __init__(
        self, config: Rl2Config, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        spec = with_pictures(spec, config.encode_pictures)
        self.config = config
        self.device = device
        self.ranks = ranks
        self.tasks = ranks.share(config.tasks)
        self.trial = config.episodes
        self.network = Network(config, spec, streams["init"]).to(device)
        self.inputs = Inputs(spec, center_rewards=config.center_rewards)
        self.returns = Moments(config.episodes * spec.horizon)
        # The steps of an update have one form, unless episodes end early: then each update has its own.
        self.launches = launches_on(device, most=1)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            eps=1e-5,
            fused=in_one_kernel(device),
        )
        self.iteration = 0

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Play one trial of every task and improve the policy on them."""
        config = self.config
        tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(self.ranks.rows(config.tasks))
        actor = Actor(self.network, self.inputs, self.device, self.ranks)
        episodes = collect_trials(env, actor, tasks, config.episodes, streams["rollout"], self.ranks)
        started = time.perf_counter()
        trials = join([episode.to(self.device) for episode in episodes])
        update = self._update(trials, streams["update"])
        self.inputs.update(trials, self.ranks)
        self.iteration += 1
        return {
            **figures.of_returns(episodes[0], episodes[-1]),
            "return/trial": float(trials.rewards.sum(1).mean()),
            **update,
            **figures.of_episodes(episodes),
            "time/update": time.perf_counter() - started,
        }

    def _update(self, trials: Trials, generator: torch.Generator) -> Metrics:
        """Improve the policy by PPO."""
        everything = self.inputs.of(trials)
        old, values = self._measure(everything, trials)
        return update_on_trials(
            self.network,
            self.optimiser,
            trials,
            generator,
            self.config,
            rows="trials",
            inputs=everything[:, :-1],
            log_probs=old,
            values=values,
            returns=self.returns,
            iteration=self.iteration,
            iterations=self.config.iterations,
            log_std=self.network.log_std,
            ranks=self.ranks,
            launches=self.launches,
        )

    @torch.no_grad()
    def _measure(
        self, inputs: Float[Tensor, "M moments I"], trials: Trials
    ) -> tuple[Float[Tensor, "M L"], Float[Tensor, "M moments"]]:
        """Return the log-probabilities of the actions, and the scaled values with those behind each last step."""
        log_probs, values = [], []
        parts = min(passes(inputs, self.config.minibatches), len(inputs))
        for rows in torch.arange(len(inputs), device=self.device).tensor_split(parts):
            features = self.network.core(inputs[rows])
            values.append(self.network.value(features).squeeze(-1))
            log_probs.append(self.network.act(features[:, :-1]).log_prob(trials.actions[rows]))
        return torch.cat(log_probs), torch.cat(values)

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> TrialLearner:
        """Return the learner of M new tasks, which remembers nothing yet."""
        return TrialLearner(Actor(self.network, self.inputs, self.device))

    def state_dict(self) -> dict[str, Any]:
        """Return network, optimiser, moments and the number of updates."""
        return {
            # A copy: the optimiser works in place.
            "network": network_state(self.network),
            "optimiser": deepcopy(self.optimiser.state_dict()),
            "observation": self.inputs.observation.state_dict(),
            "reward": self.inputs.reward.state_dict(),
            "returns": self.returns.state_dict(),
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
        self.returns.load_state_dict(state["returns"])
        self.iteration = state["iteration"]
