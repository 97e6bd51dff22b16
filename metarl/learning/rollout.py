"""The only collection loop: M tasks x K complete episodes in B = M*K worlds.

Every world plays exactly one episode. Worlds that ended early wait, masked, until the last one has ended: refilling
them would favour short episodes. Where worlds are on a GPU the host does not look for that: it goes on to the horizon,
so that it never waits for the device, and cuts the padding off in the end. A trial of several episodes in a row is
several collections, the first of which gives the worlds their tasks. Where an engine's buffers were too small for an
episode, all are played again (again.py): an episode that the engine ended counts for nothing.
"""

from __future__ import annotations

import time

import torch

from metarl.devices import torch_threads
from metarl.learning.again import Again
from metarl.ranks import ALONE, Ranks
from metarl.types import BatchEnv, MemoryPolicy, Policy, Tasks, Trajectories


def noise_generator(generator: torch.Generator, device: torch.device) -> torch.Generator:
    """Return the generator itself for the CPU, for another device one there that is seeded by it.

    So noise is drawn where it is needed, and what is saved of a run is the state of CPU generators alone.
    """
    if device.type == "cpu":
        return generator
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return torch.Generator(device).manual_seed(seed)


@torch.no_grad()
def collect(
    env: BatchEnv,
    policy: Policy,
    tasks: Tasks,
    episodes: int,
    generator: torch.Generator,
    *,
    new_trial: bool = True,
    ranks: Ranks = ALONE,
    watch: bool | None = None,
) -> Trajectories:
    """Play `episodes` complete episodes of every task.

    Args:
        env: M * `episodes` worlds.
        policy: acts in all worlds, task-major.
        tasks: M tasks.
        episodes: K.
        generator: draws the starts and the policy's noise.
        new_trial: whether the worlds get the tasks now; if not, they go on with those that they have, and the trial of
            the collection before goes on (where tasks switch, the steps of all its episodes count).
        ranks: which of them play a share of the tasks each, as these M; environment and policy know them too.
        watch: whether to look after each step if all episodes have ended; by default where the worlds are on the CPU.

    Returns:
        The episodes, padded to the longest one that any rank saw (T <= horizon).
    """
    started = time.perf_counter()
    if new_trial:
        env.set_tasks(tasks.repeat(episodes))
    again = Again(env, policy, generator)
    played = None
    while played is None:
        played = _play(env, policy, tasks, episodes, generator, again, ranks, watch, started)
    return played


def _play(
    env: BatchEnv,
    policy: Policy,
    tasks: Tasks,
    episodes: int,
    generator: torch.Generator,
    again: Again,
    ranks: Ranks,
    watch: bool | None,
    started: float,
) -> Trajectories | None:
    """Play the episodes, arguments as in `collect`; return None where they have to be played again."""
    in_policy = 0.0
    count, worlds, horizon = len(tasks), env.num_worlds, env.horizon
    with torch_threads(1):
        observation = env.reset(generator)
        memory = policy if isinstance(policy, MemoryPolicy) else None
        if memory is not None:
            memory.begin_episode()
        device, dtype = observation.device, observation.dtype
        noise = noise_generator(generator, device)
        watched = device.type == "cpu" if watch is None else watch
        observations = torch.zeros(horizon, worlds, env.observation_size, device=device, dtype=dtype)
        actions = torch.zeros(horizon, worlds, env.action_size, device=device, dtype=dtype)
        rewards = torch.zeros(horizon, worlds, device=device, dtype=dtype)
        mask = torch.zeros(horizon, worlds, device=device, dtype=dtype)
        terminated = torch.zeros(worlds, dtype=torch.bool, device=device)
        active = torch.ones(worlds, dtype=torch.bool, device=device)
        all_active = watched
        totals: dict[str, torch.Tensor] = {}
        success: torch.Tensor | None = None
        steps = 0
        for t in range(horizon):
            before = time.perf_counter()
            action = policy.act(observation, noise)
            in_policy += time.perf_counter() - before
            if all_active:
                observations[t], actions[t], mask[t] = observation, action, 1.0
            else:
                real = active.to(dtype)
                observations[t] = observation * real[:, None]
                actions[t] = action * real[:, None]
                mask[t] = real
            step = env.step(action)
            observation, rewards[t] = step.observation, step.reward
            for name, value in step.terms.items():
                totals[name] = totals[name] + value if name in totals else value
            if step.success is not None:
                success = step.success.clone() if success is None else success | step.success
            terminated |= step.terminated
            steps = t + 1
            ended = step.terminated | step.truncated
            if memory is not None:
                before = time.perf_counter()
                memory.see(step.reward, ended)
                in_policy += time.perf_counter() - before
            if not watched:
                active &= ~ended
            elif bool(ended.any()):
                active &= ~ended
                all_active = False
                if not bool(active.any()):
                    break
        # Before anything is told to other ranks, which may have played theirs for good.
        if again.needed():
            return None
        if watched:
            played, steps = steps, ranks.largest(steps)
            for _ in range(steps - played):
                # Other ranks play on: the generators have to stay alike.
                policy.act(observation, noise)
        else:
            steps = ranks.largest(int(mask.any(1).sum()))

    def by_task(x: torch.Tensor) -> torch.Tensor:
        return x[:steps].transpose(0, 1).reshape(count, episodes, steps, *x.shape[2:])

    mask = by_task(mask)
    real_steps, sums = ranks.sum((float(mask.sum()), {name: float(value.sum()) for name, value in totals.items()}))
    return Trajectories(
        observations=by_task(observations),
        actions=by_task(actions),
        rewards=by_task(rewards),
        mask=mask,
        terminated=terminated.reshape(count, episodes),
        final_observations=observation.reshape(count, episodes, -1),
        tasks=tasks,
        terms={name: value / real_steps for name, value in sums.items()},
        success=None if success is None else success.reshape(count, episodes),
        seconds=time.perf_counter() - started,
        policy_seconds=in_policy,
    )
