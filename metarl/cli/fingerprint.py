"""`metarl fingerprint`: a hash of the first steps of every family."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import tyro

from metarl.cli.options import parse

FINGERPRINT = """\
Hash the first steps of families from fixed seeds: a family whose fingerprint changed has become another task.

The tests compare all of them with the table tests/fingerprints.json. After a change that is meant, write the table anew
and look at what changed in it.

examples:
  metarl fingerprint
  metarl fingerprint ant-dir half-cheetah-vel@pearl19
  metarl fingerprint --update tests/fingerprints.json"""


@dataclass(frozen=True, kw_only=True)
class FingerprintOptions:
    """Which families."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Families: NAME@VARIANT, or NAME for all its variants; all families if none is given."""
    update: Path | None = None
    """Table to write the fingerprints into; entries of families that are not named stay."""
    json: bool = False
    """Print JSON in place of a table."""


def fingerprint_command(arguments: list[str]) -> int:
    """Run `metarl fingerprint`."""
    options = parse(FingerprintOptions, arguments, "metarl fingerprint", FINGERPRINT)

    from metarl.envs import fingerprint

    found = fingerprint.fingerprints(options.names)
    if options.update is not None:
        fingerprint.update(options.update, found)
    if options.json:
        print(json.dumps(found))
    else:
        width = max(map(len, found))
        for name, entry in found.items():
            print(f"{name:<{width}}  {entry['first_steps']}")
    return 0
