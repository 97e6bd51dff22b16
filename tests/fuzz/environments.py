"""Environments and families of a user's that return, raise or do what they should not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.foreign import short
from tests.fuzz.stock import Stock
from tests.helpers.fuzzing import Case

Draw = Callable[[st.SearchStrategy[Any]], Any]

ENVIRONMENT = """\
import gymnasium, numpy as np, os, sys, threading, time
from gymnasium import spaces
nan, inf = float("nan"), float("inf")

class Own(gymnasium.Env):
    observation_space = {space}
    action_space = {actions}

    def __init__(self):
        self.time = 0
        {made}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        {before}
        return {start}

    def step(self, action):
        self.time += 1
        if self.time < 3:
            return np.zeros(2), 0.5, False, False, {{"success": False}}
        {inside}
        return {observation}, {reward}, {terminated}, {truncated}, {info}
"""
FAMILY = """\
from metarl.envs import GymnasiumFamily, register
from metarl.space import Parameter

goal = Parameter(name="goal", unit="m", description="where to go", scale="uniform", low=-1.0, high=1.0)
register(GymnasiumFamily(name="own", make="own_env:Own", parameters=(goal,), horizon=6, success_key="success"))
"""
OWN = """\
import sys
import torch
from metarl.envs import register
from metarl.envs.families.point_nav import PointNav
nan, inf = float("nan"), float("inf")
{top}

class Mine(PointNav):
    def observe(self, state, tasks):
        return {observation}

    def reward_terms(self, before, state, action, tasks):
        {inside}
        return {reward}

    def terminated(self, state, tasks):
        return {terminated}

register(Mine(name="own", variant="mine", horizon=7))
"""
USUAL = {
    "space": "spaces.Box(-9.0, 9.0, (2,), np.float64)", "actions": "spaces.Box(-1.0, 1.0, (2,))", "made": "pass",
    "before": "pass",
    "start": "np.zeros(2), {}", "inside": "pass", "observation": "np.zeros(2)", "reward": "1.0", "terminated": "False",
    "truncated": "False", "info": '{"success": True}',
}  # fmt: skip
STRANGE = {
    "space": ["None", "spaces.Box(-9.0, 9.0, (0,))", "spaces.Discrete(10**9)", "spaces.Box(nan, 1.0, (2,))",
              "spaces.Text(3)",
              "spaces.Box(-inf, inf, (2,))", "spaces.Box(0, 255, (10**5, 10**5), np.uint8)", "spaces.Dict({})", "7"],
    "actions": ["None", "spaces.Discrete(1)", "spaces.Discrete(10**9)", "spaces.Box(-inf, inf, (2,))",
                "spaces.Box(1.0, 1.0, (2,))",
                "spaces.MultiBinary(70)", "spaces.Text(3)", "spaces.Box(-1.0, 1.0, (0,))",
                "spaces.Box(-1.0, 1.0, (10**6,))"],
    "made": ["raise SystemExit(3)", "sys.exit()", "os._exit(4)", "raise KeyboardInterrupt", "raise BaseException('x')",
             "1 / 0",
             "print('x' * 10**6)", "os.close(1)", "raise MemoryError", "sys.setrecursionlimit(5)", "os.chdir('/')",
             "threading.Thread(target=time.sleep, args=(99,)).start()"],
    "before": ["raise StopIteration", "sys.exit('bye')", "raise ValueError('a\\nb\\x00')", "sys.stdout = None",
               "os.kill(os.getpid(), 9)"],
    "start": ["None", "np.zeros(2)", "(np.zeros(3), {})", "(np.zeros(2), None)", "(np.full(2, nan), {})",
              "(['a', 'b'], {})", "()",
              "(np.zeros(2) + 1j, {})", "(np.array([None, 1]), {})", "(1e400 * np.ones(2), {})"],
    "inside": ["raise SystemExit(0)", "sys.exit(2)", "os._exit(0)", "os.abort()", "raise GeneratorExit",
               "raise RecursionError",
               "raise UnicodeError('\\udc80')", "self.step(action)", "print('{', file=sys.stdout, flush=True)",
               "os.write(1, b'{}\\n' * 99)",
               "self.observation_space = None", "sys.stdin.read()"],
    "observation": ["None", "np.zeros(3)", "np.full(2, nan)", "np.array([inf, 0])", "np.zeros(2) + 1j", "'ab'",
                    "[0.0, 0.0]", "[0, [1]]",
                    "{}", "np.zeros((2, 1))", "np.array(['0', '1'])", "np.full(2, 1e300)", "np.full(2, 99.0)",
                    "object()", "lambda: 1"],
    "reward": ["nan", "inf", "-inf", "None", "'1.0'", "np.ones(1)", "np.ones(2)", "1j", "10**400", "[]", "True",
               "np.float16(2)", "1e308",
               "np.array(nan)", "np.datetime64('2020')", "object()"],
    "terminated": ["None", "nan", "'no'", "np.array([True, False])", "2", "np.bool_(True)", "[]", "object()"],
    "truncated": ["None", "nan", "'yes'", "np.array([])", "0.5", "1", "(True,)"],
    "info": ["None", "{'success': nan}", "{'success': 'no'}", "{'success': None}", "{'success': np.array([1, 0])}",
             "[]", "7",
             "{'success': 0.5}", "{'success': np.bool_(False)}", "{1: {2: object()}}", "{'success': 1}",
             "{'success': []}"],
}  # fmt: skip
"""Place in an environment -> what may stand there."""
RETURNED = ("start", "observation", "reward", "info")
"""Places where what is strange must be refused."""
FINE = {
    ("space", "spaces.Box(-inf, inf, (2,))"), ("made", "os.chdir('/')"), ("reward", "True"), ("made",
    "print('x' * 10**6)"),
    ("observation", "np.full(2, nan)"),
    ("observation", "np.array([inf, 0])"),
    ("terminated", "np.bool_(True)"), ("info", "{'success': np.bool_(False)}"), ("info", "{'success': 1}"),
    ("truncated", "1"),
    ("start", "(np.zeros(2), None)"), ("observation", "[0.0, 0.0]"), ("observation", "np.full(2, 99.0)"),
    ("reward", "np.ones(1)"), ("reward", "np.float16(2)"),
    ("observation", "np.full(2, 1e300)"), ("reward", "1e308"),
}  # fmt: skip
"""Of these, those that a user may well write, and that can mean one thing only; NaN, and what is too large for float32,
counts as a simulation that failed, which is told."""
MINE = {
    "top": ["sys.exit()", "raise SystemExit('x')", "raise BaseException", "1 / 0", "import no_such", "(",
            "class X(", "'\\ud800'.encode()", "raise MemoryError", "def f(): f()\nf()", "print('hello')"],
    "observation": ['state["position"]', "None", 'state["position"] * nan', 'state["position"][:, :1]',
                    'state["position"].long()', "7",
                    'state["position"].double()', 'state["position"] / 0', 'state["none"]'],
    "inside": ["pass", "raise SystemExit(0)", "raise GeneratorExit", "raise StopIteration", "1 / 0", "sys.exit('x')"],
    "reward": ['{"distance": -state["position"].norm(dim=1)}', '{"distance": state["position"][:, 0] * nan}', "{}",
               "None",
               '{"distance": state["position"][:, 0] / 0}', '{"distance": 1.0}', '{"distance": state["position"]}',
               '{1: 2}',
               '{"distance": torch.full((len(tasks),), 1e38)}',
               '{"distance": torch.zeros(len(tasks), dtype=torch.complex64)}',
               '{"distance": torch.zeros(len(tasks)).to_sparse()}', '{"no such/term x": torch.zeros(len(tasks))}'],
    "terminated": ["None", 'state["position"][:, 0] > 9', 'state["position"][:, 0]', "True", 'torch.tensor(True)',
                   "'no'"],
}  # fmt: skip
"""The same of a family that is written in torch; what is usual comes first."""


@st.composite
def environments(draw: Draw, stock: Stock) -> Case:
    """Return an environment, or a family in torch, with something strange in one place."""
    files, what, bad = draw(st.sampled_from([_environment, _environment, _family]))(draw)

    def lay(folder: Path) -> None:
        for name, text in files.items():
            (folder / name).write_text(text)

    size = ("--tasks", "2", "--episodes", "2", "--hidden", "4", "--iterations", "1", "--threads", "1", "--out", "made")
    arguments = ("train", "maml-trpo", "--family", "own.py:own", *size)
    return Case(
        what=what, arguments=arguments, lay=lay, bad=bad, writes=("made", "__pycache__"), keeps=("made", "__pycache__")
    )


def _environment(draw: Draw) -> tuple[dict[str, str], str, bool]:
    place = draw(st.sampled_from(sorted(STRANGE)))
    value = draw(st.sampled_from(STRANGE[place]))
    files = {"own_env.py": ENVIRONMENT.format(**{**USUAL, place: value}), "own.py": FAMILY}
    bad = place in RETURNED and (place, value) not in FINE
    return files, f"an environment, {place}: {short(value)}", bad


def _family(draw: Draw) -> tuple[dict[str, str], str, bool]:
    place = draw(st.sampled_from(sorted(MINE)))
    value = draw(st.sampled_from(MINE[place]))
    usual = {"top": "", "terminated": "None", **{name: MINE[name][0] for name in ("observation", "inside", "reward")}}
    return {"own.py": OWN.format(**{**usual, place: value})}, f"a family, {place}: {short(value)}", False
