"""Films of one task: a trained agent before and after adaptation, from the same start."""

from __future__ import annotations

import math

from metarl.envs import make_worlds
from metarl.envs.draw import make_painter
from metarl.envs.family import Family
from metarl.evaluation.film import Clip, play, stride_of
from metarl.learning.rollout import collect
from metarl.seeding import Streams
from metarl.types import MetaAgent, Tasks

FILM_SIZE = (240, 180)
"""Width and height of the films that an evaluation adds to TensorBoard, pixels."""
FILM_PICTURES = 25
"""Pictures of an episode there: without a graphics card one of a robot takes 40 ms."""


def before_and_after(
    agent: MetaAgent,
    family: Family,
    task: Tasks,
    *,
    steps: int,
    episodes: int,
    seed: int,
    size: tuple[int, int],
    most: int = 0,
) -> list[Clip]:
    """Play one task before and after adaptation; only once with a policy that was never trained, or without steps.

    Args:
        agent: the agent; it is not changed.
        family: what the task is of.
        task: one task.
        steps: adaptation steps between the two clips; of an agent that adapts in its memory, episodes.
        episodes: that each step learns from, where the agent pools; else a step is one episode.
        seed: of the start, the policy's noise and the episodes between.
        size: width and height of a picture, pixels.
        most: pictures of an episode, about; 0: as many as the film needs in real time.

    Returns:
        One clip, or two: before and after; of an agent that adapts in its memory the first and the last episode of a
        trial.

    Raises:
        UserError: there is no off-screen OpenGL here, or the family has no drawing.
    """
    stride = max(stride_of(family.step_seconds), math.ceil(family.horizon / most) if most else 1)
    worlds = make_worlds(family, 1, pictures=True)
    painter = make_painter(worlds, *size)
    learner, clips = agent.start(task), []
    if agent.name == "random":
        captions = ["untrained policy"]
    elif agent.pools:
        plural = "s" if steps > 1 else ""
        captions = ["before adaptation", f"after {steps} step{plural} on {steps * episodes} episodes"]
    else:
        captions = [f"episode {number} of the trial" for number in (1, steps + 1)]
    for caption in captions[: 1 if steps == 0 else 2]:
        if clips:
            generator = Streams(seed)["evaluation"]
            # A trial goes on in its own world, and the first of its episodes has been played.
            practice = make_worlds(family, episodes) if agent.pools else worlds
            for _ in range(steps if agent.pools else steps - 1):
                experience = collect(
                    practice,
                    learner.policy,
                    task,
                    episodes if agent.pools else 1,
                    generator,
                    new_trial=agent.pools,
                )
                learner = learner.learn(experience)
        clips += play(
            worlds,
            learner.policy,
            task,
            # The same start and noise for every clip.
            Streams(seed)["render"],
            painter,
            stride=stride,
            captions=[caption],
            new_trial=agent.pools or not clips,
        )
    painter.close()
    return clips
