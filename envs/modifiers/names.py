"""Modifiers: unknown dynamics, damage, or a task that changes, as a part of a family's name.

    NAME[@VARIANT]+MODIFIER[+MODIFIER...]

    half-cheetah-vel+mass+friction     ant-dir+damage     ant-goal@promp18+gravity     half-cheetah-vel+switch
    +mass=0.5..2        factors from 0.5 to 2 in training, in place of the default
    +mass=each          a factor for each body, in place of one for all; +mass=0.5..2,each gives both
    +damage=limb        a whole limb fails; =joint: a single actuator (see damage.py)
    +payload=0..2,torso a load of up to 2 kg on the torso
    +delay=0..2,action  actions come up to two control steps late
    +switch=50..150     the task changes between the steps 50 and 150 of a trial
    +horizon=500        episodes of 500 steps

So every command, run folder and checkpoint takes them without an option of its own. The modifiers of a family are kept
in one order and without what is default anyway, so that a family has one name. `horizon` comes first: it belongs to
the family itself and adds nothing to its tasks (`with_horizon` of horizon.py). `switch` comes last: whatever a task
consists of, dynamics and damage included, changes with it. What each of the others does stands in the file of its name
(for factors dynamics.py, for noise and bias sensors.py), how a family takes them in apply.py. Among themselves they
stand as they lie between the actuators and the agent: what comes last meets an action first and an observation last.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence

from metarl.envs.horizon import HORIZON
from metarl.envs.modifiers.damage import Damage
from metarl.envs.modifiers.delay import Delay
from metarl.envs.modifiers.dynamics import QUANTITIES, Factor
from metarl.envs.modifiers.gains import Gains
from metarl.envs.modifiers.payload import Payload
from metarl.envs.modifiers.push import Push
from metarl.envs.modifiers.sensors import Bias, Noise
from metarl.envs.modifiers.slope import Slope
from metarl.envs.modifiers.switching import Switch
from metarl.errors import UserError, nearest

Disturbing = Gains | Payload | Slope | Push | Bias | Noise | Delay
"""What makes a robot more like a real one; each has an `effect` on a family, `arguments`, and a
`shortest` form; `read` makes it of its text."""
Modifier = Factor | Damage | Disturbing | Switch
"""What may be added to a family; each has a `summary`, and adds parameters to the tasks."""

DISTURBING = {kind.word: kind for kind in (Gains, Payload, Slope, Push, Bias, Noise, Delay)}
MODIFIERS = (*QUANTITIES, "damage", *DISTURBING, "switch")
"""Every modifier, in the order of a family's name."""

WORDS = (*MODIFIERS, HORIZON.strip("+="))
"""All that may stand after a plus."""


MOST_DIGITS = 18
"""Of a horizon."""


def split_name(name: str) -> tuple[str, tuple[str, ...]]:
    """Return a family's name without its modifiers, and their texts."""
    base, *modifiers = name.split("+")
    return base, tuple(modifiers)


def take_horizon(texts: Sequence[str], name: str) -> tuple[int | None, tuple[str, ...]]:
    """Return the horizon that is among the texts of modifiers, if any, and the others.

    Args:
        texts: such as `("horizon=500", "mass")`.
        name: of the family, for the error.

    Raises:
        UserError: it is no number of steps, or there are two.
    """
    mark = HORIZON.strip("+")
    given = [text for text in texts if text == mark.rstrip("=") or text.startswith(mark)]
    rest = tuple(text for text in texts if text not in given)
    if not given:
        return None, rest
    steps = given[0].removeprefix(mark)
    right = steps.isascii() and steps.isdigit() and len(steps) <= MOST_DIGITS and int(steps) >= 1
    if len(given) > 1 or not right:
        raise UserError(f"got '{name}': give {HORIZON} once, with a whole number of steps from 1, such as {HORIZON}500")
    return int(steps), rest


def in_name(modifier: Modifier) -> str:
    """Return a modifier as it stands in a name, without the plus."""
    arguments: list[str] = []
    if isinstance(modifier, Disturbing):
        return modifier.word + modifier.arguments.text()
    if isinstance(modifier, Switch):
        ends = (modifier.earliest, modifier.latest)
    else:
        ends = (modifier.low, modifier.high) if isinstance(modifier, Factor) else (None, None)
    if ends[0] is not None and ends[1] is not None:
        # In a name a plus parts modifiers.
        arguments.append("..".join(repr(end).removesuffix(".0").replace("e+", "e") for end in ends))
    if isinstance(modifier, Factor | Damage) and modifier.per not in (None, "all"):
        arguments.append(str(modifier.per))
    return word_of(modifier) + (f"={','.join(arguments)}" if arguments else "")


def parse(text: str) -> Modifier:
    """Return the modifier of a text such as `mass=0.5..2`.

    Raises:
        UserError: there is no such modifier, or it takes no such arguments.
    """
    word, equals, given = text.partition("=")
    if word not in MODIFIERS:
        raise UserError(f"unknown modifier '+{word}'.{nearest(word, WORDS)}")
    if word in DISTURBING:
        return DISTURBING[word].read(text)
    arguments = given.split(",") if equals else []
    if word == "damage":
        if arguments in (["limb"], ["joint"]):
            return Damage(per="limb" if arguments == ["limb"] else "joint")
        if not arguments:
            return Damage()
        raise UserError(f"got '+{text}': give +damage, +damage=limb or +damage=joint")
    each = word != "switch" and arguments[-1:] == ["each"]
    low, high = _ends(arguments[:-1] if each else arguments, text, word)
    if word != "switch":
        return Factor(quantity=word, low=low, high=high, per="each" if each else "all")
    if low is None or high is None:
        return Switch()
    if not (low.is_integer() and high.is_integer()):
        raise UserError(f"got '+{text}': give whole steps, such as +switch=50..150")
    return Switch(earliest=int(low), latest=int(high))


def _ends(arguments: Sequence[str], text: str, word: str) -> tuple[float | None, float | None]:
    """Return the two numbers of a range, or None for both where there is none."""
    if not arguments:
        return None, None
    low, dots, high = arguments[0].partition("..")
    with contextlib.suppress(ValueError):
        ends = float(low), float(high)
        if dots and len(arguments) == 1 and all(math.isfinite(end) for end in ends):
            return ends
    forms = f"or +{word}=50..150" if word == "switch" else f"+{word}=0.5..2, +{word}=each or +{word}=0.5..2,each"
    raise UserError(f"got '+{text}': give +{word}, {forms}")


def word_of(modifier: Modifier) -> str:
    """Return the modifier's name."""
    if isinstance(modifier, Factor):
        return modifier.quantity
    if isinstance(modifier, Disturbing):
        return modifier.word
    return "damage" if isinstance(modifier, Damage) else "switch"
