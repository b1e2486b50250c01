"""``python -m holystream`` is the ``holystream`` command."""

from __future__ import annotations

import sys

from holystream.cli import main

if __name__ == "__main__":
    sys.exit(main())
