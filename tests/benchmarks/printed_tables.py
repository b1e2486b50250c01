"""The tables that benchmarks print."""

from __future__ import annotations


def rows(printed: str) -> list[list[str]]:
    """Return the cells of all rows of its tables that hold numbers."""
    found = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in printed.splitlines()
        if line.startswith("|")
    ]
    return [row for row in found if row[0].isdigit()]
