"""A program of others that is not installed is told of as in tests/peers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "peers"))
