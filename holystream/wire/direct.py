"""The body of a response, read past urllib3's and http.client's layers.

Behind one recv they call two dozen functions before a byte is handed over, and a token
waits for all of them; where the caches are cold that is a tenth of a millisecond. Here
one recv is followed by the de-chunking and nothing else. What those layers keep account
of is told to them at the end of the body, which stays theirs to judge.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from holystream.wire.chunked import READ_BYTES
from holystream.wire.socketio import WAITING_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from holystream.wire.chunked import BulkHTTPResponse


def reader_of(raw: Any) -> Callable[[], bytes]:
    """Return what reads the body of a response: what one recv brings; empty at the end.

    Args:
        raw: The response as requests has it: urllib3's, over a connection of ours or of
            somebody else, or something that stands in for it.
    """
    response: BulkHTTPResponse | None = getattr(raw, "bulk", None)
    if response is None or "content-encoding" in raw.headers:
        return functools.partial(raw.read1, READ_BYTES, decode_content=True)
    body = DirectBody(raw, response)
    return body.read_chunked if response.chunked else body.read_plain


class DirectBody:
    """Reads a body that has no content coding. Not thread-safe.

    It raises what the socket raises, and http.client's and urllib3's errors for a body
    that is broken or too short. Then it is closed.
    """

    __slots__ = ("_amount", "_feed", "_raw", "_receive", "_response")

    def __init__(self, raw: Any, response: BulkHTTPResponse) -> None:
        self._raw = raw
        self._response = response
        self._receive: Callable[[int], bytes] | None = None
        self._feed = response.decoder.feed
        self._amount = WAITING_BYTES

    def read_chunked(self) -> bytes:
        """Return what one recv brings of a chunked body; empty at the end."""
        response = self._response
        decoder = response.decoder
        while not (decoder.broken or response.fp is None):
            receive = self._receive or self._receive_first
            amount = self._amount
            try:
                data = receive(amount)
                # Most often one whole chunk, of a size seen before. Seen here and not
                # in a call: a token waits for what is done behind a recv.
                start = decoder.width
                size = decoder.sizes.get(data[:start]) if decoder.at_chunk else None
                if size == len(data) - start - 2 and data[-2:] == b"\r\n":
                    payload = data[start:-2]
                else:
                    payload = self._feed(data)
                    if decoder.over or not data:
                        response.end_coding(data)
                        self._release()
            except BaseException:
                self._raw.close()
                self._release()
                raise
            if len(data) == amount or amount != WAITING_BYTES:
                self._adapt(len(data))
            if payload:
                return payload
        return self._end()

    def read_plain(self) -> bytes:
        """Return what one recv brings of any other body; empty at the end."""
        response = self._response
        length = response.length
        amount = self._amount if length is None else min(length, self._amount)
        if not amount or response.isclosed():
            return self._end()
        try:
            data = (self._receive or self._receive_first)(amount)
        except BaseException:
            self._raw.close()
            self._release()
            raise
        if length is not None:
            response.length = length - len(data)
        if not data:
            response.close()
            return self._end()
        if length == len(data):
            response.close()
            self._release()
        if len(data) == amount or amount != WAITING_BYTES:
            self._adapt(len(data))
        return data

    def _adapt(self, size: int) -> None:
        """Read more at once while more is there; wait with little memory."""
        if size >= self._amount:
            self._amount = READ_BYTES
        elif size <= WAITING_BYTES:
            self._amount = WAITING_BYTES

    def _receive_first(self, amount: int) -> bytes:
        """Take what came with the headers: nothing is in the buffer after it."""
        data = self._response.fp.read1(amount)
        buffered: Any = self._response.fp
        self._receive = buffered.raw.receive
        return data

    def _release(self) -> None:
        """Give back the connection of a body that has ended, as urllib3 does."""
        if self._response.isclosed():
            self._raw.release_conn()

    def _end(self) -> bytes:
        """Let urllib3 look for itself: it gives back the connection, or complains."""
        if not self._response.chunked:
            self._raw.length_remaining = self._response.length
        data: bytes = self._raw.read1(READ_BYTES, decode_content=True)
        return data
