"""VariBAD: a belief about the task, learned by decoding trials, and a policy that is told the belief.

Zintgraf et al. 2020, "VariBAD: A Very Good Method for Bayes-Adaptive Deep RL via Meta-Learning" (arXiv 1910.08348). A
trial is n episodes in a row with one task, as for RL2. A recurrent encoder makes of all that it has met before step t a
belief about a latent z of the task, and the policy acts on it:

    q_t(z) = Normal(μ_t, σ_t),  t = 0 ... H,  q_{-1} = N(0, I)        (metarl/nets/belief.py)
    a_t ~ π(s_t, (μ_t, σ_t)),  by PPO on the trial's return           (metarl/learning/ppo.py, trial_advantages.py)

Encoder and decoders go up the evidence's lower bound, every belief of a trial for all of it, past and future:

    Σ_t { Σ_i E_{z ~ q_t} [log p(r_i | z, s_i, a_i, s_{i+1}) + log p(s_{i+1} | z, s_i, a_i)] - β KL(q_t ‖ q_{t-1}) }

with squared errors for log p, or cross-entropy of rewards that are 0 or 1, and the next state only where the family
says that dynamics vary (metarl/learning/variational.py, decoding.py, elbo.py). The policy's objective gives the encoder
no gradient: beliefs are numbers to it. Its steps come first; those of encoder and decoders follow, on whole trials of a
buffer.

Deviations from the authors' code, each for a reason:

* The encoder takes in what RL2's memory does (metarl/learning/trials.py), so that both adapt by the same: the first
  belief knows the first observation, and behind an episode's last step comes the next one's first observation.
* Rewards are decoded in deviations from their mean, states as changes in deviations of changes: units do not matter.
* Of all pairs of t and i some are taken, and weighted so that the sums stay those above; the code leaves sums of what
  it drew, so that β means something else for each size. The sums are divided by their number of terms: how far
  gradients are shortened does not hang on the length of trials.
* An iteration has more trials, and takes more and larger steps, than the code's: it is made for fewer iterations.
* log σ stands for log σ², and z is sampled for the decoders alone, as there.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metarl import memory
from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.errors import UserError
from metarl.launches import launches_on
from metarl.learning import figures
from metarl.learning.chunks import passes
from metarl.learning.decoding import DECODER, Decoding, make_decoders
from metarl.learning.optimisers import load_optimiser
from metarl.learning.ppo import in_one_kernel
from metarl.learning.recall import ActingNetwork, Actor, TrialLearner
from metarl.learning.rollout import collect_trials
from metarl.learning.trial_advantages import Over
from metarl.learning.trial_buffer import TrialBuffer
from metarl.learning.trial_update import Rows, update_on_trials
from metarl.learning.trials import (
    Inputs,
    Trials,
    check_minibatches,
    final_observations,
    input_size,
    join,
    memory_of_trials,
)
from metarl.learning.variational import BeliefSettings, BeliefTraining
from metarl.nets.belief import BeliefCore, Head
from metarl.nets.layers import Layer
from metarl.nets.memory import CoreName, make_core
from metarl.nets.moments import Moments
from metarl.nets.pictures import FEATURES, Encoder, SeeingCore, with_pictures
from metarl.nets.policy import Distribution
from metarl.nets.stored import load_network, network_state
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, SampleTasks, Tasks

MOST_LAYERS = 1000
"""Layers of a transformer."""


@dataclass(frozen=True, kw_only=True)
class VaribadConfig:
    """Defaults are for robots; for bandits and MDPs see agents/README.md."""

    iterations: int = 400
    """Updates, over which learning rate and entropy weight go from their first values to their final ones."""
    tasks: int = 100
    """Trials of an update, each with a task of its own, M."""
    episodes: int = 2
    """Episodes of a trial, n."""
    core: CoreName = "gru"
    """Memory of the encoder: gru, lstm or transformer."""
    width: int = 128
    """Size of the memory's features, H."""
    layers: int = 1
    """Layers of a transformer."""
    latent: int = 5
    """Numbers of z, D."""
    hidden: tuple[int, ...] = (128, 128)
    """Hidden layers of policy and values."""
    encode_pictures: bool = True
    """Show encoder, policy and values of pictures among the observations what small convolutional encoders, trained
    with them, make of their pixels, and decoders a coarse picture; if not, pixels are numbers as others."""
    decode: Literal["auto", "reward", "state", "both"] = "auto"
    """What beliefs are learned from: rewards, next states, both; auto: rewards, and next states where the family says
    that dynamics vary."""
    reward_likelihood: Literal["normal", "bernoulli"] = "normal"
    """Of a decoded reward: squared error, or cross-entropy where all rewards are 0 or 1."""
    kl_weight: float = 0.1
    """β."""
    belief_updates: int = 20
    """Steps of encoder and decoders after each update of the policy."""
    belief_trials: int = 25
    """Trials of such a step."""
    belief_rate: float = 1e-3
    """Learning rate of encoder and decoders, of Adam."""
    buffer: int = 500
    """Latest trials that these steps draw from."""
    decoded_moments: int = 50
    """Beliefs of a trial that its transitions are decoded by, at most."""
    decoded_steps: int = 50
    """Transitions of a trial that are decoded, at most."""
    discount: float = 0.97
    """γ per step."""
    trace: float = 0.9
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
    minibatches_of: Rows = "steps"
    """What these are filled with: steps of all trials, or whole trials."""
    learning_rate: float = 1e-3
    """Of policy and values, of Adam, at the start."""
    final_learning_rate: float = 1e-4
    """After the last of the iterations, with a straight line between."""
    entropy: float = 0.0
    """Weight of the policy's entropy in the objective, at the start."""
    final_entropy: float = 0.0
    """After the last of the iterations, with a straight line between."""
    value_weight: float = 0.5
    """Weight of the values' squared error."""
    max_gradient_norm: float = 0.5
    """Gradients of policy and values are shortened to this norm."""
    max_kl: float = 0.05
    """The update of the policy ends early where KL(π_old ‖ π) has come to this, nats."""
    initial_std: float = 1.0
    """Initial standard deviation of the actions, in units of half the action range."""

    @property
    def worlds(self) -> int:
        """Parallel worlds of a training iteration, B: the episodes of a trial follow one another."""
        return self.tasks

    def decodes(self, spec: EnvSpec) -> tuple[str, ...]:
        """Return what is decoded in a family."""
        auto = ("reward", "state") if spec.dynamics_vary else ("reward",)
        return {"auto": auto, "both": ("reward", "state")}.get(self.decode, (self.decode,))

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the networks for a family; pictures have encoders before them."""
        encoders = 2 * len(spec.pictures) * FEATURES * spec.observation_size
        context = self.episodes * spec.horizon + 1
        core = memory.memory_core(self.core, input_size(spec), self.width, self.layers, context)
        heads = memory.layers(spec.observation_size + 2 * self.latent, self.hidden, spec.action_size + 1)
        transition = self.latent + 2 * spec.observation_size + spec.action_size
        decoders = len(self.decodes(spec)) * memory.layers(transition, DECODER, spec.observation_size)
        return encoders + core + 2 * self.width * self.latent + 2 * heads + decoders

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        length = self.episodes * spec.horizon
        rows = max(self.belief_trials, -(-self.tasks // self.minibatches))
        pairs = self.belief_trials * min(self.decoded_moments, length + 1) * min(self.decoded_steps, length)
        decoded = 4 * memory.FLOAT * pairs * (sum(DECODER) + spec.observation_size) * len(self.decodes(spec))
        return {
            "--tasks, --episodes, --width or --horizon": memory_of_trials(self, spec, core=self.core, rows=rows),
            "--belief-trials, --decoded-moments or --decoded-steps": decoded,
        }

    def memory_of_each(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what each of several processes has whole, bytes: what asks for it -> how much."""
        # The trials, and a copy of them in a checkpoint.
        row = spec.observation_size + spec.action_size + 3
        kept = 3 * memory.FLOAT * self.buffer * self.episodes * spec.horizon * row
        return {"--width or --hidden": memory.stored(self.network_weights(spec)), "--buffer": kept}

    def unused(self, name: str, spec: EnvSpec, device: torch.device) -> dict[str, str]:
        """Return settings that change nothing for an agent of this name and a family -> what they would need."""
        unused = {} if self.core == "transformer" else {"layers": "--core transformer"}
        if "reward" not in self.decodes(spec):
            unused["reward_likelihood"] = "--decode reward"
        if spec.discrete:
            unused["initial_std"] = "a family whose actions are numbers"
        if not spec.pictures:
            unused["encode_pictures"] = "a family with pictures among its observations"
        return unused

    def __post_init__(self) -> None:
        # Layer norm of a single number would leave nothing of it.
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "width": 2, "layers": 1, "latent": 1})
        check(self, at_least={"belief_updates": 1, "belief_trials": 1, "decoded_moments": 1, "decoded_steps": 1})
        check(self, at_least={"epochs": 1, "minibatches": 1, "entropy": 0.0, "final_entropy": 0.0, "kl_weight": 0.0})
        check(self, at_least={"discount": 0.0, "trace": 0.0, "value_weight": 0.0, "final_learning_rate": 0.0})
        check(self, above={"clip": 0.0, "learning_rate": 0.0, "belief_rate": 0.0, "max_gradient_norm": 0.0})
        check(self, above={"initial_std": 0.0, "max_kl": 0.0}, at_most={"discount": 1.0, "trace": 1.0})
        check(self, at_most={"iterations": MOST_ITERATIONS, "epochs": MOST_STEPS, "layers": MOST_LAYERS})
        check(self, at_most={"belief_updates": MOST_STEPS, "minibatches": MOST_STEPS})
        if self.minibatches_of == "trials":
            check_minibatches(self)
        if self.belief_trials > self.buffer:
            raise UserError(
                f"Got --belief-trials {self.belief_trials} for --buffer {self.buffer}. They are drawn from the buffer: "
                "ask for a buffer of as many, or fewer trials."
            )


# -- networks ---------------------------------------------------------------------------------------------------------


class Network(ActingNetwork):
    """The belief's core with its decoders, and the head that acts on the belief."""

    def __init__(self, config: VaribadConfig, spec: EnvSpec, generator: torch.Generator) -> None:
        super().__init__()
        encoder = Encoder(input_size(spec), spec.pictures)
        core = make_core(
            config.core,
            inputs=encoder.outputs,
            width=config.width,
            layers=config.layers,
            context=config.episodes * spec.horizon + 1,
            generator=generator,
        )
        seeing = SeeingCore(encoder, core, generator) if spec.pictures else core
        self.shown = spec.observation_size
        self.core = BeliefCore(seeing, self.shown, config.latent, generator)
        self.decoders = make_decoders(config.decodes(spec), spec, config.latent, generator)
        self.head = Head(spec, config.latent, config.hidden, config.initial_std, generator)

    def act(self, features: Float[Tensor, "*N H"]) -> Distribution:
        """Compute the action distribution from the core's features."""
        return self.head.chosen(self.head.seen(features))

    def remembered(self, features: Float[Tensor, "*N H"]) -> Float[Tensor, "*N R"]:
        """Return the belief, (μ, log σ)."""
        return features[..., self.shown :]

    def told(self) -> tuple[tuple[Layer, ...], Tensor | None]:
        """Refuse: the observation goes two ways."""
        raise UserError(
            "Got a run of varibad, whose policy is given the observation beside its belief, where an exported policy "
            "is one row of layers. Export a run of rl2, which adapts in its memory too."
        )


class Varibad:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where networks, buffer and updates live.
        ranks: the processes that train it together: every minibatch has what it would have in one process, and a rank
            computes of it what is its own.
    """

    name = "varibad"
    pools = False

    def __init__(
        self, config: VaribadConfig, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        spec = with_pictures(spec, config.encode_pictures)
        self.config = config
        self.device = device
        self.ranks = ranks
        self.tasks = ranks.share(config.tasks)
        self.trial = config.episodes
        self.network = Network(config, spec, streams["init"]).to(device)
        self.inputs = Inputs(spec)
        self.returns = Moments(config.episodes * spec.horizon)
        self.beliefs = Moments(2 * config.latent)
        self.decoding = Decoding(
            self.network.decoders, spec, self.inputs, bernoulli=config.reward_likelihood == "bernoulli"
        )
        core = self.network.core
        assert isinstance(core, BeliefCore)
        self.belief_training = BeliefTraining(
            BeliefSettings(
                kl_weight=config.kl_weight,
                updates=config.belief_updates,
                trials=config.belief_trials,
                rate=config.belief_rate,
                moments=config.decoded_moments,
                steps=config.decoded_steps,
            ),
            core,
            self.decoding,
            TrialBuffer(config.buffer, spec, config.episodes, device),
            ranks,
        )
        # The steps of an update have one form, unless episodes end early: then each update has its own.
        self.launches = launches_on(device, most=1)
        self.optimiser = torch.optim.Adam(
            self.network.head.parameters(), lr=config.learning_rate, eps=1e-5, fused=in_one_kernel(device)
        )
        self.iteration = 0

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Play one trial of every task, improve the policy on them, then the belief on trials of the buffer."""
        config = self.config
        tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(self.ranks.rows(config.tasks))
        actor = Actor(self.network, self.inputs, self.device, self.ranks)
        episodes = collect_trials(env, actor, tasks, config.episodes, streams["rollout"], self.ranks)
        started = time.perf_counter()
        there = [episode.to(self.device) for episode in episodes]
        trials, finals = join(there), final_observations(there)
        self.decoding.check(trials)
        update = self._update(trials, streams["update"])
        self.inputs.update(trials, self.ranks)
        between = time.perf_counter()
        belief = self.belief_training.learn(trials, finals, streams["belief"])
        self.iteration += 1
        ended = time.perf_counter()
        return {
            **figures.of_returns(episodes[0], episodes[-1]),
            "return/trial": float(trials.rewards.sum(1).mean()),
            **update,
            **belief,
            **figures.of_episodes(episodes),
            "time/update": ended - started,
            "time/belief": ended - between,
        }

    def _update(self, trials: Trials, generator: torch.Generator) -> Metrics:
        """Improve the policy by PPO, on beliefs that it takes for what they are."""
        features, old, values = self._measure(self.inputs.of(trials), trials)
        metrics = update_on_trials(
            self.network.head,
            self.optimiser,
            trials,
            generator,
            self.config,
            rows=self.config.minibatches_of,
            inputs=features[:, :-1],
            log_probs=old,
            values=values,
            returns=self.returns,
            iteration=self.iteration,
            iterations=self.config.iterations,
            log_std=self.network.head.log_std,
            ranks=self.ranks,
            launches=self.launches,
        )
        believed = self.network.remembered(features[:, :-1])
        self.beliefs.update(believed[trials.mask > 0], ranks=self.ranks)
        self.network.head.show_beliefs(self.beliefs)
        return metrics

    @torch.no_grad()
    def _measure(
        self, inputs: Float[Tensor, "M moments I"], trials: Trials
    ) -> tuple[Float[Tensor, "M moments H"], Float[Tensor, "M L"], Float[Tensor, "M moments"]]:
        """Return features, log-probabilities of the actions, and scaled values; with those behind each last step."""
        parts = min(passes(inputs, self.config.minibatches), len(inputs))
        found: list[tuple[Tensor, ...]] = []
        for rows in torch.arange(len(inputs), device=self.device).tensor_split(parts):
            features = self.network.core(inputs[rows])
            seen = self.network.head.seen(features)
            chosen = self.network.head.chosen(seen[:, :-1])
            found.append((features, chosen.log_prob(trials.actions[rows]), self.network.head.valued(seen)))
        features, log_probs, values = (torch.cat(column) for column in zip(*found, strict=True))
        return features, log_probs, values

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> TrialLearner:
        """Return the learner of M new tasks, whose belief is that of nothing met."""
        return TrialLearner(Actor(self.network, self.inputs, self.device))

    def _moments(self) -> dict[str, Moments]:
        """Return all that is scaled by, under its name in a checkpoint."""
        return {
            "observation": self.inputs.observation,
            "reward": self.inputs.reward,
            "returns": self.returns,
            "beliefs": self.beliefs,
            "changes": self.decoding.changes,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, moments, buffer and the number of updates."""
        return {
            # Copies: the optimisers work in place.
            "network": network_state(self.network),
            "optimiser": deepcopy(self.optimiser.state_dict()),
            **{name: moments.state_dict() for name, moments in self._moments().items()},
            "belief_training": self.belief_training.state_dict(),
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
        for name, moments in self._moments().items():
            moments.load_state_dict(state[name])
        self.network.head.show_beliefs(self.beliefs)
        self.belief_training.load_state_dict(state["belief_training"])
        self.iteration = state["iteration"]
