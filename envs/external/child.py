"""The worker process of an adapted environment: steps a group of Gymnasium environments for metarl.

It is run by path, `python child.py SOCKET MEMORY` (two inherited file descriptors; on Windows, which has no such thing,
`port:NUMBER` on this machine and the path of a file), by any Python from 3.8 on that has numpy and gymnasium. Neither
metarl nor torch is needed there, so an environment that needs other versions of anything runs in a virtual environment
of its own. That is why all of it is one file: beside it there is nothing that such a Python could import, not even its
neighbours, whose names would hide the user's modules. `metarl.envs.external.pool` is the other end, and shares
`Channel`.

Message format, version 6. Words go over the stream socket SOCKET, numbers stand in the memory MEMORY that both
processes map. A message is one byte, and after a `J` also the length of what follows (4 bytes, little endian) and so
many bytes of JSON, an object with a `type`:

| byte | from | meaning |
|---|---|---|
| `S` | metarl | take one step in every world whose `active` is 1 |
| `.` | worker | it is done: the arrays hold the result |
| `+` | worker | not done yet, but alive |
| `J` | both | an object |

| type | from | fields | answer |
|---|---|---|---|
| `hello` | metarl | version, worlds (how many), path, last (folders to \
import from, before all others and after), timeout; make, kwargs, vector, \
set_task, success_key (as in `GymnasiumFamily`), pictures (whether \
it will be asked to `draw`), carried {make or set_task: a callable by value, cloudpickle in \
base64, which its text then only describes} | `spaces` |
| `spaces` | worker | version, python, gymnasium, observation (a name for each number), pictures (which of these are \
pixels: first, shape, channels (axes), largest), action {low, high} or {choices} | |
| `memory` | metarl | size (bytes), first (the worker's first row), arrays {name: {dtype, shape, offset}} | `.` |
| `reset` | metarl | worlds (numbers within the worker), seeds, tasks (one record each) | `.` |
| `draw` | metarl | world | `picture` |
| `picture` | worker | height, width, pixels (rows of red, green, blue; base64) | |
| `loop` | metarl | steps: of every world, by random actions, with nothing sent | `looped` |
| `looped` | worker | seconds (without resets) | |
| `error` | worker | where, world, error (one line), place | the process ends |

The arrays, one row a world: observation [B, O], action [B, A] (where the space makes choices, the number of the
alternative of each, from 0), reward [B], all float64; active, terminated, truncated and success [B], uint8.

A worker closes its environments and ends when the socket is closed: metarl has gone, or wants it to. It ends too when
one call of the environment takes longer than `timeout` seconds, after printing where it stands to stderr. There is no
autoreset: an episode begins at a `reset`.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Python puts the folder of a script first, where our modules would hide the user's of the same name.
    _here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _here]  # noqa: PTH100

import base64
import contextlib
import ctypes.util
import faulthandler
import importlib
import importlib.util
import inspect
import json
import mmap
import pickle
import platform
import select
import signal
import socket
import struct
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

VERSION = 6
"""Of the message format; both ends must have the same."""
STEP, DONE, BUSY, OBJECT = b"S", b".", b"+", b"J"

FOLDERS: list[str] = []
"""Of the files that `import_source` has imported."""
AVOIDED: set[str] = set()
"""Folders from which a run's files may not import, though they are the present one: `metarl.run.admission`."""
IMPORTING: list[Path] = []
"""Of those that it is importing now, the innermost last: what a relative path in a file starts from."""

LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}
"""Value of $MUJOCO_GL -> system library that draws without a screen, the preferred first."""
LARGEST_PICTURE = 4096
"""Width and height of a picture, pixels."""

FLAT = "Box, Discrete, MultiBinary, MultiDiscrete, and Dict or Tuple of those"
FARTHEST_BOUND = 1e30
"""Of a number of an action; numbers that are scaled to farther ones cannot be told apart."""
MOST_ALTERNATIVES = 256
"""Of each number of a Box of integers that is an action."""
SMALLEST_PICTURE = 8
"""Pixels of either side; a smaller array is a row of numbers."""
MOST_CHANNELS = 16
"""Of a picture with one axis of channels."""
MOST_OBSERVED, MOST_ACTIONS = 1 << 24, 1 << 16
"""Numbers of an observation; numbers and alternatives of an action. Networks have a weight for each and every unit."""


class Unfit(Exception):
    """What the user gave does not fit; the text says all there is to say."""


class Channel:
    """One end of the socket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, message: bytes | dict[str, Any]) -> None:
        """Send one of the single bytes, or an object."""
        if isinstance(message, dict):
            text = json.dumps(message).encode()
            message = OBJECT + struct.pack("<I", len(text)) + text
        self.connection.sendall(message)

    def receive(self) -> bytes | dict[str, Any]:
        """Return the next message.

        Raises:
            EOFError: the other end has gone.
        """
        kind = self._exactly(1)
        if kind != OBJECT:
            return kind
        return json.loads(self._exactly(struct.unpack("<I", self._exactly(4))[0]))

    def _exactly(self, count: int) -> bytes:
        data = self.connection.recv(count)
        while len(data) < count:
            more = self.connection.recv(count - len(data))
            if not more:
                raise EOFError("the other end of the socket is closed")
            data += more
        return data


def _number(reward: Any) -> float:
    """Return a reward as a float, or say what is wrong with it."""
    array = np.asarray(reward)
    if array.dtype.kind not in "biuf" or array.size != 1:
        raise Unfit(f"step returned the reward {reward!r}: return one number")
    return float(array.item())


def told(what: str, value: Any, worlds: Any) -> Any:
    """Return whether something is so, or say what is wrong with it.

    Args:
        what: first words of an error.
        value: true or false: of one world, or of each.
        worlds: which of them are looked at: 1, or 1 and 0 of each.
    """
    if value is True or value is False:
        return value
    # Of one world, most often a float: a look at an array takes thirty times as long.
    if type(worlds) is int and isinstance(value, (float, int, np.bool_)) and value in (0, 1):
        return value == 1
    found = np.asarray(value)
    fits = found.size == np.size(worlds) and found.dtype.kind in "biuf"
    if not fits or not np.isin(found.ravel()[np.ravel(worlds) != 0], (0, 1)).all():
        raise Unfit(f"{what}={_quoted(value)}: give True or False, or 1 or 0, of a world")
    return found.ravel() != 0


def import_source(source: str) -> Any:
    """Return the module called `package.module`, or the one in the file `path/name.py` (once, as `name`)."""
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source).resolve()
    known = sys.modules.get(path.stem)
    if known is not None:
        if Path(getattr(known, "__file__", None) or "").resolve() != path:
            raise Unfit(f"got {path}, but another module is called {path.stem} here: give the file another name")
        return known
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Unfit(f"there is no file {path}: correct the path")
    module = importlib.util.module_from_spec(spec)
    # As for a script: its neighbours can be imported.
    FOLDERS.append(str(path.parent))
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    sys.modules[path.stem] = module
    IMPORTING.append(path.parent)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    finally:
        IMPORTING.pop()
    return module


def names_python(reference: str) -> bool:
    """Tell `module:name` and `file.py:name` from a Gymnasium id, which may have a module too: `module:Id-v0`."""
    _, colon, name = reference.rpartition(":")
    return bool(colon) and all(part.isidentifier() for part in name.split("."))


def resolve(reference: str) -> Any:
    """Return what `module:name` or `path/file.py:name` names."""
    source, _, name = reference.rpartition(":")
    found = import_source(source)
    for part in name.split("."):
        if not hasattr(found, part):
            raise Unfit(f"{source} has no '{name}': correct '{reference}'")
        found = getattr(found, part)
    return found


def callable_of(hello: dict[str, Any], field: str) -> Any:
    """Return the callable that a field names, or that came by value; None if it is neither."""
    content = hello["carried"].get(field)
    if content is not None:
        return pickle.loads(base64.b64decode(content))
    return resolve(hello[field]) if names_python(hello[field]) else None


def off_screen() -> list[str]:
    """Return what MuJoCo can draw with without a screen, the preferred first."""
    return [name for name, library in LIBRARIES.items() if ctypes.util.find_library(library)]


def arguments(hello: dict[str, Any], build: Any) -> dict[str, Any]:
    """Return what an environment is made with: its `kwargs`, and `render_mode` where it is to draw and can be told."""
    kwargs = dict(hello["kwargs"])
    if not hello["pictures"] or "render_mode" in kwargs:
        return kwargs
    try:
        known = inspect.signature(build).parameters.values()
    # What is not written in Python may have none.
    except (TypeError, ValueError):
        return kwargs
    if any(one.name == "render_mode" or one.kind is inspect.Parameter.VAR_KEYWORD for one in known):
        kwargs["render_mode"] = "rgb_array"
    return kwargs


def leaves(space: spaces.Space, name: str) -> Iterator[tuple[str, spaces.Space]]:
    """Yield what Dict and Tuple spaces are made of, with its name, in the order of the flattened numbers."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, f"{name}.{key}")
    elif isinstance(space, spaces.Tuple):
        for i, part in enumerate(space.spaces):
            yield from leaves(part, f"{name}.{i}")
    else:
        yield name, space


def values(space: spaces.Space, observation: Any, name: str = "observation") -> Iterator[Any]:
    """Yield an observation's values of the `leaves` of its space; refuse one that has other parts."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            if not hasattr(observation, "keys") or key not in observation:
                raise Unfit(f"{name} has no part {key!r}, which its space has: got {_quoted(observation)}")
            yield from values(part, observation[key], f"{name}.{key}")
    elif isinstance(space, spaces.Tuple):
        if not isinstance(observation, (tuple, list)) or len(observation) != len(space.spaces):
            raise Unfit(f"{name} is {_quoted(observation)} where its space has {len(space.spaces)} parts")
        for i, part in enumerate(space.spaces):
            yield from values(part, observation[i], f"{name}.{i}")
    else:
        yield observation


def check_leaf(name: str, leaf: spaces.Space, value: Any) -> None:
    """Refuse a value that would be taken for another one: of another shape, or no alternative of its space.

    Numbers beyond the bounds of a Box are let through, as Gymnasium does.
    """
    found, shape = np.asarray(value), leaf.shape or ()
    if found.shape != shape and not found.size == np.prod(shape) == 1:
        raise Unfit(f"{name} has the shape {found.shape} where its space has {shape}: correct one of them")
    count: Any = 2
    if isinstance(leaf, spaces.Box):
        if found.dtype.kind not in "biuf":
            raise Unfit(f"{name} is {_quoted(value)}, and real numbers are needed: make it an array of numbers")
        return
    if isinstance(leaf, spaces.MultiDiscrete):
        count = leaf.nvec
    elif isinstance(leaf, spaces.Discrete):
        count = leaf.n
    least = getattr(leaf, "start", 0)
    if found.dtype.kind not in "biu" or not ((found >= least) & (found < least + count)).all():
        raise Unfit(f"{name} is {_quoted(value)}, which is not in its space {leaf}: correct one of them")


def check_size(name: str, leaf: spaces.Space, size: int, most: int) -> None:
    """Refuse a part of a space whose numbers, or alternatives, would not fit in any memory."""
    if size > most:
        raise Unfit(
            f"{name} has {size:,} numbers or alternatives, in the space {_quoted(leaf)}, and there is room for "
            f"{most:,}: make it smaller in a wrapper"
        )


def _quoted(value: Any) -> str:
    """Return what a value looks like, in a line."""
    return " ".join(repr(value).split())[:80]


def is_flat(space: spaces.Space) -> bool:
    """Return whether a space is one that becomes a row of numbers."""
    allowed = (spaces.Box, spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete)
    return all(isinstance(leaf, allowed) for _, leaf in leaves(space, ""))


def labels(space: spaces.Space) -> list[str]:
    """Return a name for every number of a flattened observation."""
    found = []
    for name, leaf in leaves(space, "observation"):
        if not is_flat(leaf):
            raise Unfit(
                f"got {name} in the space {type(leaf).__name__}: allowed are {FLAT}. {_without(space)}turn it into "
                "numbers with gymnasium.wrappers.TransformObservation"
            )
        size = spaces.flatdim(leaf)
        check_size(name, leaf, size, MOST_OBSERVED - len(found))
        found += [name] if size == 1 else [f"{name}[{i}]" for i in range(size)]
    return found


def _without(space: spaces.Space) -> str:
    """Return how to leave out the parts of a space that are no numbers, where that can be done."""
    parts = dict(enumerate(space.spaces)) if isinstance(space, spaces.Tuple) else getattr(space, "spaces", {})
    kept = [key for key, part in parts.items() if is_flat(part)]
    return f"Leave it out, gymnasium.wrappers.FilterObservation(env, {kept!r}), or " if kept else "Or else "


def picture(space: spaces.Space) -> dict[str, Any] | None:
    """Return shape, axes of channels and largest value of a Box that is a picture, None where it is none.

    Pixels go from 0 to one largest value: any of unsigned bytes, 1 or 255 of other types. Height and width have at
    least 8 pixels. The channels are the smallest axis, behind or before them, at most 16; or there are none; or two, a
    stack of pictures before and up to 4 channels behind.
    """
    if not isinstance(space, spaces.Box) or space.low.size == 0:
        return None
    largest, shape = float(space.high.flat[0]), list(space.low.shape)
    if (space.low != 0).any() or (space.high != largest).any() or not 0.0 < largest < np.inf:
        return None
    if space.dtype != np.uint8 and largest not in (1.0, 255.0):
        return None
    channels = []
    if len(shape) == 3:
        channels = [int(np.argmin(shape))]
        sides = [size for axis, size in enumerate(shape) if axis not in channels]
        fits = channels != [1] and MOST_CHANNELS >= min(shape) < min(sides)
    elif len(shape) == 4:
        channels, sides = [0, 3], shape[1:3]
        fits = shape[0] <= MOST_CHANNELS and shape[3] <= 4
    else:
        sides, fits = shape, len(shape) == 2
    if not fits or min(sides) < SMALLEST_PICTURE:
        return None
    return {"shape": shape, "channels": channels, "largest": largest}


def find_pictures(space: spaces.Space) -> list[dict[str, Any]]:
    """Return where the pictures of a flattened observation are."""
    found, first = [], 0
    for _, leaf in leaves(space, "observation"):
        its = picture(leaf)
        if its is not None:
            found.append({"first": first, **its})
        first += spaces.flatdim(leaf)
    return found


def alternatives(space: spaces.Space) -> list[int]:
    """Return how many alternatives every choice of an action has; of a Box of integers each number is a choice."""
    if isinstance(space, spaces.Discrete):
        return [int(space.n)]
    if isinstance(space, spaces.MultiDiscrete):
        return [int(n) for n in np.ravel(space.nvec)]
    if isinstance(space, spaces.MultiBinary):
        return [2] * int(np.prod(space.shape))
    if isinstance(space, spaces.Box) and np.issubdtype(space.dtype, np.integer):
        counts = [int(high) - int(low) + 1 for low, high in zip(space.low.flat, space.high.flat)]  # noqa: B905
        return counts if max(counts) <= MOST_ALTERNATIVES else []
    return []


def describe_actions(space: spaces.Space, env: Any) -> dict[str, Any]:
    """Return the bounds of the numbers of an action, or how many alternatives its choices have."""
    low: list[float] = []
    high: list[float] = []
    choices: list[int] = []
    for name, leaf in leaves(space, "action"):
        check_size(name, leaf, int(np.prod(leaf.shape or ())), MOST_ACTIONS - len(low) - sum(choices))
        found = alternatives(leaf)
        check_size(name, leaf, sum(found), MOST_ACTIONS - len(low) - sum(choices))
        choices += found
        if found:
            continue
        if not isinstance(leaf, spaces.Box) or leaf.dtype == np.bool_:
            raise Unfit(f"got {name} in the space {leaf}: allowed are {FLAT}. Write a gymnasium.ActionWrapper with one")
        near = (np.abs([leaf.low, leaf.high]) < FARTHEST_BOUND).all()
        if np.issubdtype(leaf.dtype, np.integer) or not near:
            raise Unfit(f"got {name} in the space {_short(leaf)}{_cure(space, leaf, env)}")
        low += leaf.low.ravel().tolist()
        high += leaf.high.ravel().tolist()
    if choices and low:
        raise Unfit(
            f"got the action space {space}, which has choices and numbers: allowed are all choices, or all numbers. "
            "Write a gymnasium.ActionWrapper whose action_space is a MultiDiscrete or a Box, and turns it into these"
        )
    return {"choices": choices} if choices else {"low": low, "high": high}


def _short(space: spaces.Box) -> str:
    """Return a Box in few words."""
    return f"Box({space.low.min()}, {space.high.max()}, {space.shape}, {space.dtype})"


def _cure(space: spaces.Space, leaf: spaces.Box, env: Any) -> str:
    """Return what is wrong with the numbers of an action, and what to do."""
    integers = np.issubdtype(leaf.dtype, np.integer)
    says = (
        f", a Box of integers with more than {MOST_ALTERNATIVES} alternatives"
        if integers
        else f" without bounds, or with farther ones than {FARTHEST_BOUND:g}"
    )
    outer = env
    while outer is not None and not integers:
        if type(outer).__name__ == "ClipAction":
            module = type(outer).__module__
            return (
                f": its bounds are infinite because of {module.rpartition('.')[0]}.ClipAction. Leave ClipAction out: "
                "actions are clipped to the environment's own bounds"
            )
        outer = getattr(outer, "env", None)
    if leaf is not space:
        return f"{says}. Give that part finite bounds and floats in a gymnasium.ActionWrapper"
    finite = [float(x) for x in (leaf.low.max(), leaf.high.min())]
    low = finite[0] if abs(finite[0]) < 1e6 else -1.0
    high = finite[1] if abs(finite[1]) < 1e6 else max(1.0, low + 1.0)
    change = f"lambda action: action.round().astype('{leaf.dtype}')" if integers else "lambda action: action"
    kind, name = ("vector.", "single_action_space=") if isinstance(env, gymnasium.vector.VectorEnv) else ("", "")
    box = f"gymnasium.spaces.Box({low}, {high}, {leaf.shape})"
    return f"{says}. Give it some that suit: gymnasium.wrappers.{kind}TransformAction(env, {change}, {name}{box})"


def action_of(space: spaces.Space, numbers: np.ndarray) -> Any:
    """Return an action of a space; of several worlds, where the numbers have an axis of worlds before the last one."""
    lead = numbers.shape[:-1]
    if isinstance(space, spaces.Box) and space.dtype is not None and space.dtype.kind == "f":
        return numbers.reshape(lead + space.shape).astype(space.dtype)
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        items = list(space.spaces.items()) if isinstance(space, spaces.Dict) else list(enumerate(space.spaces))
        made, first = {}, 0
        for key, part in items:
            size = width(part)
            made[key] = action_of(part, numbers[..., first : first + size])
            first += size
        return made if isinstance(space, spaces.Dict) else tuple(made.values())
    if isinstance(space, spaces.Discrete):
        chosen = numbers[..., 0].astype(np.int64) + int(getattr(space, "start", 0))
        return chosen if lead else int(chosen)
    shaped = numbers.reshape((*lead, *(space.shape or ())))
    if isinstance(space, spaces.MultiDiscrete):
        shaped = shaped + getattr(space, "start", 0)
    elif np.issubdtype(space.dtype, np.integer) and isinstance(space, spaces.Box):
        shaped = shaped + space.low
    return shaped.astype(space.dtype)


def width(space: spaces.Space) -> int:
    """Return how many numbers an action of a space takes."""
    return sum(
        1 if isinstance(leaf, spaces.Discrete) else int(np.prod(leaf.shape or ())) for _, leaf in leaves(space, "")
    )


class Watch:
    """Ends the process if one call of the environment takes too long, and says when it only has much to do.

    Attributes:
        doing: the present call, and the world (None: all of this worker's); for an error's text.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.doing: tuple[str, int | None] = ("start", None)
        self.due = 0.0
        self.parent = os.getppid()

    def start(self, limit: float) -> None:
        """Set how long a call may take, in seconds."""
        self.every = min(1.0, limit / 4.0)
        # A call may begin when the clock has run for `every` seconds.
        self.limit = limit + self.every

    def call(self, name: str, world: int | None) -> None:
        """Note the next call of the environment."""
        self.doing = (name, world)
        self.beat()

    def beat(self, *, tell: bool = True) -> None:
        """Start the clock again, at most every so often."""
        now = time.monotonic()
        if now >= self.due:
            self.due = now + self.every
            faulthandler.dump_traceback_later(self.limit, exit=True)
            if tell:
                self.channel.send(BUSY)


class Group:
    """The worlds of one worker: what `Singles` and `Vectorised` share."""

    observation_space: spaces.Space
    action_space: spaces.Space
    # One row a world, shared with metarl.
    observation: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    active: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray

    def __init__(self, hello: dict[str, Any], watch: Watch) -> None:
        self.count: int = hello["worlds"]
        self.success_key: str | None = hello["success_key"]
        self.watch = watch
        self.with_options = hello["set_task"] == "options"
        self.set_task = self._task_setter(hello)

    def _task_setter(self, hello: dict[str, Any]) -> Any:
        """Return a function of the environment and a task (all environments and their tasks, if vectorised)."""
        how = hello["set_task"]
        if how == "options":
            return None
        if how == "attributes":
            return set_attributes
        return callable_of(hello, "set_task") or (lambda env, task: method(env, how)(task))

    def spaces(self) -> dict[str, Any]:
        """Return the `spaces` message."""
        names, actions = labels(self.observation_space), describe_actions(self.action_space, self.outermost())
        self.size, self.pictures = len(names), find_pictures(self.observation_space)
        return {
            "type": "spaces",
            "version": VERSION,
            "python": platform.python_version(),
            "gymnasium": gymnasium.__version__,
            "observation": names,
            "pictures": self.pictures,
            "action": actions,
        }

    def attach(self, memory: str, message: dict[str, Any]) -> None:
        """Map the shared arrays; keep this worker's rows of them."""
        if memory.isdecimal():
            whole = mmap.mmap(int(memory), message["size"])
        else:
            with open(memory, "r+b") as file:  # noqa: PTH123
                whole = mmap.mmap(file.fileno(), message["size"])
        rows = slice(message["first"], message["first"] + self.count)
        for name, place in message["arrays"].items():
            flat = np.frombuffer(whole, place["dtype"], int(np.prod(place["shape"])), place["offset"])
            setattr(self, name, flat.reshape(place["shape"])[rows])

    def parts(self, observation: Any) -> Iterator[tuple[str, spaces.Space, Any]]:
        """Yield name, space and value of what an observation is made of."""
        space = self.observation_space
        for (name, leaf), value in zip(leaves(space, "observation"), values(space, observation)):  # noqa: B905
            yield name, leaf, value

    def flat(self, observation: Any) -> np.ndarray:
        """Return an observation as one row of numbers."""
        space = self.observation_space
        # What nearly all are: no more has to be looked at.
        real = isinstance(observation, np.ndarray) and observation.dtype.kind == "f"
        if real and isinstance(space, spaces.Box) and observation.shape == space.shape:
            return observation.reshape(-1)
        for name, leaf, value in self.parts(observation):
            check_leaf(name, leaf, value)
        if isinstance(space, spaces.Box):
            return np.asarray(observation, dtype=np.float64).reshape(-1)
        return np.asarray(spaces.flatten(space, observation), dtype=np.float64)

    def outermost(self) -> Any:
        """Return an environment, in its wrappers."""
        raise NotImplementedError

    def frame(self, world: int) -> Any:
        """Return what an environment draws."""
        raise NotImplementedError

    def loop(self, steps: int) -> dict[str, Any]:
        """Step the environments as a bare loop would."""
        raise Unfit("a vector environment steps its worlds itself: there is no bare loop to compare it with")

    def draw(self, world: int) -> dict[str, Any]:
        """Return the `picture` message of a world."""
        try:
            frame = self.frame(world)
        # Of gymnasium.Env: the environment has no render of its own.
        except NotImplementedError:
            frame = None
        found = np.asarray(frame)
        fits = found.ndim == 3 and found.shape[2] == 3 and found.dtype == np.uint8
        if not fits or not 0 < min(found.shape) <= max(found.shape) <= LARGEST_PICTURE:
            raise Unfit(
                f"render returned {_quoted(frame)}: a picture is needed, an array of bytes [height, width, 3]. Let "
                "what makes the environment take render_mode='rgb_array', and render return such an array"
            )
        pixels = base64.b64encode(np.ascontiguousarray(found).tobytes()).decode()
        return {"type": "picture", "height": found.shape[0], "width": found.shape[1], "pixels": pixels}

    def check_pictures(self, observation: Any) -> None:
        """Refuse a first observation with pixels beyond what its space says."""
        if not self.pictures:
            return
        for name, leaf, value in self.parts(observation):
            its = picture(leaf)
            if its is None:
                continue
            pixels = np.asarray(value)
            lowest, largest = float(pixels.min()), float(pixels.max())
            if lowest < 0.0 or largest > its["largest"]:
                raise Unfit(
                    f"{name} has pixels from {lowest:g} to {largest:g} where its space goes from 0 to "
                    f"{its['largest']:g}: correct one of them"
                )

    def succeeded(self, info: dict[str, Any], worlds: Any) -> Any:
        """Return what the info says about success, of one world or of all; checked in those that are looked at."""
        if self.success_key not in info:
            raise Unfit(f"the info of a step has no '{self.success_key}', but {sorted(info)}: correct success_key")
        return told(f"the info of a step has {self.success_key}", info[self.success_key], worlds)


class Singles(Group):
    """Worlds that are environments of their own."""

    def __init__(self, hello: dict[str, Any], watch: Watch) -> None:
        super().__init__(hello, watch)
        self.envs: list[Any] = []
        self.begun: dict[int, tuple[int, dict[str, Any]]] = {}
        for world in range(self.count):
            watch.call("make", world)
            build = callable_of(hello, "make") or self._registered(hello["make"])
            env = build(**arguments(hello, build))
            if not isinstance(env, gymnasium.Env):
                raise Unfit(f"{hello['make']} returned {env!r}: a gymnasium.Env is needed")
            self.envs.append(env)
        self.observation_space, self.action_space = self.envs[0].observation_space, self.envs[0].action_space

    @staticmethod
    def _registered(name: str) -> Any:
        return lambda **kwargs: gymnasium.make(name, **kwargs)

    def reset(self, worlds: list[int], seeds: list[int], tasks: list[dict[str, Any]]) -> None:
        """Begin an episode of its task in each of the worlds."""
        for position, world in enumerate(worlds):
            observation = self.begin(world, seeds[position], tasks[position])
            self.observation[world] = self.flat(observation)
            self.check_pictures(observation)

    def begin(self, world: int, seed: int, task: dict[str, Any]) -> Any:
        """Begin an episode of a task in a world, and return its first observation."""
        env, self.begun[world] = self.envs[world], (seed, task)
        if self.with_options:
            self.watch.call("reset", world)
            return env.reset(seed=seed, options={"task": task})[0]
        self.watch.call("set_task", world)
        self.set_task(env, task)
        self.watch.call("reset", world)
        return env.reset(seed=seed)[0]

    def frame(self, world: int) -> Any:
        """Return what an environment draws."""
        self.watch.call("render", world)
        return self.envs[world].render()

    def outermost(self) -> Any:
        """Return the first environment."""
        return self.envs[0]

    def step(self) -> None:
        """Take one step in every active world."""
        for world in np.flatnonzero(self.active).tolist():
            action = action_of(self.action_space, self.action[world])
            self.watch.call("step", world)
            observation, reward, terminated, truncated, info = self.envs[world].step(action)
            self.observation[world] = self.flat(observation)
            self.reward[world] = _number(reward)
            self.terminated[world] = bool(told("step returned terminated", terminated, 1))
            self.truncated[world] = bool(told("step returned truncated", truncated, 1))
            if self.success_key is not None:
                self.success[world] = bool(self.succeeded(info, 1))

    def loop(self, steps: int) -> dict[str, Any]:
        """Step the environments as a bare loop would, and return the `looped` message."""
        actions = [self.action_space.sample() for _ in range(steps)]
        resets, started = 0.0, time.perf_counter()
        for action in actions:
            for world, env in enumerate(self.envs):
                self.watch.call("step", world)
                _, _, terminated, truncated, _ = env.step(action)
                if terminated or truncated:
                    ended = time.perf_counter()
                    self.begin(world, *self.begun[world])
                    resets += time.perf_counter() - ended
        return {"type": "looped", "seconds": time.perf_counter() - started - resets}

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()


class Vectorised(Group):
    """Worlds that are one vector environment. Its tasks and seeds come for all of them at once."""

    def __init__(self, hello: dict[str, Any], watch: Watch) -> None:
        super().__init__(hello, watch)
        watch.call("make", None)
        build = callable_of(hello, "make") or self._registered(hello["make"])
        self.envs = build(num_envs=self.count, **arguments(hello, build))
        if not isinstance(self.envs, gymnasium.vector.VectorEnv) or self.envs.num_envs != self.count:
            raise Unfit(f"{hello['make']} returned {self.envs!r}: a VectorEnv of {self.count} worlds is needed")
        mode = self.envs.metadata.get("autoreset_mode")
        # An enumeration since Gymnasium 1.1.
        self.mode = str(getattr(mode, "value", mode))
        if self.mode not in ("Disabled", "NextStep"):
            raise Unfit(
                f"got the autoreset_mode {self.mode}, which hides how an episode ended: make the vector environment "
                "with autoreset_mode='Disabled' or 'NextStep'"
            )
        self.observation_space = self.envs.single_observation_space
        self.action_space = self.envs.single_action_space
        self.tasks: list[dict[str, Any]] = [{}] * self.count
        self.ended = np.zeros(self.count, dtype=np.bool_)

    @staticmethod
    def _registered(name: str) -> Any:
        return lambda num_envs, **kwargs: gymnasium.make_vec(name, num_envs=num_envs, **kwargs)

    def reset(self, worlds: list[int], seeds: list[int], tasks: list[dict[str, Any]]) -> None:
        """Begin an episode of its task in each of the worlds."""
        for position, world in enumerate(worlds):
            self.tasks[world] = tasks[position]
        mask = np.zeros(self.count, dtype=np.bool_)
        mask[worlds] = True
        observations = self._begin(mask, seeds[0])
        for world in worlds:
            self.observation[world] = observations[world]

    def _begin(self, mask: np.ndarray, seed: int | None) -> np.ndarray:
        options: dict[str, Any] = {} if mask.all() else {"reset_mask": mask}
        if self.with_options:
            options["tasks"] = self.tasks
        else:
            self.watch.call("set_task", None)
            self.set_task(self.envs, self.tasks)
        self.watch.call("reset", None)
        observations, _ = self.envs.reset(seed=seed, options=options or None)
        self.ended &= ~mask
        rows = self._rows(observations)
        if self.pictures:
            for observation in gymnasium.vector.utils.iterate(self.envs.observation_space, observations):
                self.check_pictures(observation)
        return rows

    def frame(self, world: int) -> Any:
        """Return what one of the environments draws."""
        self.watch.call("render", world)
        frames = self.envs.render()
        return frames if frames is None else frames[world]

    def outermost(self) -> Any:
        """Return the vector environment."""
        return self.envs

    def _rows(self, observations: Any) -> np.ndarray:
        if isinstance(self.observation_space, spaces.Box):
            found = np.asarray(observations)
            if found.shape[:1] != (self.count,):
                raise Unfit(f"got observations of the shape {found.shape} of {self.count} worlds: give one of each")
            check_leaf("observation", self.observation_space, found[0])
            return found.astype(np.float64).reshape(self.count, self.size)
        each = gymnasium.vector.utils.iterate(self.envs.observation_space, observations)
        return np.stack([self.flat(observation) for observation in each])

    def step(self) -> None:
        """Take one step in every world; those that are not active do something that nobody looks at."""
        if self.mode == "Disabled" and self.ended.any():
            self._begin(self.ended.copy(), None)
        actions = action_of(self.action_space, self.action)
        self.watch.call("step", None)
        observations, rewards, terminated, truncated, info = self.envs.step(actions)
        self.observation[:] = self._rows(observations)
        paid = np.asarray(rewards)
        if paid.dtype.kind not in "biuf" or paid.shape != (self.count,):
            raise Unfit(f"step returned the rewards {_quoted(rewards)}: return {self.count} numbers, one of each world")
        self.reward[:] = paid
        self.terminated[:] = told("step returned terminated", terminated, self.active)
        self.truncated[:] = told("step returned truncated", truncated, self.active)
        self.ended = (self.terminated | self.truncated) != 0
        if self.success_key is not None:
            self.success[:] = self.succeeded(info, self.active)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


def set_attributes(env: Any, task: dict[str, Any]) -> None:
    """Write a task's values to the environment's attributes of the same names."""
    inner = env.unwrapped
    for name, value in task.items():
        if not hasattr(inner, name):
            raise Unfit(f"{type(inner).__name__} has no attribute '{name}' to write the task to: correct the name")
        setattr(inner, name, np.array(value) if isinstance(value, list) else value)


def method(env: Any, name: str) -> Any:
    """Return a method of the environment, or of the one that its wrappers wrap."""
    owner = env
    while owner is not None:
        if hasattr(owner, name):
            return getattr(owner, name)
        owner = getattr(owner, "env", None)
    raise Unfit(f"{type(env.unwrapped).__name__} has no method '{name}' to set the task with: correct set_task")


def place_of(error: BaseException) -> str:
    """Return where an error was raised, for people to read."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if Path(frame.filename).resolve() != Path(__file__).resolve()]
    if not frames:
        return ""
    return f"{frames[-1].filename}, line {frames[-1].lineno}, in {frames[-1].name}"


def connection_to(place: str) -> socket.socket:
    """Return the socket that metarl has given this process, or waits at with a port of this machine."""
    if place.isdecimal():
        return socket.socket(fileno=int(place))
    connection = socket.create_connection(("127.0.0.1", int(place.partition(":")[2])))
    # Anybody on this machine could come to a port.
    connection.sendall(os.environ.pop("METARL_TOKEN").encode())
    return connection


def serve(channel: Channel, memory: str) -> None:
    """Answer until the other end closes."""
    watch = Watch(channel)
    try:
        hello = channel.receive()
        if not isinstance(hello, dict) or hello.get("version") != VERSION:
            theirs = hello.get("version") if isinstance(hello, dict) else hello
            raise Unfit(f"{__file__} speaks version {VERSION} of the message format, not {theirs}: use metarl's own")
        watch.start(hello["timeout"])
        watch.call("import", None)
        if hello["pictures"] and (found := off_screen()):
            # Read when mujoco is imported, which takes a window system's otherwise.
            os.environ.setdefault("MUJOCO_GL", found[0])
        sys.path[:0] = [folder for folder in hello["path"] if folder not in sys.path]
        sys.path += [folder for folder in hello["last"] if folder not in sys.path]
        worlds = Vectorised(hello, watch) if hello["vector"] else Singles(hello, watch)
        channel.send(worlds.spaces())
        while (message := next_message(channel, watch)) is not None:
            if message == STEP:
                worlds.step()
            elif isinstance(message, dict) and message["type"] == "reset":
                keep_warnings()
                worlds.reset(message["worlds"], message["seeds"], message["tasks"])
            elif isinstance(message, dict) and message["type"] == "draw":
                channel.send(worlds.draw(message["world"]))
                continue
            elif isinstance(message, dict) and message["type"] == "loop":
                channel.send(worlds.loop(message["steps"]))
                continue
            elif isinstance(message, dict) and message["type"] == "memory":
                worlds.attach(memory, message)
            else:
                raise Unfit(f"got the message {message!r}, which version {VERSION} of the message format does not have")
            channel.send(DONE)
        watch.call("close", None)
        worlds.close()
    # Nobody is left to be told.
    except ConnectionError:
        return
    # An environment may raise anything, sys.exit() included.
    except BaseException as error:
        traceback.print_exc()
        known = isinstance(error, Unfit)
        text = str(error) if known else traceback.format_exception_only(type(error), error)[-1].strip()
        where, world = watch.doing
        place = "" if known else place_of(error)
        with contextlib.suppress(ConnectionError):
            channel.send({"type": "error", "where": where, "world": world, "error": text, "place": place})


def keep_warnings() -> None:
    """Have MuJoCo's warnings printed, and not written to a file in the present folder, which is metarl's."""
    mujoco: Any = sys.modules.get("mujoco")
    if mujoco is not None and hasattr(mujoco, "get_mju_user_warning") and mujoco.get_mju_user_warning() is None:
        mujoco.set_mju_user_warning(lambda text: print(text, file=sys.stderr, flush=True))


def next_message(channel: Channel, watch: Watch) -> bytes | dict[str, Any] | None:
    """Wait for a message; None when there will be no more."""
    while not select.select([channel.connection], [], [], watch.every)[0]:
        watch.beat(tell=False)
        # The keeper has gone, or, where there is none, metarl; the socket may stay open in a process that was forked.
        if os.getppid() != watch.parent:
            return None
    try:
        return channel.receive()
    except EOFError:
        return None


if __name__ == "__main__":
    faulthandler.enable()
    # Ctrl-C is for metarl, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(Channel(connection_to(sys.argv[1])), sys.argv[2])
