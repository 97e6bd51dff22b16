"""Teacher and student: a policy that is told the task, and one that finds it out as it acts (Kumar et al. 2021, RMA).

* `teacher`: is told the task's parameters e through an encoder, z = μ(e): what could be had if the task were known.
* `ppo`: the same networks, told nothing: plain domain randomisation, one behaviour for all tasks.
* `rma`: both phases in one run. First a teacher is trained; then its policy and μ stay as they are, and a student
  learns to give z by the last 50 steps of the episode, in the place of the one who tells.

Phase 1, PPO (Schulman et al. 2017; metarl/learning/ppo.py), over single episodes:

    max  mean_t min(ρ_t A_t, clip(ρ_t, 1 - ε, 1 + ε) A_t),   ρ_t = π(a_t | x_t, z) / π_old,   V_t = V(x_t, e)

The critic is a network of its own, which is told e itself: no error of a value moves μ. Behind the last step of an
episode V is 0 after a terminal state; where the time limit cut it, it is that of what would have come.

Phase 2, supervised, on what the student itself plays (DAgger, Ross et al. 2011): π acts on ẑ, the label is z.

    min  mean_t ‖ẑ_t - z‖²,   ẑ_t = φ(x_{t-50}, a_{t-50}, ..., x_{t-1}, a_{t-1})

Nothing but φ moves then. At test the window is empty where an episode begins: the student adapts within each episode
anew, and what it knows at its end is what a probe reads.

Deviations from the paper: the policy is not shown its last action (the window has it); φ gives a new ẑ at every step,
not at every tenth; observations are scaled by running moments, as RL2's, which stand still in phase 2. `--rewards` adds
the reward to a step of the window: where tasks differ in what is rewarded alone, x and a say nothing of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metarl import memory
from metarl.config import MOST_ITERATIONS, MOST_STEPS, check
from metarl.errors import UserError
from metarl.launches import launches_on
from metarl.learning import figures
from metarl.learning.chunks import passes
from metarl.learning.description import Description, Part
from metarl.learning.optimisers import load_optimiser
from metarl.learning.ppo import in_one_kernel
from metarl.learning.rollout import collect
from metarl.learning.student import Lesson, Steps, StudentPolicy, teach
from metarl.learning.told import FixedLearner, ToldPolicy
from metarl.learning.trial_advantages import Over
from metarl.learning.trial_update import Rows, update_on_trials
from metarl.learning.trials import Inputs, Trials, join
from metarl.nets import history
from metarl.nets.latent import LatentNetwork
from metarl.nets.moments import Moments
from metarl.nets.pictures import FEATURES, with_pictures
from metarl.nets.policy import Activation
from metarl.nets.stored import load_network, network_state
from metarl.ranks import ALONE, Ranks
from metarl.seeding import Streams
from metarl.types import BatchEnv, EnvSpec, Metrics, SampleTasks, Tasks, Trajectories

TEACHER_PLAYS = 10
"""In phase 2 the teacher plays too in every so many iterations, so that its return stands beside the student's."""


# -- settings ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class PpoConfig:
    """Defaults are for robots."""

    iterations: int = 400
    """Updates, over which learning rate and entropy weight go from their first values to their final ones."""
    tasks: int = 50
    """Tasks of an update, M."""
    episodes: int = 4
    """Episodes of a task, K, played in parallel."""
    hidden: tuple[int, ...] = (128, 128)
    """Hidden layers of the policy, and of the critic."""
    activation: Activation = "tanh"
    """Activation of these."""
    encode_pictures: bool = True
    """Show the networks of pictures among the observations what a small convolutional encoder, trained with them, makes
    of their pixels; if not, pixels are numbers as others."""
    discount: float = 0.99
    """γ per step."""
    trace: float = 0.95
    """λ of the advantages."""
    finite_horizon: bool = False
    """Nothing follows an episode's end: never bootstrap the value there."""
    advantages: Over = "batch"
    """What advantages are standardised over: all episodes of the update, or each episode by itself."""
    clip: float = 0.2
    """ε of the clipped objective."""
    epochs: int = 4
    """Passes over the episodes in an update."""
    minibatches: int = 10
    """Steps of the optimiser in a pass."""
    minibatches_of: Rows = "steps"
    """What these are filled with: steps of all episodes, or whole episodes (`trials`)."""
    learning_rate: float = 1e-3
    """Of Adam, at the start."""
    final_learning_rate: float = 1e-4
    """After the last of the iterations, with a straight line between."""
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
        """Parallel worlds of a training iteration, B."""
        return self.tasks * self.episodes

    @property
    def by_ppo(self) -> int:
        """Iterations that PPO has."""
        return self.iterations

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the networks for a family; pictures have an encoder before them."""
        encoder, inputs = len(spec.pictures) * FEATURES * spec.observation_size, spec.observation_size
        told = inputs + spec.feature_size
        return encoder + memory.layers(told, self.hidden, spec.action_size) + memory.layers(told, self.hidden, 1)

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        steps = self.worlds * spec.horizon
        played = memory.episodes(steps, spec.observation_size + spec.feature_size, spec.action_size)
        # What the old policy would have done is computed in as many parts.
        rows = -(-steps // self.minibatches)
        update = memory.policy_gradients(steps=rows, collections=2, at_a_time=rows, hidden=self.hidden)
        return {"--tasks, --episodes, --hidden or --horizon": played + update}

    def memory_of_each(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what each of several processes has whole, bytes: what asks for it -> how much."""
        return {"--hidden": memory.stored(self.network_weights(spec))}

    def unused(self, name: str, spec: EnvSpec, device: torch.device) -> dict[str, str]:
        """Return settings that change nothing for an agent of this name and a family -> what they would need."""
        unused = {} if self.hidden else {"activation": "hidden layers"}
        if spec.discrete:
            unused["initial_std"] = "a family whose actions are numbers"
        if not spec.pictures:
            unused["encode_pictures"] = "a family with pictures among its observations"
        return unused

    def __post_init__(self) -> None:
        check(self, at_least={"iterations": 0, "tasks": 1, "episodes": 1, "epochs": 1, "minibatches": 1})
        check(self, at_least={"discount": 0.0, "trace": 0.0, "value_weight": 0.0, "final_learning_rate": 0.0})
        check(self, at_least={"entropy": 0.0, "final_entropy": 0.0}, at_most={"discount": 1.0, "trace": 1.0})
        check(self, above={"clip": 0.0, "learning_rate": 0.0, "max_gradient_norm": 0.0, "max_kl": 0.0})
        check(self, above={"initial_std": 0.0}, at_most={"iterations": MOST_ITERATIONS, "epochs": MOST_STEPS})
        check(self, at_most={"minibatches": MOST_STEPS})
        if self.minibatches_of == "trials":
            _check_minibatches(self, "minibatches")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(PpoConfig):
    """Defaults are for robots."""

    latent: int = 8
    """Numbers that stand for the task, D of z."""
    encoder: tuple[int, ...] = (64,)
    """Hidden layers, with relu, of what makes z of the task's parameters, μ."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, at_least={"latent": 1})


@dataclass(frozen=True, kw_only=True)
class RmaConfig(TeacherConfig):
    """Defaults are for robots."""

    student_part: float = 0.25
    """Part of the iterations, at their end, in which the student is trained."""
    rewards: bool = False
    """Show the student the rewards of the steps in its window too; needed where tasks differ in these alone."""
    student_learning_rate: float = 1e-3
    """Of Adam, for φ."""
    student_epochs: int = 2
    """Passes over the episodes in an update of φ."""
    student_minibatches: int = 10
    """Steps of the optimiser in a pass."""

    @property
    def by_ppo(self) -> int:
        """Iterations that PPO has: at least one, and one less than there are."""
        return min(max(1, self.iterations - round(self.student_part * self.iterations)), max(0, self.iterations - 1))

    def network_weights(self, spec: EnvSpec) -> int:
        """Return the weights of the networks for a family, φ included."""
        step = spec.observation_size + spec.action_size + self.rewards
        return super().network_weights(spec) + history.weights(step, self.latent)

    def memory_needed(self, spec: EnvSpec) -> dict[str, int]:
        """Reckon what a training needs beside the worlds, bytes: what asks for it -> how much."""
        rows = -(-self.worlds // self.student_minibatches) * spec.horizon
        step = spec.observation_size + spec.action_size + self.rewards
        # A window, and what is made of it, before and after relu.
        of_step = history.WINDOW * step + 2 * history.EMBEDDED * sum(history.lengths())
        return {**super().memory_needed(spec), "--tasks, --episodes or --horizon": memory.FLOAT * 2 * rows * of_step}

    def check_family(self, spec: EnvSpec, known: Iterable[EnvSpec] = ()) -> None:
        """Refuse a family whose tasks the student could not tell apart.

        Args:
            spec: the family's.
            known: those of all families.

        Raises:
            UserError: says what to add.
        """
        if not self.rewards and not spec.dynamics_vary:
            raise UserError(
                f"Got {spec.family} for rma, whose tasks differ in what is rewarded alone, and a student that is not "
                "shown rewards: add --rewards."
            )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self, at_least={"student_epochs": 1, "student_minibatches": 1}, at_most={"student_epochs": MOST_STEPS})
        check(self, above={"student_part": 0.0, "student_learning_rate": 0.0}, at_most={"student_part": 0.9})
        if self.iterations == 1:
            raise UserError(
                "Got --iterations 1 for rma, which trains a teacher and then its student. Ask for 2 or more."
            )
        _check_minibatches(self, "student_minibatches")


def _check_minibatches(config: PpoConfig, name: str) -> None:
    """Refuse minibatches without an episode."""
    count = getattr(config, name)
    if count > config.worlds:
        raise UserError(
            f"Got --{name.replace('_', '-')} {count} for {config.worlds} episodes (--tasks {config.tasks} --episodes "
            f"{config.episodes}). There have to be as many: ask for more of these, or for fewer minibatches."
        )


# -- the agent --------------------------------------------------------------------------------------------------------


class TeacherStudent:
    """The agent.

    Args:
        config: its settings.
        spec: the family's sizes and task features.
        streams: `init` draws the initial parameters.
        device: where the networks and their updates live.
        ranks: the processes that train it together: every minibatch has what it would have in one process, and a
            rank computes of it what is its own.
        name: `teacher`, `ppo` or `rma`.
    """

    trial = 1

    def __init__(
        self,
        config: PpoConfig,
        spec: EnvSpec,
        streams: Streams,
        device: torch.device,
        ranks: Ranks = ALONE,
        *,
        name: str,
    ) -> None:
        self.name, self.config, self.device, self.ranks = name, config, device, ranks
        # The student finds out in each world by itself; the others find nothing out.
        self.pools = name != "rma"
        spec = with_pictures(spec, config.encode_pictures)
        ranks.share(config.tasks)
        self.told_size = spec.feature_size if isinstance(config, TeacherConfig) else 0
        self.features = spec.features
        if isinstance(config, TeacherConfig) and self.told_size == 0:
            raise UserError(f"{name} got {spec.family}, whose tasks have no parameters to be told. Train ppo or rl2.")
        self.network = LatentNetwork(
            spec,
            self.told_size,
            latent=config.latent if isinstance(config, TeacherConfig) else 0,
            encoder=config.encoder if isinstance(config, TeacherConfig) else (),
            hidden=config.hidden,
            activation=config.activation,
            initial_std=config.initial_std,
            generator=streams["init"],
        ).to(device)
        self.inputs = Inputs(spec)
        self.returns = Moments(spec.horizon)
        # The steps of an update have one form, unless episodes end early: then each update has its own.
        self.launches = launches_on(device, most=1)
        adam = partial(torch.optim.Adam, eps=1e-5, fused=in_one_kernel(device))
        self.optimiser = adam(self.network.parameters(), lr=config.learning_rate)
        self.iteration = 0
        self.student = None
        if isinstance(config, RmaConfig):
            self.steps = Steps(inputs=self.inputs, rewards=config.rewards)
            size = self.steps.size(self.network.eye.outputs)
            self.student = history.HistoryEncoder(size, config.latent, streams["student"]).to(device)
            self.student_optimiser = adam(self.student.parameters(), lr=config.student_learning_rate)

    @property
    def begun(self) -> bool:
        """Whether what acts at test is being trained already: a student is not before phase 2."""
        return self.student is None or self.iteration > self.config.by_ppo

    # -- training ---------------------------------------------------------------------------------------------------

    def train_iteration(self, env: BatchEnv, sample_tasks: SampleTasks, streams: Streams) -> Metrics:
        """Play K episodes of every task, and improve the policy on them; or, in phase 2, the student."""
        config = self.config
        tasks = sample_tasks(config.tasks, "train", streams["tasks"]).select(self.ranks.rows(config.tasks))
        play = partial(collect, env, tasks=tasks, episodes=config.episodes, generator=streams["rollout"])
        teaching = self.student is not None and self.iteration >= config.by_ppo
        knowing = ToldPolicy(self.network, self.inputs, self._told(tasks), self.device, self.ranks)
        played, metrics = [], {}
        if not teaching or (self.iteration - config.by_ppo) % TEACHER_PLAYS == 0:
            played.append(play(policy=knowing, ranks=self.ranks))
            if self.student is not None:
                metrics["return/teacher"] = float(played[0].returns.mean())
        if teaching:
            played.append(play(policy=self._finding_out(), ranks=self.ranks))
        if teaching == (self.student is not None):
            metrics |= dict.fromkeys(("return/pre", "return/post"), float(played[-1].returns.mean()))
        started = time.perf_counter()
        trials, told = self._by_episode(played[-1], tasks)
        update = (self._teach if teaching else self._improve)(trials, told, streams["update"])
        if self.student is not None:
            metrics["student/phase"] = 2.0 if teaching else 1.0
        self.iteration += 1
        return {
            **metrics,
            **update,
            **figures.of_episodes(played),
            "time/update": time.perf_counter() - started,
        }

    def _told(self, tasks: Tasks) -> Float[Tensor, "M P"]:
        """Return e of every task; nothing of it where nothing is told."""
        return self.features(tasks)[:, : self.told_size].to(self.network.value.weights["b0"])

    def _finding_out(self) -> StudentPolicy:
        """Return the policy that acts on ẑ."""
        assert self.student is not None
        return StudentPolicy(self.network, self.student, self.steps, self.device, self.ranks)

    def _by_episode(self, played: Trajectories, tasks: Tasks) -> tuple[Trials, Float[Tensor, "N P"]]:
        """Return all N episodes, each as a trial of its own, and e of each."""
        rows = {
            name: value.flatten(0, 1)[:, None]
            for name, value in vars(played.to(self.device)).items()
            if isinstance(value, Tensor)
        }
        told = self._told(tasks).repeat_interleave(played.mask.shape[1], dim=0)
        return join([replace(played, **rows)]), told

    def _improve(self, trials: Trials, told: Float[Tensor, "N P"], generator: torch.Generator) -> Metrics:
        """Improve the policy by PPO."""
        inputs, behind = (
            torch.cat((self.inputs.shown(x), told[:, None].expand(*x.shape[:2], -1).to(x)), dim=-1)
            for x in (trials.observations, trials.final[:, None])
        )
        old, values = self._measure(inputs, behind, trials)
        metrics = update_on_trials(
            self.network,
            self.optimiser,
            trials,
            generator,
            self.config,
            rows=self.config.minibatches_of,
            inputs=inputs,
            log_probs=old,
            values=values,
            returns=self.returns,
            iteration=self.iteration,
            iterations=self.config.by_ppo,
            log_std=self.network.log_std,
            ranks=self.ranks,
            launches=self.launches,
        )
        self.inputs.update(trials, self.ranks)
        return metrics

    @torch.no_grad()
    def _measure(
        self, inputs: Float[Tensor, "N L I"], behind: Float[Tensor, "N 1 I"], trials: Trials
    ) -> tuple[Float[Tensor, "N L"], Float[Tensor, "N moments"]]:
        """Return the log-probabilities of the actions, and the scaled values with those behind each last step."""
        log_probs, values = [], []
        parts = min(passes(inputs, self.config.minibatches), len(inputs))
        for rows in torch.arange(len(inputs), device=self.device).tensor_split(parts):
            distribution, value = self.network(inputs[rows])
            log_probs.append(distribution.log_prob(trials.actions[rows]))
            last = trials.lengths[rows, None]
            value = torch.cat((value, torch.zeros_like(value[:, :1])), dim=1)
            values.append(value.scatter(1, last, self.network(behind[rows])[1]))
        return torch.cat(log_probs), torch.cat(values)

    def _teach(self, trials: Trials, told: Float[Tensor, "N P"], generator: torch.Generator) -> Metrics:
        """Let the student's ẑ come closer to z, on what it played."""
        config = self.config
        assert isinstance(config, RmaConfig)
        assert self.student is not None
        with torch.no_grad():
            seen = self.network.see(self.inputs.shown(trials.observations))
            steps = self.steps(seen, trials.actions, trials.rewards)
            lesson = Lesson(steps=steps, wanted=self.network.latent(told.to(steps)), mask=trials.mask)
        return teach(
            self.student,
            self.student_optimiser,
            lesson,
            generator,
            epochs=config.student_epochs,
            minibatches=config.student_minibatches,
            ranks=self.ranks,
        )

    # -- test and storage -------------------------------------------------------------------------------------------

    def start(self, tasks: Tasks) -> FixedLearner:
        """Return the learner of M new tasks, which no experience changes beside what is in the student's window."""
        if self.student is not None:
            policy = StudentPolicy(self.network, self.student, self.steps, self.device)
        else:
            policy = ToldPolicy(self.network, self.inputs, self._told(tasks), self.device)
        return FixedLearner(policy, self._described)

    def _described(self, spec: EnvSpec) -> Description:
        """Return the policy, told as plain data."""
        if self.student is not None:
            raise UserError(
                "Got the agent 'rma', whose student looks at a window of steps, which an exported policy cannot "
                "compute. Export a run of rl2, which adapts in a memory, or of teacher, which is told the task."
            )
        seen = self.inputs.described()[0]
        told = (Part(of="task", size=self.told_size),) if self.told_size else ()
        return Description(inputs=(seen, *told), layers=self.network.layers(), log_std=self.network.log_std)

    def _parts(self) -> dict[str, tuple[nn.Module, torch.optim.Optimizer]]:
        """Return what is trained: names of network and optimiser -> both."""
        parts: dict[str, tuple[nn.Module, torch.optim.Optimizer]] = {"": (self.network, self.optimiser)}
        if self.student is not None:
            parts["student_"] = self.student, self.student_optimiser
        return parts

    def state_dict(self) -> dict[str, Any]:
        """Return networks, optimisers, moments and the number of updates."""
        state: dict[str, Any] = {
            "observation": self.inputs.observation.state_dict(),
            "reward": self.inputs.reward.state_dict(),
            "returns": self.returns.state_dict(),
            "iteration": self.iteration,
        }
        for name, (network, optimiser) in self._parts().items():
            # Copies: the optimiser works in place.
            state |= {f"{name}network": network_state(network), f"{name}optimiser": deepcopy(optimiser.state_dict())}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore everything.

        Raises:
            ValueError: it does not fit.
        """
        for name, (network, optimiser) in self._parts().items():
            load_network(network, state[f"{name}network"], f"{name}network")
            # It may have been stored on another device.
            load_optimiser(optimiser, state[f"{name}optimiser"], fused=in_one_kernel(self.device))
        self.inputs.observation.load_state_dict(state["observation"])
        self.inputs.reward.load_state_dict(state["reward"])
        self.returns.load_state_dict(state["returns"])
        self.iteration = state["iteration"]


teacher = partial(TeacherStudent, name="teacher")
ppo = partial(TeacherStudent, name="ppo")
rma = partial(TeacherStudent, name="rma")
