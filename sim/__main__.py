"""`python -m sim` is the command `vmksim`.

The command line is imported inside, so that an interrupt during the import ends like any other.
"""

from __future__ import annotations

import sys
from typing import NoReturn

INTERRUPTED = 130


def main() -> NoReturn:
    """Run the command `vmksim`."""
    try:
        from sim.cli import main as command
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    command()


if __name__ == "__main__":
    main()
