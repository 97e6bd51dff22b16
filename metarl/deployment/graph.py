"""model.onnx: the network of an exported policy as a graph, whose memory is an input and an output.

The graph is made from the manifest and its arrays, as policy.py is, of few kinds of nodes, for B worlds at once:

    inputs    observation [B, O]; previous_action [B, A], previous_reward [B, 1], previous_ended [B, 1] and memory.NAME
              of a policy with a memory; task [B, P], scaled, of one that is told
    outputs   mean and std [B, A], or logits [B, A]; action: in physical units and bounds [B, A], or choices [B, C];
              next.NAME: the memory of the next moment

Of a policy that takes gradient steps every parameter is an input too, which may be left out: what adaptation changes
can be given by its name (`Policy.parameters`).
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import numpy as np

from metarl.deployment.manifest import Exported
from metarl.version import __version__

OPSET, IR = 17, 8
"""Versions of ONNX that the graph needs; the first with layer normalisation."""
INPUTS = {
    "observation": "observation",
    "action": "previous_action",
    "reward": "previous_reward",
    "ended": "previous_ended",
    "task": "task",
}
"""Parts of the network's input -> inputs of the graph."""


def available() -> bool:
    """Tell whether the onnx package is there."""
    return find_spec("onnx") is not None


def to_onnx(policy: Exported) -> bytes:
    """Return the content of model.onnx."""
    import onnx

    graph = _Graph(policy)
    graph.build()
    made = onnx.helper.make_graph(
        graph.nodes, "policy", [*graph.inputs, *graph.overridable], graph.outputs, initializer=graph.initializers
    )
    opset = onnx.helper.make_opsetid("", OPSET)
    model = onnx.helper.make_model(
        made, opset_imports=[opset], ir_version=IR, producer_name="metarl-suite", producer_version=__version__
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


class _Graph:
    """Nodes, inputs and outputs, as they are added."""

    def __init__(self, policy: Exported) -> None:
        self.manifest, self.arrays = policy.manifest, policy.arrays
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.overridable: list[Any] = []
        self.outputs: list[Any] = []
        self.initializers: list[Any] = []
        self._known: dict[str, str] = {}
        self.given = ""

    def build(self) -> None:
        """Add all of the policy."""
        network = self.manifest["network"]
        self.given = x = self._parts(network["inputs"])
        for layer in network["layers"]:
            tensors = {part: self.array(name) for part, name in layer["tensors"].items()}
            x = LAYERS[layer["kind"]](self, x, tensors, layer)
        if network["distribution"]["kind"] == "normal":
            self._normal(x, network["distribution"])
        else:
            self._choices(x)

    # -- building -----------------------------------------------------------------------------------------------------

    def node(self, kind: str, *inputs: str, outputs: int = 1, **options: Any) -> Any:
        """Add a node, and return the name of its output; of several, a list."""
        import onnx

        names = [f"x{len(self.nodes)}.{i}" for i in range(outputs)]
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), names, **options))
        return names[0] if outputs == 1 else names

    def constant(self, value: Any) -> str:
        """Return the name of a constant."""
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = f"{array.dtype}{array.shape}{array.tobytes().hex()}"
        if key not in self._known:
            self._known[key] = self._initial(f"constant{len(self._known)}", array)
        return self._known[key]

    def array(self, name: str) -> str:
        """Return the name of an array of the policy."""
        if name not in self._known:
            self._known[name] = self._initial(name, self.arrays[name])
            if self.manifest["adaptation"] and name in self.manifest["adaptation"]["rates"]:
                self.overridable.append(_value(name, list(self.arrays[name].shape)))
        return self._known[name]

    def _initial(self, name: str, array: np.ndarray) -> str:
        import onnx

        single = array.astype(np.float32) if array.dtype.kind == "f" else array
        self.initializers.append(onnx.numpy_helper.from_array(single, name))
        return name

    def take(self, name: str, *sizes: int | str) -> str:
        """Add an input [B, *sizes], and return its name."""
        self.inputs.append(_value(name, ["B", *sizes]))
        return name

    def give(self, name: str, x: str, *sizes: int | str, whole: bool = False) -> None:
        """Let a value be an output [B, *sizes] of a name."""
        import onnx

        self.nodes.append(onnx.helper.make_node("Identity", [x], [name]))
        self.outputs.append(_value(name, ["B", *sizes], whole=whole))

    def linear(self, x: str, weight: str, bias: str) -> str:
        """Return W x + b."""
        return self.node("Gemm", x, weight, bias, transB=1)

    def split(self, x: str, count: int, size: int) -> list[str]:
        """Return equal parts along the last axis."""
        return self.node("Split", x, self.constant([size] * count), outputs=count, axis=-1)

    # -- what goes in and what comes out ------------------------------------------------------------------------------

    def _parts(self, parts: list[dict[str, Any]]) -> str:
        shown = []
        for part in parts:
            x = self.take(INPUTS[part["of"]], part["size"])
            if part["mean"]:
                x = self.node("Sub", x, self.array(part["mean"]))
            if part["divisor"]:
                x = self.node("Div", x, self.array(part["divisor"]))
            if part["limit"] is not None:
                x = self.node("Clip", x, self.constant(-part["limit"]), self.constant(part["limit"]))
            shown.append(x)
        return self.node("Concat", *shown, axis=-1)

    def _normal(self, mean: str, distribution: dict[str, Any]) -> None:
        components = self.manifest["action"]["components"]
        log_std = self.array(distribution["log_std"])
        if distribution["least_log_std"] is not None:
            log_std = self.node("Max", log_std, self.constant(distribution["least_log_std"]))
        std = self.node("Expand", self.node("Exp", log_std), self.node("Shape", mean))
        low, high = (np.array([component[end] for component in components]) for end in ("low", "high"))
        part = self.node("Mul", self.node("Add", mean, self.constant(1.0)), self.constant(0.5 * (high - low)))
        physical = self.node("Add", part, self.constant(low))
        bounded = self.node("Min", self.node("Max", physical, self.constant(low)), self.constant(high))
        for name, x in (("mean", mean), ("std", std), ("action", bounded)):
            self.give(name, x, len(components))

    def _choices(self, logits: str) -> None:
        counts = self.manifest["action"]["choices"]
        parts = self.node("Split", logits, self.constant(counts), outputs=len(counts), axis=-1)
        likeliest = [self.node("ArgMax", part, axis=-1, keepdims=1) for part in (parts if len(counts) > 1 else [parts])]
        self.give("logits", logits, sum(counts))
        self.give("action", self.node("Concat", *likeliest, axis=-1), len(counts), whole=True)


# -- layers -----------------------------------------------------------------------------------------------------------


def _linear(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    return graph.linear(x, tensors["weight"], tensors["bias"])


def _layer_norm(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    weights, epsilon = (tensors["weight"], tensors["bias"]), layer["numbers"]["epsilon"]
    return graph.node("LayerNormalization", x, *weights, axis=-1, epsilon=epsilon)


def _activation(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    return graph.node({"relu": "Relu", "tanh": "Tanh", "elu": "Elu"}[layer["kind"]], x)


def _gru(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    width = _width(graph, layer)
    hidden = graph.take("memory.hidden", width)
    outer = graph.split(graph.linear(x, tensors["weight_ih"], tensors["bias_ih"]), 3, width)
    inner = graph.split(graph.linear(hidden, tensors["weight_hh"], tensors["bias_hh"]), 3, width)
    reset, keep = (graph.node("Sigmoid", graph.node("Add", outer[gate], inner[gate])) for gate in (0, 1))
    new = graph.node("Tanh", graph.node("Add", outer[2], graph.node("Mul", reset, inner[2])))
    after = graph.node("Add", new, graph.node("Mul", keep, graph.node("Sub", hidden, new)))
    graph.give("next.hidden", after, width)
    return after


def _lstm(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    width = _width(graph, layer)
    hidden, cell = graph.take("memory.hidden", width), graph.take("memory.cell", width)
    outer = graph.linear(x, tensors["weight_ih"], tensors["bias_ih"])
    gates = graph.node("Add", outer, graph.linear(hidden, tensors["weight_hh"], tensors["bias_hh"]))
    admit, keep, new, show = graph.split(gates, 4, width)
    kept = graph.node("Mul", graph.node("Sigmoid", keep), cell)
    after = graph.node("Add", kept, graph.node("Mul", graph.node("Sigmoid", admit), graph.node("Tanh", new)))
    shown = graph.node("Mul", graph.node("Sigmoid", show), graph.node("Tanh", after))
    graph.give("next.hidden", shown, width)
    graph.give("next.cell", after, width)
    return shown


def _transformer(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    """Keys and values grow by a moment a step, from [B, heads, 0, D]; their length is the position."""
    numbers, names = layer["numbers"], layer["tensors"]
    heads, attention = numbers["heads"], graph.arrays[names["blocks.0.mix.weight"]].shape[1]
    inputs, size = graph.arrays[names["embed.weight"]].shape[1] // 2, attention // heads
    before = graph.take("memory.before", inputs)
    graph.give("next.before", x, inputs)
    x = graph.linear(graph.node("Concat", x, before, axis=-1), tensors["embed.weight"], tensors["embed.bias"])
    by_head = graph.constant([0, heads, 1, size])
    for block in range(numbers["blocks"]):
        own = {part.removeprefix(f"blocks.{block}."): name for part, name in tensors.items()}

        def linear(x: str, part: str, own: dict[str, str] = own) -> str:
            return graph.linear(x, own[f"{part}.weight"], own[f"{part}.bias"])

        def norm(x: str, part: str, own: dict[str, str] = own) -> str:
            return _layer_norm(graph, x, {"weight": own[f"{part}.weight"], "bias": own[f"{part}.bias"]}, layer)

        past = [graph.take(f"memory.{kind}.{block}", heads, "past", size) for kind in ("keys", "values")]
        if block == 0:
            position = graph.node("Slice", graph.node("Shape", past[0]), graph.constant([2]), graph.constant([3]))
            x = graph.node("Add", x, graph.node("Gather", tensors["positions"], position, axis=0))
        mixed = graph.split(linear(norm(x, "attention_norm"), "queries_keys_values"), 3, attention)
        query, *present = (graph.node("Reshape", part, by_head) for part in mixed)
        keys, values = (graph.node("Concat", old, new, axis=2) for old, new in zip(past, present, strict=True))
        for kind, all_of_it in (("keys", keys), ("values", values)):
            graph.give(f"next.{kind}.{block}", all_of_it, heads, "past + 1", size)
        scores = graph.node("MatMul", query, graph.node("Transpose", keys, perm=[0, 1, 3, 2]))
        scores = graph.node("Mul", scores, graph.constant(1.0 / math.sqrt(size)))
        attended = graph.node("MatMul", graph.node("Softmax", scores, axis=-1), values)
        x = graph.node("Add", x, linear(graph.node("Reshape", attended, graph.constant([0, attention])), "mix"))
        inner = graph.node("Relu", linear(norm(x, "network_norm"), "first"))
        x = graph.node("Add", x, linear(inner, "second"))
    return x


def _beside(graph: _Graph, x: str, tensors: dict[str, str], layer: dict[str, Any]) -> str:
    bounds = (graph.constant([value]) for value in (0, layer["numbers"]["first"], -1))
    return graph.node("Concat", graph.node("Slice", graph.given, *bounds), x, axis=-1)


LAYERS = {
    "linear": _linear,
    "layer-norm": _layer_norm,
    **dict.fromkeys(("relu", "tanh", "elu"), _activation),
    "gru": _gru,
    "lstm": _lstm,
    "transformer": _transformer,
    "beside": _beside,
}
"""Layers by the kinds of the manifest."""


def _width(graph: _Graph, layer: dict[str, Any]) -> int:
    """Return the features of a recurrent layer."""
    return graph.arrays[layer["tensors"]["weight_hh"]].shape[1]


def _value(name: str, shape: list[int | str], *, whole: bool = False) -> Any:
    """Return what tells of an input or output: name, type and shape."""
    import onnx

    kind = onnx.TensorProto.INT64 if whole else onnx.TensorProto.FLOAT
    return onnx.helper.make_tensor_value_info(name, kind, shape)
