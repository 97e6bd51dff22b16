"""The only collection loop: M tasks x K complete episodes in B = M*K worlds.

Every world plays exactly one episode. Worlds that ended early wait, masked, until the last one has ended: refilling
them would favour short episodes. Where worlds are on a GPU the host does not look for that: it goes on to the horizon,
so that it never waits for the device, and cuts the padding off in the end. There a whole step is launched as one where
it can be (playing.py, which says what a step is). A trial of several episodes in a row is several collections, the
first of which gives the worlds their tasks. Where an engine's buffers were too small for an episode, all are played
again (again.py): an episode that the engine ended counts for nothing.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor

from metarl.devices import torch_threads
from metarl.errors import NotFiniteError
from metarl.learning.again import Again
from metarl.learning.finite import check_played
from metarl.learning.playing import Playing, launched_playing
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

    Raises:
        NotFiniteError: a reward or an observation is not finite; says where it came from.
    """
    started = time.perf_counter()
    if new_trial:
        env.set_tasks(tasks.repeat(episodes))
    again = Again(env, policy, generator)
    played = None
    while played is None:
        played = _play(env, policy, tasks, episodes, generator, again, ranks, watch, started)
    return played


def collect_trials(
    env: BatchEnv, policy: Policy, tasks: Tasks, episodes: int, generator: torch.Generator, ranks: Ranks = ALONE
) -> list[Trajectories]:
    """Play a trial of so many episodes of every task, one after another; arguments as in `collect`, with K = 1."""
    return [collect(env, policy, tasks, 1, generator, new_trial=number == 0, ranks=ranks) for number in range(episodes)]


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
    count = len(tasks)
    with torch_threads(1):
        observation = env.reset(generator)
        if isinstance(policy, MemoryPolicy):
            policy.begin_episode()
        noise = noise_generator(generator, observation.device)
        watched = observation.device.type == "cpu" if watch is None else watch
        launched = None if watched else launched_playing(env, policy, observation)
        if launched is None:
            playing = Playing(env, policy, noise, observation)
            take_step = playing.step
        else:
            playing, take_step = launched.begin(policy, noise, observation), launched.step
        steps = 0
        for _ in range(env.horizon):
            try:
                take_step()
            except NotFiniteError:
                # Of an action; what the policy was shown came before it.
                check_played(env.family_name, tasks, playing)
                raise
            steps += 1
            if watched and bool(playing.ended.any()) and not bool(playing.active.any()):
                break
        # Before anything is told to other ranks, which may have played theirs for good.
        if again.needed():
            return None
        if watched:
            played, steps = steps, ranks.largest(steps)
            for _ in range(steps - played):
                # Other ranks play on: the generators have to stay alike.
                policy.act(playing.observation, noise)
        else:
            steps = ranks.largest(int(playing.mask.any(1).sum()))
        if launched is not None:
            launched.end(policy, noise)

    def by_task(record: Tensor) -> Tensor:
        """Return the real steps of a record, with zeros in the padding."""
        real = playing.mask[:steps].view(steps, env.num_worlds, *[1] * (record.dim() - 2))
        # What is launched writes into the same records again.
        own = record[:steps].mul_(real) if launched is None else record[:steps] * real
        return own.transpose(0, 1).reshape(count, episodes, steps, *record.shape[2:])

    totals = {name: float(value.sum()) for name, value in playing.totals.items()}
    # One look at the device.
    sums_of = (playing.mask, playing.rewards, playing.observations[:steps], playing.observation)
    real, *figures = torch.stack([part.sum() for part in sums_of]).tolist()
    if not all(map(math.isfinite, (*figures, *totals.values()))):
        check_played(env.family_name, tasks, playing)
    real_steps, sums = ranks.sum((real, totals))
    return Trajectories(
        observations=by_task(playing.observations),
        actions=by_task(playing.actions),
        rewards=by_task(playing.rewards),
        mask=by_task(playing.mask),
        terminated=playing.terminated.clone().reshape(count, episodes),
        final_observations=playing.observation.clone().reshape(count, episodes, -1),
        tasks=tasks,
        terms={name: value / real_steps for name, value in sums.items()},
        success=None if playing.success is None else playing.success.clone().reshape(count, episodes),
        seconds=time.perf_counter() - started,
        policy_seconds=playing.in_policy,
    )
