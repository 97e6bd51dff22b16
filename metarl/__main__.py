"""`python -m metarl`: the same as the command `metarl`."""

from __future__ import annotations

from metarl.cli.main import main

if __name__ == "__main__":
    main()
