"""`python -m metarl`: the same as the command `metarl`."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # Python has put the present folder first, where any file could stand in place of a module: numpy.py, yaml.py.
    if not sys.flags.safe_path and sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
        del sys.path[0]

    from metarl.cli.main import main

    main()
