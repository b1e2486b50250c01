"""Peers that may not be installed: skipped on a machine, missed in CI.

`.ci/peers` installs them all. Where ``HOLYSTREAM_REQUIRE_PEERS`` is set, as in CI, a
peer that is not there is a failure.
"""

from __future__ import annotations

import importlib.util
import os

import pytest


def need(present: object, name: str) -> None:
    """Skip the test, or fail it, unless the peer is present."""
    if present:
        return
    reason = f"{name} is not installed: bash .ci/peers installs it"
    if os.environ.get("HOLYSTREAM_REQUIRE_PEERS"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_packages(*names: str) -> None:
    """Skip the test, or fail it, unless these Python packages are installed."""
    for name in names:
        need(importlib.util.find_spec(name), name)
