"""Callers of a pool, for the tests of it.

Nothing here sleeps to synchronise. A waiter is known to be in the queue because the
pool subscribes to its cancel token only once it is: `Queued` turns that into an event,
and into a place from which a test can act in the middle of an ``acquire``.
"""

from __future__ import annotations

import threading

from holystream.clocks import CancelToken

SOON = 20.0
"""Seconds within which whatever should happen has happened on any machine."""

FAR = 30.0
"""Seconds of a wait that a test must beat."""


class Queued(CancelToken):
    """A token that tells when its acquirer stands in the queue, and acts there."""

    def __init__(self, act=lambda: None):
        super().__init__()
        self.event = threading.Event()
        self.act = act

    def on_cancel(self, callback):
        forget = super().on_cancel(callback)
        self.event.set()
        self.act()
        return forget


class Late(CancelToken):
    """A token by which a test acts when its acquirer has slept, and knows no more."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_cancel(self, callback):
        forget = super().on_cancel(callback)

        def slept():
            forget()
            self.act()

        return slept


class Acquirer(threading.Thread):
    """Acquires in a thread of its own; constructed, it stands in the queue."""

    def __init__(self, pool, *, timeout=FAR, done=None, **options):
        super().__init__(daemon=True)
        self.done = done
        self.pool, self.timeout, self.options = pool, timeout, options
        self.token = Queued()
        self.permit = self.error = None
        self.start()
        assert self.token.event.wait(SOON)

    def run(self):
        try:
            self.permit = self.take()
            if self.done is not None:
                # In the order of the grants, for with one permit one thread is here.
                self.done.append(self)
                self.permit.release()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def take(self):
        return self.pool.acquire(
            timeout=self.timeout, cancel=self.token, **self.options
        )

    def outcome(self):
        self.join(SOON)
        assert not self.is_alive()
        return self.permit or self.error


def acquired_elsewhere(pool):
    """Return a permit that another thread acquired, without waiting."""
    permits = []
    thread = threading.Thread(target=lambda: permits.append(pool.acquire()))
    thread.start()
    thread.join(SOON)
    return permits.pop()


def in_use(pool):
    return pool.statistics().in_use


class Returner(Acquirer):
    """The same, of one who had a permit before."""

    def take(self):
        return self.pool.reacquire(cancel=self.token, **self.options)


class Holder:
    """Somebody who holds permits and can be asked."""

    def __init__(self, stream_id, idle=0.0):
        self.stream_id = stream_id
        self.seconds = idle
        self.token = CancelToken()
        self.cancels = 0
        self.permit = None

    def idle(self):
        return self.seconds

    def cancel(self):
        self.cancels += 1
        self.token.cancel()
        if self.permit is not None:
            self.permit.release()
