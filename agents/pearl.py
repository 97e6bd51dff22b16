"""PEARL: an off-policy actor-critic that is told a belief about the task (Rakelly et al. 2019, arXiv 1903.08254).

A latent z stands for the task. An encoder makes a Gaussian factor of every step (s, a, r[, s']) of the context, and
their product is the belief (metarl/learning/posterior.py). Soft actor-critic is given z beside the observation
(metarl/learning/soft.py). For a meta-batch of tasks, each with steps of its own and one z ~ q(z | context):

    encoder, Q  go down  Σ_j mean (Q_j(s, a, z) - [c r + γ (1 - terminal) V̄(s', z)])² + λ KL(q(z | context) ‖ N(0, I))
    V           goes down  mean (V(s, z) - [min Q(s, a', z) - α log π(a' | s, z)])²,    a' drawn anew
    policy      goes down  mean [α log π(a' | s, z) - min Q(s, a', z)] + 1e-3 (mean μ² + mean log² σ)

z reaches V, the policy and the targets as a number: the encoder learns from the Q losses and the KL alone. All tasks of
a meta-batch are rows of the same products, on a CPU of a few, which stay in its cache: there is no loop over tasks.

An iteration plays M training tasks: rounds of episodes with z from the prior, then rounds with z from the belief, drawn
anew for every episode. Everything is kept to learn from; context is the former only, of the last time that the task
was played. At test two episodes have z from the prior, all later ones from the belief of all that was met; actions are
modes.

Deviations from the authors' code, each for a reason:
* the temperature α keeps the entropy at -A nats, where theirs is 1: rewards of any size then leave as much exploration.
  The one reproduction whose figures can be read has it so. `--no-automatic-temperature` leaves it at 1;
* observations are shown in deviations from their mean so far, rewards in their root mean square, which is what the
  factor c = 5 multiplies: units change nothing;
* the KL is a mean over tasks, where theirs is a sum beside losses that are means: 0.1 there is 1.6 here for 16 tasks;
* whole episodes are played in parallel worlds, the tasks of an iteration and of a meta-batch are all different where
  there are as many, and already the first episode after the prior's has its z from the belief.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metarl import memory
from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.errors import UserError
from metarl.learning import figures, rollout
from metarl.learning.actor_critic import ActorCritic
from metarl.learning.believing import BeliefLearner, Believing, Told, drawn
from metarl.learning.finite import check_parts
from metarl.learning.optimisers import load_optimiser
from metarl.learning.posterior import Factors
from metarl.learning.replay import Replay, Steps, Windows, row_size
from metarl.learning.soft import follow, q_target
from metarl.learning.training_tasks import all_different, once_each, stored_tasks
from metarl.nets.policy import load_params
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, Params, SampleTasks, Tasks, Trajectories

SMALL_ACTIONS = 1e-3
"""Weight of the squares of the policy's means and logarithms of deviations."""
CHECKPOINT_COPIES = 5
"""Times that a replay is in memory while a checkpoint is written."""
FIGURES = ("update/q_error", "update/v_error", "belief/kl", "policy/entropy", "policy/temperature")
"""Figures that are means over the updates."""


@dataclass(frozen=True, kw_only=True)
class PearlConfig:
    """Defaults are the paper's for half-cheetah-vel; for other families see agents/README.md."""

    iterations: int = 500
    """Meta-iterations."""
    train_tasks: int = 100
    """Tasks that it is trained on, drawn once, N; fewer where the family has fewer."""
    tasks: int = 5
    """Tasks played in an iteration, M."""
    episodes: int = 1
    """Parallel episodes of a task in a round, K."""
    first_rounds: int = 10
    """Rounds of every training task in the first iteration, with z from the prior."""
    prior_rounds: int = 2
    """Rounds of an iteration with z from the prior: the context."""
    posterior_rounds: int = 3
    """Rounds of an iteration with z from the belief, for the actor and the critics alone."""
    updates: int = 2000
    """Updates of an iteration."""
    meta_batch: int = 16
    """Tasks of an update."""
    batch: int = 256
    """Steps of each that the actor and the critics learn from."""
    context: int = 100
    """Steps of each that the belief is made of."""
    next_observations: bool = False
    """Make the belief of observations after a step too: for tasks that differ in their dynamics."""
    prior_episodes: int = 2
    """Episodes of a trial with z from the prior at test; in the next one it is from the belief."""
    latent: int = 5
    """Numbers of z, L."""
    kl_weight: float = 1.6
    """λ."""
    reward_scale: float = 5.0
    """c, of rewards in units of their root mean square."""
    automatic_temperature: bool = True
    """Let the temperature α keep the entropy of the policy at -A nats; if not, it is 1."""
    discount: float = 0.99
    """γ per step."""
    learning_rate: float = 3e-4
    """Of Adam."""
    target_rate: float = 0.005
    """Part of the way that V̄ goes towards V at every update."""
    hidden: tuple[int, ...] = (300, 300, 300)
    """Hidden layers of policy, Q and V."""
    encoder_hidden: tuple[int, ...] = (200, 200, 200)
    """Hidden layers of the encoder."""
    chunk_steps: int = 1024
    """Steps computed at a time on a CPU (whole tasks, at least one): what stays in its cache."""
    replay_steps: int = 30_000
    """Steps of each training task that are kept; then the newest take the place of the oldest."""

    @property
    def worlds(self) -> int:
        """Parallel worlds of a training iteration, B."""
        return self.tasks * self.episodes

    def steps_at_once(self, horizon: int, tasks: int) -> int:
        """Return how many steps of a task have to be kept at least: its context, and what is played after that.

        Args:
            horizon: steps of an episode.
            tasks: different ones to train on; of fewer than an iteration plays some are played several times.
        """
        rounds = max(self.first_rounds, self.prior_rounds + self.posterior_rounds)
        return -(-self.tasks // tasks) * rounds * self.episodes * horizon

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the networks for a family."""
        told, action, hidden = spec.observation_size + self.latent, spec.action_size, self.hidden
        encoder_inputs = row_size(spec.observation_size, action) - 1
        q, v = memory.layers(told + action, hidden, 1), memory.layers(told, hidden, 1)
        encoder = memory.layers(encoder_inputs, self.encoder_hidden, 2 * self.latent)
        return 2 * q + 2 * v + memory.layers(told, hidden, 2 * action) + encoder

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        rounds = self.first_rounds * -(-self.train_tasks // self.tasks) + self.prior_rounds + self.posterior_rounds
        played = self.worlds * spec.horizon * max(1, rounds // 3)
        # As a CPU takes them; a GPU takes all tasks at once, and tells what does not fit.
        tasks = max(1, self.chunk_steps // self.batch)
        rows = tasks * (self.batch * 14 * sum(self.hidden) + self.context * 3 * sum(self.encoder_hidden))
        return {
            "--tasks, --episodes or --horizon": memory.episodes(played, spec.observation_size, spec.action_size),
            "--batch, --chunk-steps or --hidden": 2 * memory.FLOAT * rows,
        }

    def memory_of_each(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what each of several processes has whole, bytes: what asks for it -> how much."""
        row = memory.FLOAT * row_size(spec.observation_size, spec.action_size)
        return {
            "--replay-steps or --train-tasks": CHECKPOINT_COPIES * self.train_tasks * self.replay_steps * row,
            "--hidden": memory.stored(self.network_weights(spec)),
        }

    def unused(self, name: str, spec: EnvSpec, device: torch.device) -> dict[str, str]:
        """Return settings that change nothing for an agent of this name and a family -> what they would need."""
        return {} if device.type == "cpu" else {"chunk_steps": "--device cpu"}

    def __post_init__(self) -> None:
        check(self, at_least={"chunk_steps": 1})
        check(self, at_least={"iterations": 0}, at_most={"iterations": MOST_ITERATIONS, "updates": MOST_STEPS})
        check(self, at_least={"train_tasks": 1, "tasks": 1, "episodes": 1, "meta_batch": 1, "batch": 1, "context": 1})
        check(self, at_least={"first_rounds": 1, "prior_rounds": 1, "posterior_rounds": 1, "updates": 1})
        check(self, at_least={"prior_episodes": 1, "latent": 1, "kl_weight": 0.0, "discount": 0.0, "replay_steps": 1})
        check(self, at_most={"discount": 1.0, "target_rate": 1.0, "first_rounds": MOST_STEPS})
        check(self, above={"reward_scale": 0.0, "learning_rate": 0.0, "target_rate": 0.0})


def check_family(config: PearlConfig, spec: EnvSpec) -> None:
    """Refuse a family that it cannot be trained on.

    Raises:
        UserError: says why, and what can.
    """
    if spec.discrete:
        raise UserError(f"pearl got {spec.family}, whose actions are choices, and acts in numbers only: train rl2.")
    if spec.pictures:
        raise UserError(
            f"pearl got {spec.family} with pictures among its observations, which it does not encode: train rl2."
        )
    if config.next_observations and spec.horizon == 1:
        raise UserError(
            f"Got --next-observations for {spec.family}, whose episodes end with their first step: leave it out."
        )
    tasks = config.train_tasks if spec.train_tasks is None else min(config.train_tasks, spec.train_tasks)
    least = config.steps_at_once(spec.horizon, tasks)
    if config.replay_steps < least:
        raise UserError(
            f"Got --replay-steps {config.replay_steps}, and an iteration plays up to {least} of each of the {tasks} "
            f"training tasks: give --replay-steps {least} or more, or fewer rounds or episodes."
        )


class Pearl:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes.
        streams: `init` draws the initial parameters.
        device: where networks, replay and updates live.
        ranks: the processes that train it together: each plays and learns from its share of the tasks, and all keep
            everything that was played.
    """

    name = "pearl"
    pools = False

    def __init__(
        self, config: PearlConfig, spec: EnvSpec, streams: Streams, device: torch.device, ranks: Ranks = ALONE
    ) -> None:
        check_family(config, spec)
        self.config, self.spec, self.device, self.ranks = config, spec, device, ranks
        for shared in (config.tasks, config.meta_batch):
            ranks.share(shared)
        self.trial = config.prior_episodes + 1
        self.tasks: Tasks | None = None
        self.replay: Replay | None = None
        self.networks = ActorCritic(config, spec, device, streams["init"])
        self.begin_with(self.networks.params)

    def begin_with(self, params: dict[str, Params]) -> None:
        """Begin with these parameters, and with optimisers that have taken no step."""
        self.networks.begin_with(params)
        learned = ("v", "policy", "temperature") if self.config.automatic_temperature else ("v", "policy")
        self.learned = self.networks.leaves("q", "encoder"), self.networks.leaves(*learned)
        rate = self.config.learning_rate
        # In one kernel on a CPU too: there are a million weights, and little else is done with each.
        self.optimisers = [torch.optim.Adam(leaves, lr=rate, fused=True) for leaves in self.learned]

    # -- playing ----------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Play some of the training tasks, and learn from everything that was played."""
        config = self.config
        first = [] if self.replay is not None else self._begin(env, sample_tasks, streams)
        assert self.replay is not None
        rows = torch.cat(list(all_different(len(self.replay.added), config.tasks, 1, streams["tasks"]))).tolist()
        self.replay.forget_context(rows)
        played = [self._play(env, rows, streams, believes=False, new_trial=n == 0) for n in range(config.prior_rounds)]
        played += [self._play(env, rows, streams, believes=True) for _ in range(config.posterior_rounds)]
        self._scale(played)
        started = time.perf_counter()
        update = self._update(streams["update"])
        return {
            **figures.of_returns(played[0], played[-1]),
            **update,
            **figures.of_episodes([*first, *played]),
            "replay/steps": float(self.replay.held.sum()),
            "time/update": time.perf_counter() - started,
        }

    def _begin(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> list[Trajectories]:
        """Draw the training tasks, and play each with z from the prior."""
        config = self.config
        self._train_on(once_each(sample_tasks(config.train_tasks, "train", streams["tasks"])))
        count, played = len(self.tasks or ()), []
        for begin in range(0, count, config.tasks):
            # The last ones are filled up with the first.
            rows = [number % count for number in range(begin, begin + config.tasks)]
            for number in range(config.first_rounds):
                played.append(self._play(env, rows, streams, believes=False, new_trial=number == 0))
        self._scale(played)
        return played

    def _train_on(self, tasks: Tasks) -> None:
        """Take the training tasks, with a replay that holds nothing.

        Raises:
            UserError: what is played of a task in an iteration does not fit into it.
        """
        config, sizes = self.config, (self.spec.observation_size, self.spec.action_size)
        least = config.steps_at_once(self.spec.horizon, len(tasks))
        if config.replay_steps < least:
            raise UserError(
                f"got --replay-steps {config.replay_steps}, and an iteration plays up to {least} steps of each of the "
                f"{len(tasks)} training tasks: give --replay-steps {least} or more"
            )
        dtype = self.networks.params["v"]["b0"].dtype
        self.tasks, self.replay = tasks, Replay(len(tasks), config.replay_steps, *sizes, self.device, dtype)

    def _play(
        self, env: BatchEnv, rows: list[int], streams: Streams, *, believes: bool, new_trial: bool = False
    ) -> Trajectories:
        """Play a round with training tasks, this rank its share, and let all ranks keep all of it.

        Args:
            env: the worlds.
            rows: numbers of the tasks, of all ranks.
            streams: `rollout` draws z, starts and actions.
            believes: whether z is drawn from the belief; else from the prior, and the steps are context.
            new_trial: as in `collect`.
        """
        assert self.tasks is not None
        assert self.replay is not None
        ranks, generator, width = self.ranks, streams["rollout"], self.config.episodes
        mine = [rows[number] for number in ranks.rows(len(rows))]
        noise = drawn(generator, self.replay.rows.new_empty(len(mine) * width, self.config.latent), ranks)
        if believes:
            with torch.no_grad():
                belief = self._belief(torch.tensor(mine, device=self.device), generator)
            mean, deviation = (_for_each(part, width) for part in (belief.mean, belief.variance.sqrt()))
            noise = torch.addcmul(mean, deviation, noise)
        played = rollout.collect(
            env,
            Told(self.networks, noise, ranks),
            self.tasks.select(mine),
            width,
            generator,
            new_trial=new_trial,
            ranks=ranks,
        )
        self.replay.add(rows, played, context=not believes, ranks=ranks)
        return played

    def _belief(self, tasks: Int[Tensor, " m"], generator: torch.Generator) -> Factors:
        """Compute the belief about some training tasks, from steps of their contexts that are drawn here."""
        assert self.replay is not None
        chances = self._chances(generator, len(tasks), self.config.context)
        return self.networks.factors(self.replay.take(tasks, chances, self.replay.windows(context=True)))

    def _chances(self, generator: torch.Generator, tasks: int, count: int) -> Float[Tensor, "m n"]:
        """Draw numbers in [0, 1) for some steps of each of this rank's tasks."""
        shape = self.ranks.whole(torch.Size((tasks, count)))
        chances = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
        return self.ranks.own(chances).to(self.device)

    def _scale(self, played: list[Trajectories]) -> None:
        """Take what was played, by all ranks, into the scale of what networks are shown."""
        real = [episodes.mask > 0 for episodes in played]
        rows = torch.cat([episodes.observations[these] for episodes, these in zip(played, real, strict=True)])
        self.networks.observation.update(rows, ranks=self.ranks)
        rewards = torch.cat([episodes.rewards[these] for episodes, these in zip(played, real, strict=True)])
        self.networks.reward.update(rewards[:, None], ranks=self.ranks)

    # -- learning ---------------------------------------------------------------------------------------------------

    def _update(self, generator: torch.Generator) -> Metrics:
        """Take the updates of an iteration."""
        assert self.replay is not None
        config, count = self.config, len(self.replay.added)
        batches = list(all_different(count, config.meta_batch, config.updates, generator))
        mine = torch.stack([self.ranks.own(batch) for batch in batches]).to(self.device)
        noise = rollout.noise_generator(generator, self.device)
        totals = torch.zeros(len(FIGURES), dtype=torch.float64, device=self.device)
        windows = self.replay.windows(context=False), self.replay.windows(context=True)
        for tasks in mine:
            totals += self.learn(*self.draw(tasks, windows, noise))
        means = dict(zip(FIGURES, self.ranks.mean((totals / config.updates).tolist()), strict=True))
        if not all(map(math.isfinite, means.values())):
            parts = [(f"the parameter of {name},", values) for name, values in self.networks.params.items()]
            check_parts(parts, "the losses are not finite")
        return {**means, "update/steps": float(config.updates)}

    def draw(
        self, tasks: Int[Tensor, " m"], windows: tuple[Windows, Windows], generator: torch.Generator
    ) -> tuple[Steps, Steps, Float[Tensor, "m L"], Float[Tensor, "m n A"]]:
        """Draw what an update needs: steps, context, and the noise of z and of the actions.

        Args:
            tasks: numbers of this rank's training tasks.
            windows: of the replay, for the steps and for the context.
            generator: on the device.
        """
        assert self.replay is not None
        count, config = len(tasks), self.config
        steps = self.replay.take(tasks, self._chances(generator, count, config.batch), windows[0])
        context = self.replay.take(tasks, self._chances(generator, count, config.context), windows[1])
        z_noise = drawn(generator, self.replay.rows.new_empty(count, config.latent), self.ranks)
        return steps, context, z_noise, drawn(generator, torch.empty_like(steps.action), self.ranks)

    def learn(
        self, steps: Steps, context: Steps, z_noise: Float[Tensor, "m L"], action_noise: Float[Tensor, "m n A"]
    ) -> Float[Tensor, " F"]:
        """Take one update, in place, without a look at the device.

        Args:
            steps: of m tasks, [m, n, ...].
            context: of the same.
            z_noise: standard normal, of z.
            action_noise: the same of the actions.

        Returns:
            `FIGURES` of this rank.
        """
        config, count = self.config, len(z_noise)
        together = max(1, config.chunk_steps // config.batch) if z_noise.is_cpu else count
        parts = [slice(begin, begin + together) for begin in range(0, count, together)]
        told: list[Tensor] = []
        found: list[Tensor] = []

        def of_critics() -> Iterator[Tensor]:
            for part in parts:
                loss, seen, figures = self.critic_loss(_of(steps, part), _of(context, part), z_noise[part])
                told.append(seen)
                found.append(figures * (len(z_noise[part]) / count))
                yield loss * (len(z_noise[part]) / count)

        def of_the_rest() -> Iterator[Tensor]:
            for number, part in enumerate(parts):
                loss, figures = self.actor_loss(told[number], action_noise[part].flatten(0, 1))
                found.append(figures * (len(z_noise[part]) / count))
                yield loss * (len(z_noise[part]) / count)

        self._descend(0, of_critics())
        self._descend(1, of_the_rest())
        follow(self.networks.params["slow_v"], self.networks.params["v"], config.target_rate)
        return torch.stack(found).sum(0)

    def critic_loss(
        self, steps: Steps, context: Steps, noise: Float[Tensor, "m L"]
    ) -> tuple[Tensor, Float[Tensor, "R I"], Float[Tensor, " F"]]:
        """Compute what encoder and Q go down, what the other networks are told of the same steps, and figures."""
        config, nets = self.config, self.networks
        belief = nets.factors(context)
        kl = belief.kl_to_prior().mean()
        z = torch.addcmul(belief.mean, belief.variance.sqrt(), noise)
        each = _for_each(z, steps.reward.shape[1])
        flat = _of(steps, slice(None), flat=True)
        told = torch.cat((nets.shown(flat.observation), each), dim=-1)
        with torch.no_grad():
            behind = nets.v_of(torch.cat((nets.shown(flat.next_observation), each), dim=-1), "slow_v")
            reward = config.reward_scale * nets.rewarded(flat.reward)
            target = q_target(reward.squeeze(-1), flat.terminal.squeeze(-1), behind, discount=config.discount)
        error = (nets.q_of(told, flat.action) - target).square().mean(-1).sum()
        zero = torch.zeros_like(kl)
        figures = torch.stack((error / 2.0, zero, kl, zero, zero)).detach().double()
        return error + config.kl_weight * kl, told.detach(), figures

    def actor_loss(self, told: Float[Tensor, "R I"], noise: Float[Tensor, "R A"]) -> tuple[Tensor, Float[Tensor, " F"]]:
        """Compute what V, policy and temperature go down, each by its own part, and figures."""
        nets = self.networks
        distribution = nets.policy_of(told)
        action, log_prob = distribution.sample(noise)
        log_temperature = nets.params["temperature"]["log"]
        temperature = log_temperature.detach().exp()
        lowest = nets.q_of(told, action).amin(0)
        error = (nets.v_of(told) - (lowest - temperature * log_prob).detach()).square().mean()
        small = distribution.mean.square().mean() + distribution.log_std.square().mean()
        loss = error + (temperature * log_prob - lowest).mean() + SMALL_ACTIONS * small
        if self.config.automatic_temperature:
            loss = loss - (log_temperature * (log_prob.detach() - self.spec.action_size)).mean()
        zero = torch.zeros_like(error)
        return loss, torch.stack((zero, error, zero, -log_prob.mean(), temperature.squeeze(0))).detach().double()

    def _descend(self, which: int, losses: Iterable[Tensor]) -> None:
        """Take a step of one of the optimisers down the sum of some losses, in the mean over the ranks."""
        leaves = self.learned[which]
        found = [torch.autograd.grad(loss, leaves) for loss in losses]
        gradients = self.ranks.mean([reduce(torch.add, parts) for parts in zip(*found, strict=True)])
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        self.optimisers[which].step()

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> BeliefLearner:
        """Return the learner of M new tasks, which has met nothing yet."""
        return BeliefLearner(Believing(self.networks, self.config.prior_episodes))

    @property
    def later_bytes(self) -> int:
        """Bytes that its state may come to have beside those of a fresh agent: the replay."""
        row = memory.FLOAT * row_size(self.spec.observation_size, self.spec.action_size)
        return self.config.train_tasks * (self.config.replay_steps * row + memory.TASK_NUMBER * self.spec.feature_size)

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, scale, training tasks and everything that is kept of them."""
        cpu = torch.device("cpu")
        return {
            "networks": {
                name: {key: value.detach().to(cpu, copy=True) for key, value in part.items()}
                for name, part in self.networks.params.items()
            },
            "optimisers": [deepcopy(optimiser.state_dict()) for optimiser in self.optimisers],
            "observation": self.networks.observation.state_dict(),
            "reward": self.networks.reward.state_dict(),
            "tasks": {} if self.tasks is None else {k: v.clone() for k, v in self.tasks.values.items()},
            "replay": {} if self.replay is None else self.replay.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything.

        Raises:
            ValueError: it does not fit.
        """
        params = {name: load_params(part, state["networks"][name]) for name, part in self.networks.params.items()}
        self.begin_with(params)
        for optimiser, stored in zip(self.optimisers, state["optimisers"], strict=True):
            load_optimiser(optimiser, stored, fused=True)
        self.networks.observation.load_state_dict(state["observation"])
        self.networks.reward.load_state_dict(state["reward"])
        if bool(state["tasks"]) != bool(state["replay"]):
            raise ValueError("the stored agent has training tasks without what was played of them, or the other way")
        if state["tasks"]:
            self._train_on(stored_tasks(state["tasks"], self.spec, self.config.train_tasks))
            assert self.replay is not None
            self.replay.load_state_dict(state["replay"])


def _for_each(rows: Float[Tensor, "m L"], count: int) -> Float[Tensor, "N L"]:
    """Return every row `count` times in a row."""
    return rows[:, None].expand(-1, count, -1).flatten(0, 1)


def _of(steps: Steps, tasks: slice, *, flat: bool = False) -> Steps:
    """Return the steps of some tasks, [m, n, ...], or in a row, [m n, ...]."""
    return Steps(*(part[tasks].flatten(0, 1) if flat else part[tasks] for part in steps))
