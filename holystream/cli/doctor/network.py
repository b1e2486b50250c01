"""Whether the next hop has a name, and can be reached: the server, or the proxy."""

from __future__ import annotations

import concurrent.futures
import ipaddress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from holystream.cli.doctor.findings import Finding, fine, found
from holystream.wire.connecting import connect, resolve
from holystream.wire.faults import Fault, FaultKind

if TYPE_CHECKING:
    from holystream.cli.doctor.case import Case
    from holystream.wire.guard import SocketGuard

_SLOW: Final = 1.0
"""Seconds from which on a look-up is worth a warning."""
_MOST: Final = 8
"""Addresses that are tried."""


def dns(case: Case) -> Finding:
    """Look the next hop's name up."""
    host, port = case.next_hop
    began = case.now()
    try:
        entries = resolve(host, port, case.guard())
    except Fault as fault:
        late = fault.kind is not FaultKind.NAME_RESOLUTION
        text = f"{host}: no answer within {case.seconds:g} s" if late else str(fault)
        if case.route.proxy:
            words = {"variable": case.route.variable}
            return found("dns.proxy-unresolved", f"the proxy {text}", words=words)
        return found("dns.unresolved", text)
    seconds = case.now() - began
    # One entry for each address, in the resolver's order.
    case.addresses = list({entry[4]: entry for entry in entries}.values())
    addresses = [entry[4][0] for entry in case.addresses]
    facts = {"host": host, "addresses": addresses, "seconds": round(seconds, 4)}
    if _is_address(host):
        return fine(f"{host} is an address", facts)
    fours = sum(":" not in address for address in addresses)
    count = f"{fours} IPv4, {len(addresses) - fours} IPv6"
    listed = ", ".join(addresses[:_MOST]) + (", ..." if addresses[_MOST:] else "")
    whose = "the proxy " if case.route.proxy else ""
    text = f"{whose}{host} is {listed} ({count}), after {seconds * 1000:.0f} ms"
    return found("dns.slow", text, facts) if seconds > _SLOW else fine(text, facts)


def tcp(case: Case) -> Finding:
    """Connect to each address, all at the same time."""
    tried = case.addresses[:_MOST]
    guards = [case.guard() for _ in tried]
    with concurrent.futures.ThreadPoolExecutor(len(tried)) as threads:
        try:
            outcomes = list(threads.map(partial(_connect, case), tried, guards))
        except BaseException:
            # A Ctrl-C: leaving the block waits for the threads.
            for guard in guards:
                guard.stop()
            raise
    rows = []
    for entry, (problem, seconds) in zip(tried, outcomes, strict=True):
        rows.append(
            {
                "address": entry[4][0],
                "port": entry[4][1],
                "seconds": round(seconds, 4),
                "problem": problem,
            }
        )
    text = ", ".join(
        f"{row['address']} port {row['port']}: "
        + (row["problem"] or f"{row['seconds'] * 1000:.1f} ms")
        for row in rows
    )
    failed = sum(row["problem"] is not None for row in rows)
    if failed == len(rows) and case.route.proxy:
        words = {"variable": case.route.variable}
        facts = {"addresses": rows}
        return found("tcp.proxy-unreachable", f"the proxy {text}", facts, words)
    if failed == len(rows):
        return found("tcp.unreachable", text, {"addresses": rows})
    if failed:
        return found("tcp.partly", text, {"addresses": rows})
    return fine(text, {"addresses": rows})


def _connect(
    case: Case, entry: tuple[Any, ...], guard: SocketGuard
) -> tuple[str | None, float]:
    """Return what went wrong, if anything, and how long it took."""
    began = case.now()
    try:
        connect([entry], guard, source=None, options=[]).close()
    except Fault as fault:
        return fault.detail or fault.kind.value, case.now() - began
    except OSError as error:
        # Such as: this machine knows no IPv6 at all.
        return error.strerror or str(error), case.now() - began
    finally:
        guard.release()
    return None, case.now() - began


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True
