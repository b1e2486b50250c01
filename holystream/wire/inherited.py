"""What a forked child inherits and lets go of: the connections of its parent.

The descriptors of the child are copies. Nobody uses them, but as long as one is open
the server is not told that the parent has closed its own, and goes on writing.
"""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def remember(sock: socket.socket) -> None:
    """Let a child close its copy of ``sock``, unless it is gone before the fork."""
    # TLS inside TLS wraps a socket instead of being one.
    _open.add(getattr(sock, "socket", sock))


def _after_fork_in_child() -> None:
    for sock in list(_open):
        # A close would wait for the readers of the socket, which are threads of the
        # parent, and a shutdown would end the parent's connection.
        number = sock.detach()
        if number >= 0:
            os.close(number)
    _open.clear()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)
