"""Simulator: the server, its connections and its memory of what came.

It listens from construction to `close()`: one thread accepts, one thread per
connection answers. `close()` and `drop_all()` ring the Alarm all connections of
the time wait on, then join their threads; nothing is left behind, also while
answers stall. All threads are daemons, so a forgotten simulator ends with the
process.

Lock order: `_changed` is the only lock here and is never held over I/O.
"""

import json
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, Self

from holystream.simulator import chat
from holystream.simulator.answers import DEFAULT_LENGTH, Answer, Text
from holystream.simulator.failures import error_body
from holystream.simulator.generations import Generation
from holystream.simulator.messages import (
    BadRequest,
    ReceivedRequest,
    Response,
    read_request,
)
from holystream.simulator.peer import Alarm, Dropped, Gone, Peer
from holystream.simulator.playback import play
from holystream.simulator.script import Script
from holystream.simulator.service import Service, takes_script

_BACKLOG = 4096
_JOIN = 10.0
_NO_DESCRIPTORS = 0.05
_SCRIPT_HEADER = "x-simulator"


class Simulator:
    """A fault-injecting server that speaks OpenAI's chat completions.

    Args:
        port: 0 takes a free one.
        host: The address to listen on.
        tls: A server-side context makes it https.
        script: What the first chat requests meet; see `play`.
        text: The text of every answer, or a function of the request body.
        api_keys: When given, requests need one of them.
        length: How many deltas an answer has, give or take 5 %.
    """

    def __init__(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        tls: ssl.SSLContext | None = None,
        script: Script | Sequence[Script] = (),
        text: Text = None,
        api_keys: Collection[str] = (),
        length: int = DEFAULT_LENGTH,
    ) -> None:
        # First, because it may fail, and nothing may be left open then.
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server(
            (host, port), family=family, backlog=_BACKLOG
        )
        self._listener.setblocking(False)
        name = f"[{host}]" if ":" in host else host
        self._port = int(self._listener.getsockname()[1])
        self._base_url = f"{'https' if tls else 'http'}://{name}:{self._port}/v1"
        self._service = Service(text=text, length=length, api_keys=api_keys)
        self._tls = tls
        # Guards everything below; notified whenever something of it changes.
        self._changed = threading.Condition()
        self._scripts: deque[tuple[Script, int]] = deque()
        self._requests: list[ReceivedRequest] = []
        self._accepted = 0
        self._changes = 0
        self._threads: set[threading.Thread] = set()
        self._alarm = Alarm()
        self._closing = Alarm()
        self._closed = threading.Event()
        self.play(*([script] if isinstance(script, Script) else script))
        # Not in the thread: once a simulator is made, it opens nothing but connections.
        self._selector = selectors.DefaultSelector()
        self._acceptor = threading.Thread(
            target=self._accept, name="simulator-accept", daemon=True
        )
        self._acceptor.start()

    @property
    def base_url(self) -> str:
        """What a client takes as base URL."""
        return self._base_url

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._port

    @property
    def requests(self) -> tuple[ReceivedRequest, ...]:
        """Every request received, in order."""
        with self._changed:
            return tuple(self._requests)

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        with self._changed:
            return self._accepted

    @property
    def open_connections(self) -> int:
        """How many of them are still served."""
        with self._changed:
            return len(self._threads)

    def play(self, *scripts: Script) -> None:
        """Queue scripts: each coming chat request takes the next one.

        So does a `GET /v1/stream`, which goes on with what a chat request began.

        A request with an `X-Simulator` header brings its own and takes none. When
        the queue is empty, answers are healthy. What is queued behind a script with
        `times=0` is not reached until `clear`.

        Raises:
            TypeError: One of them is no script.
        """
        for script in scripts:
            if not isinstance(script, Script):
                raise TypeError(
                    "play() takes Script objects, as Script(cut_at=900) or "
                    f"Script.parse('cut_at=900'), not {type(script).__name__}"
                )
        with self._changed:
            self._scripts += [(script, script.times) for script in scripts]

    def clear(self) -> None:
        """Forget the scripts that are queued, one with `times=0` as well.

        Requests that have taken theirs go on with it.
        """
        with self._changed:
            self._scripts.clear()

    @property
    def generations(self) -> tuple[Generation, ...]:
        """The answers generated lately, in order: some hundreds, and no huge ones.

        A response that goes on with an answer behind a cursor is not another one.
        """
        return self._service.generations

    def answer(
        self,
        body: dict[str, Any],
        sample: int | None = None,
        script: Script = Script(),  # noqa: B008 - frozen
    ) -> Answer:
        """Return what such a request is answered: next time, or as that sample.

        Raises:
            Refused: By such a script it is refused.
        """
        return self._service.answer(body, script, sample)

    def body(
        self,
        body: dict[str, Any],
        script: Script = Script(),  # noqa: B008 - frozen
        sample: int | None = None,
    ) -> bytes:
        """Return the event stream of `answer`, byte for byte, uncut."""
        answer = self.answer(body, sample, script)
        return b"".join(chat.event_stream(answer, body, script))

    def wait_until(self, condition: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Wait until `condition()` holds; tell whether it does.

        It is looked at whenever `requests` or `open_connections` changed.
        """
        deadline = time.monotonic() + timeout
        while True:
            seen = self._changes
            if condition():
                return True
            # The condition is not ours, so it is not asked under the lock.
            with self._changed:
                left = deadline - time.monotonic()
                if not self._changed.wait_for(lambda: self._changes != seen, left):  # noqa: B023
                    return False

    def drop_all(self) -> None:
        """End every live connection with a RST; returns when it is done."""
        with self._changed:
            if self._closed.is_set():
                return
            threads, alarm = tuple(self._threads), self._alarm
            self._alarm = Alarm()
        _stop(alarm, threads, reset=True)

    def serve_forever(self) -> None:
        """Wait until another thread calls `close()`, or for Ctrl-C."""
        # In turns, because a wait without end cannot be interrupted on Windows.
        while not self._closed.wait(1.0):
            pass

    def close(self) -> None:
        """End everything; returns when no thread and no socket is left.

        Called again, it does nothing.
        """
        with self._changed:
            if self._closed.is_set():
                return
            self._closed.set()
        self._closing.ring(reset=False)
        self._acceptor.join()
        self._listener.close()
        self._closing.close()
        with self._changed:
            threads, alarm = tuple(self._threads), self._alarm
        _stop(alarm, threads, reset=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Simulator {self._base_url}>"

    def _accept(self) -> None:
        with self._selector as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._closing.socket, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._closing.socket in ready:
                    return
                try:
                    sock, _ = self._listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue
                except OSError:
                    # Out of descriptors: wait for some rather than spin.
                    self._closed.wait(_NO_DESCRIPTORS)
                    continue
                self._begin(sock)

    def _begin(self, sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                sock = self._tls.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
        except OSError:
            sock.close()
            return
        with self._changed:
            self._accepted += 1
            thread = threading.Thread(
                target=self._converse,
                args=(Peer(sock, self._alarm), self._accepted),
                name=f"simulator-{self._accepted}",
                daemon=True,
            )
            self._threads.add(thread)
            # Under the lock, so that nobody finds a thread he can't join.
            thread.start()
            self._notify()

    def _converse(self, peer: Peer, number: int) -> None:
        try:
            peer.handshake()
            while self._serve(peer, number):
                pass
        except Dropped as order:
            if order.reset:
                peer.reset()
        except Gone:
            pass
        finally:
            peer.close()
            with self._changed:
                self._threads.discard(threading.current_thread())
                self._notify()

    def _serve(self, peer: Peer, number: int) -> bool:
        try:
            request = read_request(peer, number)
        except BadRequest as error:
            return _refuse(peer, str(error))
        own = request.headers.get(_SCRIPT_HEADER)
        with self._changed:
            self._requests.append(request)
            count = len(self._requests)
            queued = own is None and takes_script(request)
            script = self._next_script() if queued else Script()
            self._notify()
        if own is not None:
            try:
                script = Script.parse(own)
            except ValueError as error:
                return _refuse(peer, f"X-Simulator: {error}")
        response = self._service.respond(request, script)
        response.headers["x-request-id"] = f"req_{count:08d}"
        return play(peer, response, script, keep_alive=request.keep_alive)

    def _notify(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def _next_script(self) -> Script:
        if not self._scripts:
            return Script()
        script, left = self._scripts[0]
        if left == 1:
            self._scripts.popleft()
        elif left:
            self._scripts[0] = script, left - 1
        return script


def _refuse(peer: Peer, message: str) -> bool:
    body = json.dumps(error_body(400, message)).encode()
    response = Response(400, "application/json", (body,), {})
    return play(peer, response, Script(), keep_alive=False)


def _stop(alarm: Alarm, threads: Sequence[threading.Thread], *, reset: bool) -> None:
    alarm.ring(reset=reset)
    deadline = time.monotonic() + _JOIN
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if stuck := [thread.name for thread in threads if thread.is_alive()]:
        raise RuntimeError(f"still at work, in a `text` function? {stuck}")
    alarm.close()
