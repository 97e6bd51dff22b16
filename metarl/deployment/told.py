"""What a policy is told of its task, as plain data: how each parameter is scaled.

    value -> (value - shift) factor, of its logarithm where `logarithm` says so; or whether it is each of `one_of`

It is what `Parameter.features` computes, and the tests hold every scale to that.
"""

from __future__ import annotations

import math
from typing import Any

from metarl.space.parameter import Parameter


def told(parameter: Parameter) -> dict[str, Any]:
    """Return the numbers of a value of a parameter, and how it is scaled."""
    return {"numbers": parameter.width, "told": _scaling(parameter)}


def _scaling(parameter: Parameter) -> dict[str, Any]:
    scale = parameter.scale
    if scale == "choice":
        if len(parameter.choices) > 2:
            return {"one_of": list(parameter.choices + parameter.ood_choices)}
        return _between(min(parameter.choices), max(parameter.choices))
    if scale == "sphere":
        return _affine(0.0, 1.0)
    if scale == "simplex":
        return _affine(0.5, 2.0)
    if scale == "normal":
        assert parameter.mean is not None
        assert parameter.std is not None
        return _affine(parameter.mean, 1.0 / parameter.std)
    low, high = parameter.bounds
    if scale == "disc":
        return _affine(0.0, 1.0 / high)
    if scale == "log-uniform":
        return _between(math.log(low), math.log(high), logarithm=True)
    return _between(low, high)


def _between(low: float, high: float, *, logarithm: bool = False) -> dict[str, Any]:
    """Return what brings low to -1 and high to 1; all to 0 where they are the same."""
    return _affine((low + high) / 2.0, 2.0 / (high - low) if high > low else 0.0, logarithm=logarithm)


def _affine(shift: float, factor: float, *, logarithm: bool = False) -> dict[str, Any]:
    return {"logarithm": logarithm, "shift": shift, "factor": factor}
