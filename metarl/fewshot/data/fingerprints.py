"""Molecules as items: fingerprints of SMILES."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from importlib import import_module

import numpy as np
import torch
from jaxtyping import Shaped, UInt8
from torch import Tensor

from metarl.errors import UserError
from metarl.fewshot.reading.arrays import array_of, check_numbers

DEFAULT_SIZE = 2048

Fingerprint = Callable[[Sequence[str]], np.ndarray]
"""From SMILES to items, one a row: bytes or other numbers."""


def morgan(smiles: Sequence[str], bits: int = DEFAULT_SIZE, radius: int = 2) -> UInt8[np.ndarray, "molecules bits"]:
    """Return Morgan fingerprints, 0 or 1.

    Raises:
        UserError: RDKit is not there, or cannot read a molecule; says which.
    """
    try:
        chem, generators, base = (
            import_module(f"rdkit.{name}") for name in ("Chem", "Chem.rdFingerprintGenerator", "rdBase")
        )
    except ImportError as error:
        raise UserError(
            "Fingerprints of molecules need RDKit, which is not installed. Install it with "
            "`pip install 'metarl-suite[molecules]'`, or take molecules@lingo, which needs nothing; in Python a "
            "function of your own is taken as `fingerprint`."
        ) from error
    generator = generators.GetMorganGenerator(radius=radius, fpSize=bits)
    found = np.zeros((len(smiles), bits), dtype=np.uint8)
    # RDKit writes about every doubtful molecule; one that cannot be read is an error below.
    with base.BlockLogs():
        for row, text in enumerate(smiles):
            molecule = chem.MolFromSmiles(text)
            if molecule is None:
                raise UserError(
                    f"Molecule {row + 1} has the SMILES '{text[:200]}', which RDKit cannot read. Take it out."
                )
            found[row] = generator.GetFingerprintAsNumPy(molecule)
    return found


def lingo(smiles: Sequence[str], bits: int = DEFAULT_SIZE) -> UInt8[np.ndarray, "molecules bits"]:
    """Return which substrings of 4 letters a molecule's SMILES has, 0 or 1 (LINGO; Vidal, Thormann & Pons 2005).

    One molecule written in two ways has two fingerprints: SMILES should be canonical. Several substrings may share a
    bit.
    """
    found = np.zeros((len(smiles), bits), dtype=np.uint8)
    for row, text in enumerate(smiles):
        # Short molecules have some, too.
        padded = f"^{text}$".ljust(4)
        for i in range(len(padded) - 3):
            found[row, zlib.crc32(padded[i : i + 4].encode()) % bits] = 1
    return found


def table_of(fingerprint: Fingerprint, smiles: Sequence[str]) -> Shaped[Tensor, "molecules *item"]:
    """Return the items of molecules, one a row.

    Raises:
        UserError: there is not one row of finite numbers for each.
    """
    table = np.ascontiguousarray(array_of(fingerprint(smiles), "fingerprints"))
    check_numbers(table.dtype, "fingerprints")
    table = table.astype(table.dtype.newbyteorder("="), copy=False)
    if len(table) != len(smiles) or table.ndim < 2:
        raise UserError(
            f"Got {len(smiles)} molecules and fingerprints of the shape {table.shape}. Give one row for each."
        )
    bad = np.flatnonzero(~np.isfinite(table.reshape(len(table), -1)).all(1))
    if len(bad):
        raise UserError(
            f"The fingerprint of molecule {bad[0] + 1} ('{smiles[bad[0]][:200]}') has values that are not finite."
        )
    return torch.from_numpy(table)
