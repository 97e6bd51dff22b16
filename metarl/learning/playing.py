"""A step of a collection: the policy acts, the worlds move, and what happened is written down.

All of it stays in its place in memory, and so a step is also what a GPU launches as one (metarl/launches.py): policy,
physics, observation, reward and ends. That takes worlds whose step can be captured and a `SteadyPolicy`; a launch is
kept with the worlds, and a later policy with the same `key` lends it its numbers.
"""

from __future__ import annotations

import time

import torch
from jaxtyping import Float
from torch import Tensor

from metarl.graphs import Backend
from metarl.launches import Launch, Launches
from metarl.types import BatchEnv, MemoryPolicy, Policy, SteadyPolicy


class Playing:
    """B worlds in the middle of their episodes.

    Args:
        env: the worlds.
        policy: acts in them.
        noise: on their device; draws the policy's noise.
        observation: a first one.
        steady: whether a step may be captured: then `observation` too is one tensor, whose numbers change.

    Attributes:
        observations, actions: [T, B, ...], of every step, also those of worlds that had ended before it.
        rewards: [T, B], 0 in these.
        mask: [T, B], 1 where a world had not ended before the step.
        observation: the last one.
        active: whose episode has not ended.
        ended: whose episode ended in the last step.
        terminated: whose episode ended in a terminal state.
        success: which worlds met their goal at any step; None where there is none.
        totals: sums over the steps of every term of the reward.
        in_policy: seconds in the policy; nothing is counted in a replay.
    """

    def __init__(
        self, env: BatchEnv, policy: Policy, noise: torch.Generator, observation: Tensor, *, steady: bool = False
    ) -> None:
        self.env, self.policy, self.noise, self.steady = env, policy, noise, steady
        self.memory = policy if isinstance(policy, MemoryPolicy) else None
        size = env.horizon, env.num_worlds
        self.observations = observation.new_zeros(*size, env.observation_size)
        self.actions = observation.new_zeros(*size, env.action_size)
        self.rewards, self.mask = observation.new_zeros(size), observation.new_zeros(size)
        self.observation = observation.clone() if steady else observation
        self.terminated = torch.zeros(env.num_worlds, dtype=torch.bool, device=observation.device)
        self.active, self.ended = ~self.terminated, self.terminated
        self.success: Tensor | None = None
        self.totals: dict[str, Tensor] = {}
        self.in_policy = 0.0
        self._now = torch.zeros(1, dtype=torch.long, device=observation.device)

    def begin(self, observation: Float[Tensor, "B O"]) -> None:
        """Begin again, where all worlds were reset."""
        for record in (self.observations, self.actions, self.rewards, self.mask, self.terminated, self._now):
            record.zero_()
        for total in (*self.totals.values(), *([] if self.success is None else [self.success])):
            total.zero_()
        self.active.fill_(True)
        self.observation.copy_(observation)
        self.in_policy = 0.0

    def step(self) -> None:
        """Take a step in all worlds."""
        started = time.perf_counter()
        action = self.policy.act(self.observation, self.noise)
        self.in_policy += time.perf_counter() - started
        self._write(self.observations, self.observation)
        self._write(self.actions, action)
        self._write(self.mask, self.active)
        step = self.env.step(action)
        self._write(self.rewards, step.reward)
        self._now += 1
        if self.steady:
            self.observation.copy_(step.observation)
        else:
            # The policy may have kept what it was shown before.
            self.observation = step.observation
        for name, value in step.terms.items():
            self.totals.setdefault(name, torch.zeros_like(value)).add_(value)
        if step.success is not None:
            if self.success is None:
                self.success = torch.zeros_like(step.success)
            self.success |= step.success
        self.terminated |= step.terminated
        self.ended = step.terminated | step.truncated
        # Those that were active and have not ended.
        torch.gt(self.active, self.ended, out=self.active)
        if self.memory is not None:
            started = time.perf_counter()
            self.memory.see(step.reward, self.ended)
            self.in_policy += time.perf_counter() - started

    def _write(self, record: Tensor, row: Tensor) -> None:
        """Put a row into the place of the present step, which is known on the device."""
        record.index_copy_(0, self._now, row.to(record.dtype)[None])


class LaunchedPlaying:
    """Playing whose steps are launched as one.

    Args:
        env: worlds whose steps can be captured.
        backend: what captures them.
        policy: whose numbers are copied; the policy itself is not kept.
        observation: a first one.
    """

    def __init__(self, env: BatchEnv, backend: Backend, policy: SteadyPolicy, observation: Tensor) -> None:
        self.policy = policy.twin(observation)
        noise = torch.Generator(observation.device)
        self.playing = Playing(env, self.policy, noise, observation, steady=True)
        self.step = Launch(self.playing.step, backend, (noise,))

    def begin(self, policy: Policy, noise: torch.Generator, observation: Tensor) -> Playing:
        """Begin again with the numbers of a policy and the noise that a generator would give."""
        self.policy.take_over(policy)
        self.playing.noise.set_state(noise.get_state())
        self.playing.begin(observation)
        return self.playing

    def end(self, policy: Policy, noise: torch.Generator) -> None:
        """Let policy and generator be as if they had played themselves."""
        noise.set_state(self.playing.noise.get_state())
        if isinstance(policy, MemoryPolicy) and isinstance(policy, SteadyPolicy):
            policy.take_over(self.policy)


def launched_playing(env: BatchEnv, policy: Policy, observation: Tensor) -> LaunchedPlaying | None:
    """Return the playing of worlds by policies of this kind that is launched step by step; None where none can be."""
    launches: Launches | None = getattr(env, "launches", None)
    if launches is None or not isinstance(policy, SteadyPolicy):
        return None
    key = policy.key(observation.device)
    if key is None:
        return None
    return launches.get((key, env.horizon), lambda: LaunchedPlaying(env, launches.backend, policy, observation))
