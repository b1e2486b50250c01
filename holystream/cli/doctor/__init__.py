"""Examine the way to a provider, from the installation to the first tokens.

Each check prints one line: ok, warn, FAIL or skip; and if it is not ok, what to do
about it. The key is never shown, not even in part. Requests are made as the library
makes them. All that is sent is a few GETs, which cost nothing, unless --stream asks a
model for a short answer.
"""

from __future__ import annotations

import argparse
import collections
import json
from typing import TYPE_CHECKING, Any, Final

from holystream.cli.console import Output, say
from holystream.cli.exits import DONE, FAILED, USAGE
from holystream.cli.host import add_address, provider_of
from holystream.errors import ConfigurationError

if TYPE_CHECKING:
    from holystream.cli.doctor.case import Case
    from holystream.cli.doctor.findings import Finding

HELP = "find out why it does not work: key, network, TLS, buffering"

_EPILOG: Final = """\
--stream asks the model for at most 200 tokens: 0.3 US cents at 15 dollars per
million. holystream's own simulator is asked without it.

exit status:
    0  every check is ok, a warning or skipped
    1  a check failed
    2  wrong arguments
  130  Ctrl-C
"""
_LABELS: Final = {"ok": "ok", "warn": "warn", "fail": "FAIL", "skipped": "skip"}
_SECONDS: Final = 10.0
_LONGEST: Final = 300.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``holystream doctor``."""
    parser.epilog = _EPILOG
    add = parser.add_argument
    add(
        "--provider",
        metavar="NAME",
        help="such as openai; default: holysheep, or openai-compatible if --base-url "
        "is given",
    )
    add_address(add)
    add(
        "--stream",
        action="store_true",
        help="stream a short answer, to see whether events arrive one by one",
    )
    add("--model", metavar="NAME", help="the model for --stream")
    add(
        "--timeout",
        type=_seconds,
        default=_SECONDS,
        metavar="SECONDS",
        help="the longest that connecting, and then the answer to a check, may take; "
        f"default: {_SECONDS:g}",
    )
    add("--json", action="store_true", help="print one JSON object, for programs")


def run(options: argparse.Namespace) -> int:
    """Examine, print what was found; return the exit status."""
    from holystream.cli.doctor.case import Case  # noqa: PLC0415 - only if it is wanted
    from holystream.providers.registry import profile  # noqa: PLC0415 - the same

    if options.stream and not options.model:
        say("error: --stream needs --model NAME: one that this key may use")
        return USAGE
    try:
        known = profile(provider_of(options))
    except ConfigurationError as error:
        say(f"error: {str(error).replace('provider=', '--provider ')}")
        return USAGE
    case = Case(
        known,
        options.base_url,
        allow_http=options.allow_http,
        model=options.model,
        stream=options.stream,
        seconds=options.timeout,
    )
    try:
        findings = _as_json(case) if options.json else _as_text(case)
    finally:
        case.close()
    counted = collections.Counter(finding.status.value for finding in findings)
    return FAILED if counted["fail"] else DONE


def _as_text(case: Case) -> list[Finding]:
    from holystream.cli.doctor.examination import examine  # noqa: PLC0415 - as in run()

    output = Output()
    output.write(f"holystream doctor: {case.profile.name}\n\n")
    findings = []
    for name, finding in examine(case):
        findings.append(finding)
        label = _LABELS[finding.status.value]
        output.write(f"{label:<4}  {name:<14}  {finding.text}\n")
        if finding.advice:
            output.write(f"{'':<20}  -> {finding.advice}\n")
    counted = collections.Counter(finding.status.value for finding in findings)
    output.write(
        f"\n{counted['ok']} ok, {counted['warn']} to look at, "
        f"{counted['fail']} failed, {counted['skipped']} skipped\n"
    )
    return findings


def _as_json(case: Case) -> list[Finding]:
    from holystream.cli.doctor.examination import examine  # noqa: PLC0415 - as in run()

    found = list(examine(case))
    findings = [finding for _, finding in found]
    statuses = {finding.status.value for finding in findings}
    report: dict[str, Any] = {
        "provider": case.profile.name,
        "base_url": case.base_url or None,
        "status": next((each for each in ("fail", "warn") if each in statuses), "ok"),
        "checks": [
            {
                "check": name,
                "status": finding.status.value,
                "problem": finding.problem,
                "text": finding.text,
                "advice": finding.advice or None,
                "facts": dict(finding.facts),
            }
            for name, finding in found
        ],
    }
    Output().write(f"{json.dumps(report, indent=2)}\n")
    return findings


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(
            f"must be seconds, above 0 and up to {_LONGEST:g}, not {text!r}"
        )
    return seconds
