"""The task families by name, shown as a table."""

from __future__ import annotations

from metarl.envs import families as registered
from metarl.envs.family import Family


class Families(dict[str, list[Family]]):
    """Family name -> its variants, the default first. It prints as a table; `metarl list NAME` tells all of one."""

    def __repr__(self) -> str:
        rows = [("family", "variants, the default first", "task")]
        rows += [(name, ", ".join(f.variant for f in found), found[0].summary) for name, found in self.items()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        return "\n".join(f"{name:<{widths[0]}}  {variants:<{widths[1]}}  {task}" for name, variants, task in rows)


def families() -> Families:
    """Return the task families: name -> variants, the default first.

    Any name that takes a family takes NAME, or NAME@VARIANT, and +MODIFIER for more to vary.

    Example:
        >>> metarl.families()["ant-dir"][0].space.describe()
    """
    return Families(registered())
