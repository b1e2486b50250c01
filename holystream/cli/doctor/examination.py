"""The checks in their order, what each builds on, and how they are run.

A check whose ground another one has found to be missing is skipped; everything else
goes on. Whatever a check meets, it ends in a `Finding`.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from holystream.cli.doctor import api, buffering, local, network, tls
from holystream.cli.doctor.findings import Finding, Status, found

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from holystream.cli.doctor.case import Case


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """One check.

    Attributes:
        name: What it is called in reports.
        examine: Does it.
        needs: The checks that must not have failed.
    """

    name: str
    examine: Callable[[Case], Finding]
    needs: tuple[str, ...] = ()


CHECKS: Final = (
    Check("versions", local.versions),
    Check("key", local.key),
    Check("base-url", local.base_url),
    Check("proxy", local.proxy, ("base-url",)),
    Check("dns", network.dns, ("proxy",)),
    Check("tcp", network.tcp, ("dns",)),
    Check("tls", tls.tls, ("tcp",)),
    Check("clock", api.clock, ("tls",)),
    Check("authentication", api.authentication, ("key", "tls")),
    Check("buffering", buffering.buffering, ("authentication",)),
)


def examine(case: Case) -> Iterator[tuple[str, Finding]]:
    """Yield the name of each check and what it found, as soon as it is known."""
    findings: dict[str, Finding] = {}
    for check in CHECKS:
        missing = [name for name in check.needs if findings[name].stops]
        if missing:
            text = f"needs {' and '.join(missing)}"
            finding = Finding(status=Status.SKIPPED, text=text, blocked=True)
        else:
            finding = _examine(check, case)
        findings[check.name] = finding
        yield check.name, finding


def _examine(check: Check, case: Case) -> Finding:
    try:
        return check.examine(case)
    except Exception as error:  # noqa: BLE001 - the other checks go on without it
        # Not its text: nobody has looked whether the key is in it.
        return found("doctor.broken", f"the check raised {type(error).__name__}")
