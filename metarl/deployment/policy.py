"""Runs a policy that was exported by metarl. It needs NumPy alone (Python 3.9 or later), and stands by itself.

    from policy import Policy

    policy = Policy("policy/")
    reward = None                                   # nothing was done yet
    for episode in range(10):
        policy.reset()                              # an episode begins; what was learned of the task stays
        observation, over = robot.begin(), False
        while not over:
            action = policy.act(observation, reward)
            observation, reward, over = robot.move(action)
    policy.begin_task()                             # another robot or load: all that was learned is forgotten

A policy with a memory (rl2) adapts by that. One that takes gradient steps (maml-trpo, multitask) acts until some
episodes are over, and then learns from all of them, with the actions as it drew them (`raw_action`):

    policy.adapt([{"observations": [T, O], "actions": [T, A], "rewards": [T]}, ...])

One that is told its task (oracle) is told by `policy.begin_task({"velocity": 1.5})`.

Observations are in the order and units of manifest.json ("observation"), actions in physical units and within their
bounds ("action"); where they are choices, an action is the number of the one that is taken. What else the files of the
folder hold is told by the README of metarl/deployment. Errors are `PolicyError`, one line each.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np

FORMAT = 1
"""Of the folder; those of other formats are refused."""
WEIGHTS = "weights.safetensors"
FILES = {WEIGHTS, "policy.py", "model.onnx"}
"""Beside manifest.json and its sha256."""
AGAIN = "Copy the whole folder anew, or export it again."
LARGEST = float(np.finfo(np.float32).max)
KINDS = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
"""Numbers in weights.safetensors."""


class PolicyError(ValueError):
    """Says in one line what was got, what is allowed and what to do."""


class Policy:
    """A policy in one robot.

    Args:
        folder: what `metarl export` wrote.
        seed: of the noise of its actions.
        deterministic: take the mean, or the likeliest choice, in place of a drawn action. It was trained with drawn
            ones, and one that takes gradient steps learns nothing from others.
        on_bad_input: what `act` does where an observation or a reward is of the wrong size or not finite: `refuse`
            (PolicyError), or `hold`: return the last action again, as if this moment had not been.
        dtype: what is computed with: `float32`, as in training, or `float64`.

    Attributes:
        manifest: content of manifest.json.
        deterministic: as above; may be changed at any time.
        raw_action: the last action as it was drawn: where actions are numbers, in -1..1 of the bounds and beyond; else
            as `act` returned it. `adapt` needs these.
        output: means of the last action as it was drawn, [A], or logits; the next call of `act` writes into it.
        held: how many times in a row the last action was held.
        steps: gradient steps taken in this task.

    Raises:
        PolicyError: the folder is no policy, was cut or altered, or is of another format.
    """

    def __init__(self, folder, *, seed=0, deterministic=False, on_bad_input="refuse", dtype="float32"):
        if on_bad_input not in ("refuse", "hold"):
            raise PolicyError(f"Got on_bad_input={on_bad_input!r}. Give 'refuse' or 'hold'.")
        if dtype not in ("float32", "float64"):
            raise PolicyError(f"Got dtype={dtype!r}. Give 'float32' or 'float64'.")
        self.manifest, tensors = read_folder(folder)
        tensors = {name: array.astype(dtype) for name, array in tensors.items()}
        self.deterministic = deterministic
        self.generator = np.random.default_rng(seed)
        self._hold = on_bad_input == "hold"
        try:
            self._build(self.manifest, tensors, np.dtype(dtype))
            self._try()
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
            raise PolicyError(f"The manifest of {folder} does not fit its weights ({error!r}). {AGAIN}") from None
        self._knows_task = not self._told
        self._forget()

    def _build(self, manifest, tensors, dtype):
        """Make parts, layers and output."""
        network, self._adaptation = manifest["network"], manifest["adaptation"]
        self._inputs = _Inputs(network["inputs"], tensors, dtype)
        self._layers = [LAYERS[layer["kind"]](layer, tensors) for layer in network["layers"]]
        for layer in self._layers:
            layer.given = self._inputs.result
        self._output = (_Normal if manifest["action"]["kind"] == "continuous" else _Choices)(manifest, tensors, dtype)
        self._places = self._inputs.places
        self._remembers, self._told = "reward" in self._places, "task" in self._places
        self._initial = {name: value.copy() for name, value in self.parameters.items()}
        rates = self._adaptation["rates"] if self._adaptation else {}
        self._rates = {name: tensors[rate] if isinstance(rate, str) else rate for name, rate in rates.items()}

    # What is not finite is told.
    @np.errstate(all="ignore")
    def _try(self):
        """Compute an output, so that what does not fit is known before a robot moves."""
        values = self._inputs.shown()
        for layer in self._layers:
            layer.begin()
            values = layer.step(values)
        if values.shape != self._output.done.shape:
            raise ValueError(f"its output has the shape {values.shape}, and actions {self._output.done.shape}")
        if not _finite(values):
            raise ValueError("its output is not finite")

    # -- a task -------------------------------------------------------------------------------------------------------

    def begin_task(self, task=None):
        """Forget everything: from here on it is another task (robot, load, goal, floor).

        Args:
            task: for a policy that is told its task, a number or a list of numbers for each name of the manifest's
                "tasks", such as {"velocity": 1.5}; None for all others.

        Raises:
            PolicyError: a task that does not fit; the policy stays as it was.
        """
        if self._told:
            self._places["task"][...] = _told(self.manifest["tasks"], task)
            self._knows_task = True
        elif task is not None:
            raise PolicyError(f"Got the task {_shown(task)}, and this policy finds out by itself. Leave it out.")
        self._forget()

    def _forget(self):
        for layer in self._layers:
            layer.begin()
        self._put(self._initial)
        self.steps = self.held = 0
        self.raw_action = self.output = self._last = None
        self._episode_begins = self._missed_end = False

    def reset(self):
        """Let the next observation be the first of an episode. What was learned of the task stays."""
        self._episode_begins = True

    # -- acting -------------------------------------------------------------------------------------------------------

    def act(self, observation, reward=None, ended=None):
        """Return the action at an observation.

        Args:
            observation: numbers, [O], in the units of the manifest.
            reward: of the step before, which the last action led to; None or 0 before the first action of a task. Only
                policies with a memory need it; the last reward of an episode comes with the first observation of the
                next.
            ended: whether the step before was the last of its episode, so that this observation begins another one.
                None: whether `reset` was called.

        Returns:
            Numbers in physical units, float64 [A], within their bounds; or the number of a choice, an int; or several
            such numbers, [C].

        Raises:
            PolicyError: what was given does not fit, in size or in order (see `on_bad_input` of sizes and NaN).
        """
        if not self._knows_task:
            raise PolicyError("Got an observation before the task. Call begin_task with its numbers first.")
        first = self._last is None
        if self._remembers:
            ended = self._check_order(reward, ended)
        try:
            seen = _array(observation, self._places["observation"].shape, "an observation")
            met = 0.0 if first or not self._remembers else _number(reward, "a reward")
        except PolicyError:
            if not self._hold or first:
                raise
            self.held += 1
            self._missed_end = self._remembers and (ended or self._missed_end)
            return _copy(self._last)
        self._places["observation"][...] = seen
        if self._remembers:
            self._places["action"][...] = 0.0 if first else self._output.done
            self._places["reward"][0] = met
            self._places["ended"][0] = ended or self._missed_end
        values = self._inputs.shown()
        for layer in self._layers:
            values = layer.step(values)
        if not _finite(values):
            raise PolicyError("The policy's output is not finite: what it was shown is too large. Check the units.")
        self.output = values
        self.raw_action, self._last = self._output.draw(values, None if self.deterministic else self.generator)
        self._episode_begins = self._missed_end = False
        self.held = 0
        return _copy(self._last)

    def _check_order(self, reward, ended):
        """Return whether an episode ended with the step before, if what was given is possible."""
        if self._last is None:
            if ended or (reward is not None and np.any(np.asarray(reward) != 0)):
                raise PolicyError(
                    f"Got reward={reward!r}, ended={ended!r} before the first action of a task. Leave them out there."
                )
            return False
        if reward is None:
            raise PolicyError(
                "Got no reward, and this policy learns from it. Give that of the step before, also the "
                "last one of an episode; or call begin_task."
            )
        if self._episode_begins and ended is not None and not ended:
            raise PolicyError("Got ended=False after reset(). Leave it out, or do not call reset.")
        return self._episode_begins if ended is None else bool(ended)

    # -- adapting by gradients ----------------------------------------------------------------------------------------

    @property
    def parameters(self):
        """What gradient steps change, name in weights.safetensors -> array; inputs of model.onnx have these names."""
        if self._adaptation is None:
            return {}
        return {name: value for part in (*self._layers, self._output) for name, value in part.parameters.items()}

    # What is not finite is told.
    @np.errstate(over="ignore", invalid="ignore")
    def adapt(self, episodes):
        """Take one policy-gradient step on episodes that were played since the last one.

        The step is that of the training: an advantage estimate with a linear baseline fitted to these episodes.

        Args:
            episodes: at least one; how many there were in training is in the manifest ("adaptation"). Each is a dict of
                "observations" [T, O] before each step; "actions" [T, A], each `raw_action` (of choices [T] or [T, C]);
                "rewards" [T] after each step.

        Raises:
            PolicyError: what was given does not fit; the policy stays as it was.
        """
        if self._adaptation is None:
            how = "is the same in every task, and"
            if self._told or self._remembers:
                how = "is told its task and" if self._told else "adapts in its memory, while it acts, and"
            raise PolicyError(f"Got episodes to adapt to, and this policy {how} takes no gradient steps. Leave it out.")
        if not isinstance(episodes, (list, tuple)) or not episodes:
            raise PolicyError(f"Got {_shown(episodes)} to adapt to. Give a list of episodes, at least one.")
        batch = [self._episode(number, episode) for number, episode in enumerate(episodes)]
        advantages = _advantages([(seen, rewards) for seen, _, rewards in batch], self._adaptation)
        rows = np.concatenate([seen for seen, _, _ in batch]).astype(np.float64)
        actions = np.concatenate([taken for _, taken, _ in batch]).astype(np.float64)
        for layer in self._layers:
            rows = layer.forward(rows)
        # Of the loss -mean(log π(a|s) A).
        gradients, behind = self._output.gradients(rows, actions, -advantages / len(rows))
        for layer in reversed(self._layers):
            own, behind = layer.backward(behind)
            gradients.update(own)
        factor = 1.0 if self.steps == 0 else self._adaptation["later"]
        new = {
            name: (value - factor * self._rates[name] * gradients[name]).astype(value.dtype)
            for name, value in self.parameters.items()
        }
        if not all(np.isfinite(value).all() for value in new.values()):
            raise PolicyError("The gradient step is not finite, and was not taken. Check the rewards' size.")
        self._put(new)
        self.steps += 1

    def _put(self, values):
        """Take over parameters."""
        for name, value in self.parameters.items():
            value[...] = values[name]
        self._output.refresh()

    def _episode(self, number, episode):
        """Return what is shown of an episode's observations [T, O], its actions [T, A] and its rewards [T]."""
        wanted = {"observations", "actions", "rewards"}
        if not isinstance(episode, dict) or not wanted <= set(episode):
            raise PolicyError(
                f"Got {_shown(episode)} for episode {number}. Give a dict of {', '.join(sorted(wanted))}."
            )
        of = f" of episode {number}"
        observations = _array(episode["observations"], (None, len(self._places["observation"])), "observations" + of)
        actions = _array(episode["actions"], (None, *self._output.shape), "actions" + of)
        rewards = _array(episode["rewards"], (None,), "rewards" + of).astype(self._inputs.values.dtype)
        if not 1 <= len(rewards) == len(observations) == len(actions):
            raise PolicyError(
                f"Got {len(observations)} observations, {len(actions)} actions and {len(rewards)} rewards{of}. Give "
                "one of each a step, and at least one step."
            )
        return self._inputs.rows("observation", observations), self._output.rows(actions, of), rewards


# -- what goes in and what comes out ----------------------------------------------------------------------------------


class _Inputs:
    """What the network is given: parts side by side, each clip((value - mean) / divisor, -limit, limit).

    Attributes:
        places: where the values of each part are written, before they are scaled.
    """

    def __init__(self, parts, tensors, dtype):
        ends = np.cumsum([part["size"] for part in parts])
        self.slices = {part["of"]: slice(end - part["size"], end) for part, end in zip(parts, ends)}
        self.values, self.result, self.mean = (np.zeros(ends[-1], dtype) for _ in range(3))
        self.divisor, self.limit = np.ones(ends[-1], dtype), np.full(ends[-1], np.inf, dtype)
        for part in parts:
            place = self.slices[part["of"]]
            for own, into in ((part["mean"], self.mean), (part["divisor"], self.divisor)):
                if own:
                    # One number would be taken for all.
                    into[place] = tensors[own].reshape(part["size"])
            if part["limit"] is not None:
                self.limit[place] = part["limit"]
        self.least = -self.limit
        self.places = {name: self.values[place] for name, place in self.slices.items()}

    def shown(self):
        """Return all parts scaled, as a vector that the next call writes into again."""
        np.subtract(self.values, self.mean, out=self.result)
        np.divide(self.result, self.divisor, out=self.result)
        np.minimum(self.result, self.limit, out=self.result)
        return np.maximum(self.result, self.least, out=self.result)

    def rows(self, name, values):
        """Return rows of a part, scaled."""
        place = self.slices[name]
        scaled = (values - self.mean[place]) / self.divisor[place]
        return np.clip(scaled, self.least[place], self.limit[place])


class _Normal:
    """Independent normal distributions around the output; 1 and -1 are the bounds of the actions."""

    def __init__(self, manifest, tensors, dtype):
        components = manifest["action"]["components"]
        self.low = np.array([component["low"] for component in components], np.float64)
        self.high = np.array([component["high"] for component in components], np.float64)
        self.shape = (len(components),)
        distribution = manifest["network"]["distribution"]
        self.name, self.least = distribution["log_std"], distribution["least_log_std"]
        if self.least is None:
            self.least = -np.inf
        self.parameters = {self.name: tensors[self.name]}
        self.done = np.zeros(self.shape, dtype)
        self.refresh()
        if not (self.low < self.high).all() or not _finite(self.high - self.low):
            raise ValueError("bounds of actions are no bounds")
        if self.std.shape != self.shape or not _finite(self.std):
            raise ValueError(f"{self.name} is no deviation of actions")

    def refresh(self):
        """Compute the standard deviations anew."""
        with np.errstate(over="ignore"):
            self.std = np.exp(np.maximum(self.parameters[self.name], self.least))

    def draw(self, mean, generator):
        """Return the action as it is drawn, and what it is in physical units."""
        if generator is None:
            self.done = mean.copy()
        else:
            self.done = mean + self.std * generator.standard_normal(self.shape, mean.dtype)
        physical = self.low + (self.done.astype(np.float64) + 1.0) * 0.5 * (self.high - self.low)
        return self.done.copy(), np.minimum(np.maximum(physical, self.low), self.high)

    def rows(self, actions, of):
        """Return the actions of the steps, [T, A]."""
        return actions

    def gradients(self, mean, actions, weights):
        """Return the gradients of Σ weights log π(actions), of the parameters and of the output."""
        log_std = self.parameters[self.name].astype(np.float64)
        std = np.exp(np.maximum(log_std, self.least))
        standard = (actions - mean) / std
        # Below its least value it does not count.
        own = (weights @ (standard**2 - 1.0)) * (log_std >= self.least)
        return {self.name: own}, weights[:, None] * standard / std


class _Choices:
    """Choices side by side, each with the logits of its alternatives."""

    def __init__(self, manifest, tensors, dtype):
        self.parameters = {}
        counts = manifest["action"]["choices"]
        ends = np.cumsum(counts)
        self.parts = [slice(end - count, end) for count, end in zip(counts, ends)]
        self.shape = () if len(counts) == 1 else (len(counts),)
        self.done = np.zeros(ends[-1], dtype)

    def refresh(self):
        """Do nothing: there are no parameters."""

    def draw(self, logits, generator):
        """Return the numbers of the choices, twice: they are what is drawn and what is done."""
        if generator is not None:
            # Of exponential times with rates p, the first is that of each alternative with its probability p.
            logits = logits - np.log(generator.standard_exponential(logits.shape, logits.dtype))
        taken = np.array([np.argmax(logits[part]) for part in self.parts])
        self.done = np.zeros_like(self.done)
        for part, number in zip(self.parts, taken):
            self.done[part][number] = 1.0
        chosen = taken if self.shape else int(taken[0])
        return chosen, _copy(chosen)

    def rows(self, actions, of):
        """Return the choices of the steps one-hot, side by side, [T, A]."""
        numbers = actions.reshape(len(actions), -1)
        made = np.zeros((len(numbers), len(self.done)))
        for column, part in zip(numbers.T, self.parts):
            count = part.stop - part.start
            if not np.isin(column, np.arange(count)).all():
                raise PolicyError(f"Got actions{of} that are no choices. Give numbers from 0 to {count - 1}.")
            made[np.arange(len(numbers)), part.start + column.astype(int)] = 1.0
        return made

    def gradients(self, logits, actions, weights):
        """Return the gradients of Σ weights log π(actions), of the parameters and of the output."""
        behind = actions.copy()
        for part in self.parts:
            powers = np.exp(logits[:, part] - logits[:, part].max(1, keepdims=True))
            behind[:, part] -= powers / powers.sum(1, keepdims=True)
        return {}, weights[:, None] * behind


def _told(parameters, task):
    """Return what a policy is told of its task: every parameter scaled, side by side."""
    names = [parameter["name"] for parameter in parameters]
    if not isinstance(task, dict) or set(task) != set(names):
        raise PolicyError(f"Got the task {_shown(task)}. Give numbers for {', '.join(names)}.")
    told = []
    for parameter in parameters:
        name, scaled = parameter["name"], parameter["told"]
        try:
            value = np.asarray(task[name], dtype=np.float64)
        except (TypeError, ValueError):
            value = np.array(np.nan)
        if (
            value.shape != (() if parameter["numbers"] == 1 else (parameter["numbers"],))
            or not np.isfinite(value).all()
        ):
            raise PolicyError(
                f"Got {name}={_shown(task[name])} in the task. Give {parameter['numbers']} finite number(s)."
            )
        value = value.reshape(-1)
        if "one_of" in scaled:
            told.append(np.array(scaled["one_of"]) == value)
        else:
            if scaled["logarithm"] and not (value > 0.0).all():
                raise PolicyError(f"Got {name}={_shown(task[name])} in the task. It must be above 0.")
            told.append(((np.log(value) if scaled["logarithm"] else value) - scaled["shift"]) * scaled["factor"])
    return np.concatenate(told)


# -- layers -----------------------------------------------------------------------------------------------------------


class _Layer:
    """What layers have in common: a `step` with one moment; `forward` and `backward` of rows where gradients pass.

    Attributes:
        parameters: what gradient steps change, name -> float32 array.
        given: what the network is given at this moment.
    """

    def __init__(self, layer, tensors):
        self.own = {part: tensors[name] for part, name in layer["tensors"].items()}
        self.names = layer["tensors"]
        self.numbers = layer["numbers"]
        self.parameters = {name: tensors[name] for name in self.names.values()}
        self.given = np.empty(0)

    def begin(self):
        """Forget everything."""

    def _double(self, part):
        return self.own[part].astype(np.float64)


class _Linear(_Layer):
    def __init__(self, layer, tensors):
        super().__init__(layer, tensors)
        self.result = np.empty_like(self.own["bias"])

    def step(self, values):
        np.dot(self.own["weight"], values, out=self.result)
        self.result += self.own["bias"]
        return self.result

    def forward(self, rows):
        self.rows = rows
        return rows @ self._double("weight").T + self._double("bias")

    def backward(self, behind):
        own = {self.names["weight"]: behind.T @ self.rows, self.names["bias"]: behind.sum(0)}
        return own, behind @ self._double("weight")


class _LayerNorm(_Layer):
    def step(self, values):
        centred = values - np.add.reduce(values) / len(values)
        centred /= np.sqrt(np.dot(centred, centred) / len(centred) + self.numbers["epsilon"])
        centred *= self.own["weight"]
        centred += self.own["bias"]
        return centred

    def forward(self, rows):
        centred = rows - rows.mean(1, keepdims=True)
        self.size = np.sqrt((centred**2).mean(1, keepdims=True) + self.numbers["epsilon"])
        self.normal = centred / self.size
        return self.normal * self._double("weight") + self._double("bias")

    def backward(self, behind):
        own = {self.names["weight"]: (behind * self.normal).sum(0), self.names["bias"]: behind.sum(0)}
        scaled = behind * self._double("weight")
        along = (scaled * self.normal).mean(1, keepdims=True)
        return own, (scaled - scaled.mean(1, keepdims=True) - self.normal * along) / self.size


class _Relu(_Layer):
    def step(self, values):
        return np.maximum(values, 0.0, out=values)

    def forward(self, rows):
        self.slope = (rows > 0.0).astype(np.float64)
        return rows * self.slope

    def backward(self, behind):
        return {}, behind * self.slope


class _Tanh(_Layer):
    def step(self, values):
        return np.tanh(values, out=values)

    def forward(self, rows):
        self.result = np.tanh(rows)
        return self.result

    def backward(self, behind):
        return {}, behind * (1.0 - self.result**2)


class _Elu(_Layer):
    def step(self, values):
        return np.where(values > 0.0, values, np.expm1(np.minimum(values, 0.0)))

    def forward(self, rows):
        below = np.expm1(np.minimum(rows, 0.0))
        self.slope = below + 1.0
        return np.where(rows > 0.0, rows, below)

    def backward(self, behind):
        return {}, behind * self.slope


# As in training, which matters where a gate is near 1 and what it leaves is as large as rounding.


def _logistic(values):
    """Compute 1 / (1 + exp(-x)) in place."""
    # Larger ones would overflow, and come to the same.
    np.maximum(values, -80.0, out=values)
    np.negative(values, out=values)
    np.exp(values, out=values)
    values += 1.0
    return np.divide(1.0, values, out=values)


def _tanh(values):
    """Compute 2 / (1 + exp(-2x)) - 1 in place."""
    values += values
    _logistic(values)
    values += values
    values -= 1.0
    return values


class _Gru(_Layer):
    """Gates in the order reset, keep, new: h' = h + (keep - 1) (h - new), new = tanh(W x + b + reset (W' h + b'))."""

    def __init__(self, layer, tensors):
        super().__init__(layer, tensors)
        self.width = self.own["weight_hh"].shape[1]
        self.outer, self.inner = (np.empty_like(self.own["bias_hh"]) for _ in range(2))
        self.hidden, self.change = self.outer[: self.width].copy(), self.outer[: self.width].copy()

    def begin(self):
        self.hidden[:] = 0.0

    def step(self, values):
        np.dot(self.own["weight_ih"], values, out=self.outer)
        np.dot(self.own["weight_hh"], self.hidden, out=self.inner)
        self.outer += self.own["bias_ih"]
        self.inner += self.own["bias_hh"]
        both, new = self.outer[: 2 * self.width], self.outer[2 * self.width :]
        both += self.inner[: 2 * self.width]
        _logistic(both)
        reset, keep = both[: self.width], both[self.width :]
        reset *= self.inner[2 * self.width :]
        new += reset
        np.subtract(self.hidden, _tanh(new), out=self.change)
        keep -= 1.0
        self.change *= keep
        self.hidden += self.change
        # What comes next may write into it.
        return self.hidden.copy()


class _Lstm(_Layer):
    """Gates in the order admit, keep, new, show: c' = keep c + admit tanh(new), h' = show tanh(c')."""

    def __init__(self, layer, tensors):
        super().__init__(layer, tensors)
        self.width = self.own["weight_hh"].shape[1]
        self.bias = self.own["bias_ih"] + self.own["bias_hh"]
        self.gates, self.inner = (np.empty_like(self.bias) for _ in range(2))
        self.hidden, self.cell = self.bias[: self.width].copy(), self.bias[: self.width].copy()

    def begin(self):
        self.hidden[:] = 0.0
        self.cell[:] = 0.0

    def step(self, values):
        np.dot(self.own["weight_ih"], values, out=self.gates)
        np.dot(self.own["weight_hh"], self.hidden, out=self.inner)
        self.gates += self.bias
        self.gates += self.inner
        admit, keep, new, show = self.gates.reshape(4, -1)
        _logistic(self.gates[: 2 * self.width])
        self.cell *= keep
        admit *= _tanh(new)
        self.cell += admit
        np.multiply(_logistic(show), _tanh(self.cell.copy()), out=self.hidden)
        return self.hidden.copy()


class _Transformer(_Layer):
    """Causal attention over all moments of the task; a moment is embedded together with the one before it."""

    def __init__(self, layer, tensors):
        super().__init__(layer, tensors)
        own, (heads, context) = self.own, (self.numbers["heads"], self.numbers["context"])
        self.context, self.size = context, own["blocks.0.mix.weight"].shape[1] // heads
        self.room = [
            np.empty((2, heads, context, self.size), own["positions"].dtype) for _ in range(self.numbers["blocks"])
        ]
        self.before = np.zeros_like(own["embed.weight"][0, ::2])
        self.moments = 0
        self.norms = [
            [
                _LayerNorm(
                    {"tensors": {part: f"{name}.{part}" for part in ("weight", "bias")}, "numbers": self.numbers}, own
                )
                for name in (f"blocks.{block}.attention_norm", f"blocks.{block}.network_norm")
            ]
            for block in range(self.numbers["blocks"])
        ]

    def begin(self):
        self.moments = 0
        self.before[:] = 0.0

    def _linear(self, name, values):
        return self.own[f"{name}.weight"] @ values + self.own[f"{name}.bias"]

    def step(self, values):
        if self.moments >= self.context:
            raise PolicyError(
                f"This policy remembers {self.context} moments, those of the trials that it was trained on, and the "
                "task goes on. Call begin_task, or train it with more --episodes."
            )
        x = self._linear("embed", np.concatenate((values, self.before))) + self.own["positions"][self.moments]
        self.before[:] = values
        seen = self.moments + 1
        for block, (room, (first, second)) in enumerate(zip(self.room, self.norms)):
            name = f"blocks.{block}"
            mixed = self._linear(f"{name}.queries_keys_values", first.step(x)).reshape(3, -1, self.size)
            room[:, :, self.moments] = mixed[1:]
            keys, rest = room[:, :, :seen]
            scores = (keys @ mixed[0][:, :, None])[:, :, 0] * (1.0 / math.sqrt(self.size))
            scores = np.exp(scores - scores.max(1, keepdims=True))
            scores /= scores.sum(1, keepdims=True)
            x = x + self._linear(f"{name}.mix", (scores[:, None] @ rest).reshape(-1))
            inner = np.maximum(self._linear(f"{name}.first", second.step(x)), 0.0)
            x = x + self._linear(f"{name}.second", inner)
        self.moments = seen
        return x


class _Beside(_Layer):
    """The first numbers of what the network is given, and beside them what the layer before gave."""

    def step(self, values):
        return np.concatenate((self.given[: self.numbers["first"]], values))


LAYERS = {
    "linear": _Linear,
    "layer-norm": _LayerNorm,
    "relu": _Relu,
    "tanh": _Tanh,
    "elu": _Elu,
    "gru": _Gru,
    "lstm": _Lstm,
    "transformer": _Transformer,
    "beside": _Beside,
}
"""Layers by the kinds of manifest.json."""


# -- advantages -------------------------------------------------------------------------------------------------------


def _advantages(episodes, settings):
    """Return the advantage of every step of some episodes, standardised, [N].

    A_t = Σ_l (γλ)^l δ_{t+l}, δ_t = r_t + γ V_{t+1} - V_t, and nothing follows an episode's end; V is a linear baseline.

    Args:
        episodes: what is shown of the observations [T, O], and the rewards [T], of each.
        settings: the manifest's "adaptation".
    """
    discount, decay = settings["discount"], settings["discount"] * settings["trace"]
    returns = [_summed_ahead(rewards, discount) for _, rewards in episodes]
    values = _baseline([seen for seen, _ in episodes], np.concatenate(returns), settings["baseline"])
    advantages, at = [], 0
    for _, rewards in episodes:
        own = values[at : at + len(rewards)]
        at += len(rewards)
        following = np.append(own[1:], own[:1] * 0.0)
        advantages.append(_summed_ahead(rewards + discount * following - own, decay))
    centred = np.concatenate(advantages)
    centred = centred - centred.mean()
    deviation = np.sqrt((centred.astype(np.float64) ** 2).mean())
    # A deviation far below the size of the returns is rounding.
    size = np.sqrt((np.concatenate(returns).astype(np.float64) ** 2).mean())
    return centred.astype(np.float64) / max(deviation + settings["rounding"] * size, np.finfo(np.float32).tiny)


def _summed_ahead(values, factor):
    """Return y_t = x_t + factor y_{t+1}."""
    result, following = np.empty_like(values), values[0] * 0.0
    for t in range(len(values) - 1, -1, -1):
        following = values[t] + factor * following
        result[t] = following
    return result


def _baseline(seen, returns, settings):
    """Return the values of a ridge regression of the returns on (s, s², t, t², t³, 1), at the same steps."""
    rows = []
    for observations in seen:
        clipped = np.clip(observations.astype(np.float64), -settings["clip"], settings["clip"])
        time = np.arange(len(clipped))[:, None] / settings["time_scale"]
        rows.append(np.hstack((clipped, clipped**2, time, time**2, time**3, np.ones_like(time))))
    design = np.concatenate(rows)
    gram, moment = design.T @ design, design.T @ returns.astype(np.float64)
    ridge = settings["ridge"]
    for _ in range(settings["trials"]):
        try:
            lower = np.linalg.cholesky(gram + ridge * np.eye(len(gram)))
            return (design @ np.linalg.solve(lower.T, np.linalg.solve(lower, moment))).astype(returns.dtype)
        except np.linalg.LinAlgError:
            ridge *= 10.0
    raise PolicyError("The baseline of these episodes cannot be fitted. Check the size of observations and rewards.")


# -- files ------------------------------------------------------------------------------------------------------------


def read_folder(folder):
    """Return the manifest, and the arrays of weights.safetensors by name.

    Raises:
        PolicyError: the folder is no policy, was cut or altered, or is of another format.
    """
    folder = Path(folder)
    content = _file(folder, "manifest.json")
    if _file(folder, "manifest.sha256").split()[:1] != [hashlib.sha256(content).hexdigest().encode()]:
        raise PolicyError(f"{folder / 'manifest.json'} was altered or cut: its sha256 is another one. {AGAIN}")
    try:
        manifest = json.loads(content)
        found, files = manifest["format"], dict(manifest["files"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PolicyError(f"{folder / 'manifest.json'} is no policy's ({error!r}). {AGAIN}") from None
    if found != FORMAT:
        raise PolicyError(
            f"{folder} has format {_shown(found)}, this policy.py reads {FORMAT}. Use the one in that folder."
        )
    if not {WEIGHTS} <= set(files) <= FILES:
        raise PolicyError(f"{folder / 'manifest.json'} names the files {_shown(sorted(files))}. {AGAIN}")
    for name, stated in files.items():
        if hashlib.sha256(_file(folder, name)).hexdigest() != stated:
            raise PolicyError(f"{folder / name} was altered or cut: its sha256 is another one. {AGAIN}")
    return manifest, read_tensors(_file(folder, WEIGHTS), folder / WEIGHTS)


def _file(folder, name):
    try:
        # A pipe would be waited for.
        if (folder / name).exists() and not (folder / name).is_file():
            raise OSError("it is no regular file")
        return (folder / name).read_bytes()
    except OSError as error:
        reason = (
            "is missing" if isinstance(error, (FileNotFoundError, NotADirectoryError)) else f"cannot be read ({error})"
        )
        raise PolicyError(f"{folder} is no whole policy: {name} {reason}. {AGAIN}") from None


def read_tensors(content, where):
    """Return the arrays of a safetensors file by name, writable.

    Raises:
        PolicyError: it is damaged.
    """
    try:
        length = int.from_bytes(content[:8], "little")
        if not 8 + length <= len(content):
            raise ValueError("its header goes beyond its end")
        header = json.loads(content[8 : 8 + length])
        rest, arrays = memoryview(content)[8 + length :], {}
        for name, entry in header.items():
            if name != "__metadata__":
                begin, end = entry["data_offsets"]
                if not 0 <= begin <= end <= len(rest):
                    raise ValueError(f"{name} goes beyond its end")
                arrays[name] = np.frombuffer(rest[begin:end], KINDS[entry["dtype"]]).reshape(entry["shape"]).copy()
                if not _finite(arrays[name]):
                    raise ValueError(f"{name} is not finite")
        return arrays
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PolicyError(f"{where} is no safetensors file of this policy ({error}). {AGAIN}") from None


def _array(given, shape, what):
    """Return finite float32 numbers of a shape, in which None is any length."""
    try:
        found = np.asarray(given)
        if found.dtype != np.float32:
            with np.errstate(over="ignore"):
                found = found.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        raise PolicyError(f"Got {what} that is no array of numbers: {_shown(given)}.") from None
    # The first comparison is all that actions need.
    if found.shape != shape and (
        len(found.shape) != len(shape) or any(size not in (None, n) for size, n in zip(shape, found.shape))
    ):
        needed = " x ".join("steps" if size is None else str(size) for size in shape)
        raise PolicyError(f"Got {what} of the shape {found.shape}. Give {needed} numbers.")
    if not _finite(found):
        raise PolicyError(f"Got {what} that is not finite: {_shown(given)}. Leave it out, and check the sensors.")
    return found


def _number(given, what):
    """Return a single finite number."""
    try:
        value = float(given) if getattr(given, "ndim", 0) == 0 else math.nan
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not abs(value) <= LARGEST:
        raise PolicyError(f"Got {what} that is no single finite number: {_shown(given)}. Check where it comes from.")
    return value


def _finite(values):
    return bool(np.isfinite(values).all())


def _shown(given):
    """Return a value for an error text, shortened where it is long."""
    text = repr(given).replace("\n", " ")
    return text if len(text) <= 80 else text[:60] + "..." + text[-17:]


def _copy(action):
    """Return an action that its user may keep or write into."""
    return action if isinstance(action, int) else action.copy()
