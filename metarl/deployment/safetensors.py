"""Arrays in one file, in the format of the safetensors package (https://github.com/huggingface/safetensors).

8 bytes   length of the header, little-endian
header    JSON: name -> dtype, shape, data_offsets [begin, end) in what follows; spaces up to a multiple of 8
data      the arrays one after the other, little-endian, rows first
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

KINDS = {np.dtype(np.float32): "F32", np.dtype(np.float64): "F64"}


def encode(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of a file.

    Args:
        arrays: name -> float32 or float64 array.
    """
    header, data = {}, b""
    for name, array in arrays.items():
        own = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
        offsets = [len(data), len(data) + len(own)]
        header[name] = {"dtype": KINDS[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        data += own
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data
