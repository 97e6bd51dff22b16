"""Pictures of what an agent does: worlds side by side, still (PNG) or moving (GIF), each under its caption."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from metarl.devices import torch_threads
from metarl.errors import WorldNotFiniteError
from metarl.files import write_atomically
from metarl.types import BatchEnv, MemoryPolicy, Policy, Tasks

Picture = UInt8[np.ndarray, "H W 3"]
"""Height x width x red, green, blue."""

FRAME_SECONDS = 0.1
"""A frame of the film is shown for about so long, in real time where a control step is no longer than this, s."""
LAST_SECONDS = 1.5
"""How long the last frame stays, s."""
GAP = 6
"""Between two pictures, pixels."""
TITLE_SIZE, CAPTION_SIZE, LINE = 14, 13, 18
"""Height of letters and of a line of text, pixels."""
CAPTION_LINES = 3
"""What does not fit into so many lines is cut off."""
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
    tasks: Tasks,
    generator: torch.Generator,
    picture: Callable[[int], Picture],
    *,
    stride: int,
    captions: Sequence[str],
    new_trial: bool = True,
) -> list[Clip]:
    """Play one episode in every world and draw it.

    Args:
        env: the worlds.
        policy: acts in them.
        tasks: one task per world.
        generator: draws the starts and the policy's noise.
        picture: draws a world as it is now.
        stride: control steps from one picture to the next; 0 draws the start only.
        captions: what each world's clip shows.
        new_trial: whether the worlds get the tasks now; if not, their trial goes on (see
            `metarl.learning.rollout.collect`).
    """
    count = env.num_worlds
    with torch_threads(1):
        if new_trial:
            env.set_tasks(tasks)
        observation = env.reset(generator)
        memory = policy if isinstance(policy, MemoryPolicy) else None
        if memory is not None:
            memory.begin_episode()
        frames, returns = [[picture(world)] for world in range(count)], [[0.0] for _ in range(count)]
        total, playing = torch.zeros(count), torch.ones(count, dtype=torch.bool)
        for t in range(1, env.horizon + 1 if stride else 1):
            step = env.step(policy.act(observation, generator))
            observation = step.observation
            total += step.reward
            if not math.isfinite(float(total.sum())):
                raise WorldNotFiniteError(f"{env.family_name} gave a reward that is not finite, at step {t}")
            ended = step.terminated | step.truncated
            if memory is not None:
                memory.see(step.reward, ended)
            for world in (playing & (ended | (t % stride == 0))).nonzero().flatten().tolist():
                frames[world].append(picture(world))
                returns[world].append(float(total[world]))
            playing &= ~ended
            if not bool(playing.any()):
                break
    return [
        Clip(caption=captions[world], frames=tuple(frames[world]), returns=tuple(returns[world]))
        for world in range(count)
    ]


def stride_of(step_seconds: float) -> int:
    """Return how many control steps a frame of the film spans."""
    return max(1, round(FRAME_SECONDS / step_seconds))


def to_gif(clips: Sequence[Clip], title: str, columns: int) -> bytes:
    """Return clips side by side as an endless GIF; one that ends early keeps its last picture.

    Args:
        clips: at least one, all of the same size.
        title: of the whole film.
        columns: clips in a row.
    """
    length = max(len(clip.frames) for clip in clips)
    film = [compose(clips, title, columns, index) for index in range(length)]
    # One palette for all frames, from the middle of the film: with one each, colours flicker.
    palette = film[length // 2].quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    film = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in film]
    durations = [round(1000 * FRAME_SECONDS)] * (length - 1) + [round(1000 * LAST_SECONDS)]
    buffer = io.BytesIO()
    film[0].save(buffer, "GIF", save_all=True, append_images=film[1:], duration=durations, loop=0)
    return buffer.getvalue()


def save_gif(path: Path, clips: Sequence[Clip], title: str, columns: int) -> None:
    """Write clips as a GIF into a folder that is made where missing; arguments as in `to_gif`."""
    _write(path, to_gif(clips, title, columns))


def save_png(path: Path, clips: Sequence[Clip], title: str, columns: int) -> None:
    """Write the first pictures of clips side by side as a PNG; arguments as in `to_gif`."""
    buffer = io.BytesIO()
    compose(clips, title, columns, None).save(buffer, "PNG", optimize=True)
    _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, content)


def compose(clips: Sequence[Clip], title: str, columns: int, index: int | None) -> Image.Image:
    """Return one picture of all clips under their captions.

    Args:
        clips: at least one, all of the same size.
        title: stands above them.
        columns: clips in a row.
        index: which of their pictures, with the return so far; None for the first, without it.
    """
    height, width = clips[0].frames[0].shape[:2]
    small, large = ImageFont.load_default(CAPTION_SIZE), ImageFont.load_default(TITLE_SIZE)
    captions = [_wrap(clip.caption, small, width - 2 * GAP) for clip in clips]
    lines = max(map(len, captions)) + (index is not None)
    cell_width, cell_height = width + GAP, lines * LINE + 2 * GAP + height
    rows = -(-len(clips) // columns)
    top = LINE + 2 * GAP
    image = Image.new("RGB", (cell_width * min(columns, len(clips)) - GAP, top + rows * cell_height), PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.text((GAP, GAP), _shorten(title, large, image.width - 2 * GAP), fill=FAINT, font=large)
    for number, (clip, caption) in enumerate(zip(clips, captions, strict=True)):
        now = 0 if index is None else min(index, len(clip.frames) - 1)
        left, line = number % columns * cell_width, top + number // columns * cell_height
        bottom = line + cell_height - GAP - height
        for text in caption:
            canvas.text((left + GAP, line), text, fill=INK, font=small)
            line += LINE
        if index is not None:
            canvas.text((left + GAP, line), f"return so far {clip.returns[now]:.1f}", fill=FAINT, font=small)
        image.paste(Image.fromarray(clip.frames[now]), (left, bottom))
        canvas.rectangle((left, bottom, left + width - 1, bottom + height - 1), outline=RULE)
    return image


Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


def _wrap(text: str, font: Font, width: int) -> list[str]:
    """Return a text in lines of a width, broken after commas; the last one is shortened where it does not fit."""
    lines, rest = [""], text.split(", ")
    while rest and len(lines) <= CAPTION_LINES:
        longer = f"{lines[-1]}{rest[0]}{', ' if len(rest) > 1 else ''}"
        if not lines[-1] or font.getlength(longer) <= width or len(lines) == CAPTION_LINES:
            lines[-1] = longer
            rest.pop(0)
        else:
            lines.append("")
    return [_shorten(line.rstrip(), font, width) for line in lines]


def _shorten(text: str, font: Font, width: int) -> str:
    """Return a text that fits, its end cut off where it must be."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text.rstrip(', ')}…"
