"""What torch cannot do on a GPU in the same way twice is refused on the CPU too."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

ALWAYS = (
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "adaptive_max_pool2d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "max_unpool2d",
    "max_unpool3d",
    "upsample_linear1d_backward",
    "upsample_bilinear2d_backward",
    "upsample_bicubic2d_backward",
    "upsample_trilinear3d_backward",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "nll_loss2d_forward",
    "nll_loss2d_backward",
    "_ctc_loss_backward",
    "put",
    "put_",
    "histc",
    "kthvalue",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
)
"""Operations that `torch.use_deterministic_algorithms` says to raise for on CUDA."""
OF_FLOATS = ("cumsum", "cumsum_")


class UnrepeatableError(RuntimeError):
    """Says which operation it is."""


class Repeatable(TorchDispatchMode):
    """Raises where torch would on CUDA, in deterministic mode."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        refused = name in ALWAYS or (name in OF_FLOATS and args[0].is_floating_point())
        refused |= name == "bincount" and len(args) > 1 and args[1] is not None
        refused |= name == "median" and len(args) > 1
        if refused:
            raise UnrepeatableError(f"{name} does not have a deterministic implementation on CUDA")
        return func(*args, **(kwargs or {}))


def refuses(function: Any) -> bool:
    """Tell whether it does."""
    try:
        with Repeatable():
            function()
    except UnrepeatableError:
        return True
    return False
