"""Reads who issued a certificate and how long it is valid, from its DER encoding.

The ssl module decodes a certificate only after it has found it trustworthy; what is
wrong with the others is what a doctor must tell. Nothing here is a judgement of trust.
The grammar is that of RFC 5280, section 4.1.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Final

_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_LONG: Final = 0x80
_BMP_STRING: Final = 0x1E
_COMMON_NAME: Final = b"\x55\x04\x03"
_ORGANISATION: Final = b"\x55\x04\x0a"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a certificate says of itself; its names are text from outside."""

    subject: str
    issuer: str
    not_before: dt.datetime
    not_after: dt.datetime


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate.

    Raises:
        ValueError: It is none.
    """
    try:
        outer, _ = _element(der, _SEQUENCE)
        fields, _ = _element(outer, _SEQUENCE)
        if fields[0] == _VERSION:
            _, fields = _element(fields)
        _serial, fields = _element(fields)
        _algorithm, fields = _element(fields, _SEQUENCE)
        issuer, fields = _element(fields, _SEQUENCE)
        validity, fields = _element(fields, _SEQUENCE)
        subject, _ = _element(fields, _SEQUENCE)
        begin, end = _children(validity)
        return Certificate(
            subject=_name(subject),
            issuer=_name(issuer),
            not_before=_moment(*begin),
            not_after=_moment(*end),
        )
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError("not a certificate") from error


def _element(data: bytes, tag: int | None = None) -> tuple[bytes, bytes]:
    """Take one element apart: its content, and what follows it."""
    if tag is not None and data[0] != tag:
        raise ValueError("not a certificate")
    length, start = data[1], 2
    if length >= _LONG:
        start += length - _LONG
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise ValueError("not a whole certificate")
    return data[start : start + length], data[start + length :]


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Return tag and content of each element within another."""
    found = []
    while data:
        tag = data[0]
        content, data = _element(data)
        found.append((tag, content))
    return found


def _name(data: bytes) -> str:
    """Return the common name and the organisation, as far as there are any."""
    known = {}
    for _, attributes in _children(data):
        for _, attribute in _children(attributes):
            (_, kind), (tag, value) = _children(attribute)
            code = "utf-16-be" if tag == _BMP_STRING else "utf-8"
            known[kind] = value.decode(code, "replace")
    parts = [known.get(_COMMON_NAME), known.get(_ORGANISATION)]
    return ", ".join(dict.fromkeys(part for part in parts if part)) or "(no name)"


def _moment(tag: int, content: bytes) -> dt.datetime:
    text = content.decode("ascii")
    form = "%y%m%d%H%M%SZ" if tag == _UTC_TIME else "%Y%m%d%H%M%SZ"
    moment = dt.datetime.strptime(text, form).replace(tzinfo=dt.UTC)
    if tag == _UTC_TIME and moment.year >= 2050:  # noqa: PLR2004 - RFC 5280, 4.1.2.5.1
        moment = moment.replace(year=moment.year - 100)
    return moment
