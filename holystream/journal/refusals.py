"""What every store says when a stream is not to be had, in the same words."""

from __future__ import annotations

from holystream.errors import (
    Fenced,
    JournalCorrupt,
    JournalUnavailable,
    StreamBusy,
    StreamExists,
    StreamFinished,
    StreamUnknown,
)


def exists(stream_id: str) -> StreamExists:
    """Return the error for an id that is taken."""
    return StreamExists(
        f"the journal holds a stream {stream_id!r} already: choose another id, or "
        "resume that one"
    )


def unknown(stream_id: str) -> StreamUnknown:
    """Return the error for an id that the journal does not know."""
    return StreamUnknown(
        f"the journal holds no stream {stream_id!r}: it never did, or it was deleted "
        "or swept"
    )


def busy(stream_id: str, owner: str) -> StreamBusy:
    """Return the error for a stream whose owner is alive."""
    return StreamBusy(
        f"stream {stream_id!r} is being written by {owner}, which is alive: read "
        "along, as `holystream tail` does; it can be claimed once its owner lets go "
        "or ends",
        owner=owner,
    )


def finished(stream_id: str) -> StreamFinished:
    """Return the error for a stream that has ended."""
    return StreamFinished(
        f"stream {stream_id!r} has ended: it can be read, not claimed or written"
    )


def fenced(stream_id: str) -> Fenced:
    """Return the error for a claim that no longer holds."""
    return Fenced(
        f"stream {stream_id!r} is no longer this claim's: it was taken over or let go; "
        "what was stored is kept, what came since was not"
    )


def out_of_step(stream_id: str, ours: int, stored: int) -> Fenced:
    """Return the error for a claim whose count is not the journal's."""
    return Fenced(
        f"stream {stream_id!r}: this claim would write event {ours}, the journal waits "
        f"for event {stored}: the claim was used twice at a time; claim it anew"
    )


def event_missing(stream_id: str, seq: int) -> JournalCorrupt:
    """Return the error for a gap in the numbers of what is stored."""
    return JournalCorrupt(
        f"stream {stream_id!r}: event {seq} is missing: the journal is damaged; the "
        f"events up to {seq - 1} can be read"
    )


def damaged(what: str) -> JournalCorrupt:
    """Return the error for a value that no holystream wrote."""
    return JournalCorrupt(
        f"{what} in the journal is damaged: it is nothing that holystream writes; move "
        "the file away, with its -wal and -shm, or give another path"
    )


def damaged_row(stream_id: str) -> JournalCorrupt:
    """Return the error for a stream that is described by what no holystream wrote."""
    return JournalCorrupt(
        f"stream {stream_id!r}: its row in the journal is damaged: it holds what no "
        "holystream writes; the other streams are as they were, and delete() forgets "
        "this one"
    )


def closed() -> JournalUnavailable:
    """Return the error for a journal that was closed."""
    return JournalUnavailable("the journal was closed: open another one")
