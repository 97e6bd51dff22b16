"""Moving pictures of what an agent does: episodes side by side in one GIF."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from metarl.checkpoint import write_atomically
from metarl.rollout import one_torch_thread
from metarl.types import BatchEnv, Policy, Tasks

Picture = UInt8[np.ndarray, "H W 3"]
"""Height x width x red, green, blue."""

FRAME_SECONDS = 0.1
"""A frame of the film is shown for about so long, in real time where a control step is no longer than this, s."""
LAST_SECONDS = 1.5
"""How long the last frame stays, s."""
CAPTION_HEIGHT = 44
"""Height of the bar above a picture, pixels."""
GAP = 6
"""Between two pictures, pixels."""
COLOURS = 128
"""Colours of the film's palette."""
PAPER, INK, FAINT, RULE = (255, 255, 255), (30, 30, 30), (110, 110, 110), (210, 210, 210)


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One episode, frame by frame."""

    caption: str
    """What it shows."""
    frames: tuple[Picture, ...]
    """Pictures, the start included."""
    returns: tuple[float, ...]
    """Return so far at every picture."""


@torch.no_grad()
def play(
    env: BatchEnv,
    policy: Policy,
    task: Tasks,
    generator: torch.Generator,
    picture: Callable[[], Picture],
    *,
    stride: int,
    caption: str,
) -> Clip:
    """Play one episode and draw it.

    Args:
        env: one world.
        policy: acts in it.
        task: one task.
        generator: draws the start and the policy's noise.
        picture: draws the world as it is now.
        stride: control steps from one picture to the next.
        caption: what the clip shows.
    """
    with one_torch_thread():
        env.set_tasks(task)
        observation = env.reset(generator)
        frames, returns, total = [picture()], [0.0], 0.0
        for t in range(1, env.horizon + 1):
            step = env.step(policy.act(observation, generator))
            observation = step.observation
            total += float(step.reward)
            ended = bool((step.terminated | step.truncated).any())
            if t % stride == 0 or ended:
                frames.append(picture())
                returns.append(total)
            if ended:
                break
    return Clip(caption=caption, frames=tuple(frames), returns=tuple(returns))


def stride_of(step_seconds: float) -> int:
    """Return how many control steps a frame of the film spans."""
    return max(1, round(FRAME_SECONDS / step_seconds))


def save_gif(path: Path, clips: Sequence[Clip], title: str) -> None:
    """Write clips side by side as an endless GIF; one that ends early keeps its last picture.

    Args:
        path: the file, in a folder that is made where missing.
        clips: at least one, all of the same size.
        title: of the whole film.
    """
    length = max(len(clip.frames) for clip in clips)
    film = [_compose(clips, title, index) for index in range(length)]
    # One palette for all frames, from the middle of the film: with one each, colours flicker.
    palette = film[length // 2].quantize(COLOURS, dither=Image.Dither.NONE)
    film = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in film]
    durations = [round(1000 * FRAME_SECONDS)] * (length - 1) + [round(1000 * LAST_SECONDS)]
    buffer = io.BytesIO()
    film[0].save(buffer, "GIF", save_all=True, append_images=film[1:], duration=durations, loop=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())


def _compose(clips: Sequence[Clip], title: str, index: int) -> Image.Image:
    """Return one frame of the film: the title, and every clip under its caption."""
    height, width = clips[0].frames[0].shape[:2]
    top = CAPTION_HEIGHT // 2 + GAP
    image = Image.new("RGB", ((width + GAP) * len(clips) - GAP, top + CAPTION_HEIGHT + height), PAPER)
    canvas = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(13), ImageFont.load_default(15)
    canvas.text((8, GAP), title, fill=FAINT, font=small)
    for number, clip in enumerate(clips):
        now = min(index, len(clip.frames) - 1)
        left = number * (width + GAP)
        canvas.text((left + 8, top), clip.caption, fill=INK, font=large)
        canvas.text((left + 8, top + 21), f"return so far {clip.returns[now]:.1f}", fill=FAINT, font=small)
        image.paste(Image.fromarray(clip.frames[now]), (left, top + CAPTION_HEIGHT))
        if number:
            canvas.line((left - GAP // 2, top, left - GAP // 2, image.height), fill=RULE)
    return image
