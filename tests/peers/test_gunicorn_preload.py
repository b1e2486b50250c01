"""A client made before gunicorn forks its workers: nothing of it is shared, or stuck.

Two workers with 32 threads each. What is held at the gates of the simulator says who is
in the middle of what, so that a worker is killed exactly there.
"""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
import requests
from loopback import SOON, free_port, until
from peer_presence import need, need_packages
from peer_processes import Server

from holystream.simulator import Script, Simulator

THREADS, PERMITS = 32, 24
VIEWERS = 2 * THREADS
HELD = 2 * PERMITS
"""Of the viewers, so many have a permit of their worker; the others wait for one."""


@dataclass(kw_only=True)
class Site:
    """The application under gunicorn, and what it asks."""

    url: str
    master: int
    simulator: Simulator
    gate: threading.Semaphore
    under_way: Path | None

    def expected(self, prompt: str) -> str:
        """Return the answer to a prompt."""
        messages = [{"role": "user", "content": prompt}]
        body = {"model": "sim", "messages": messages, "temperature": 0}
        return self.simulator.answer(body).text


@pytest.fixture(scope="module", params=["made", "used"])
def site(request, tmp_path_factory):
    need_packages("gunicorn")
    need(Path("/proc/self/fd").is_dir(), "a /proc file system")
    folder, port = tmp_path_factory.mktemp("preload"), free_port()
    gate = threading.Semaphore(2)
    with Simulator(length=30) as simulator:
        options = {
            "--bind": f"127.0.0.1:{port}",
            "--worker-class": "gthread",
            "--workers": "2",
            "--threads": str(THREADS),
            # Else one worker may accept what only the other has a thread for.
            "--worker-connections": str(THREADS),
            "--keep-alive": "0",
        }
        settings = {"UPSTREAM": simulator.base_url, "PERMITS": str(PERMITS)}
        under_way = None
        if request.param == "used":
            under_way = folder / "text"
            settings["JOURNAL"] = str(folder / "journal.db")
            settings["UNDER_WAY"] = str(under_way)
            simulator.play(Script(gate=gate))
        command = [sys.executable, "-m", "gunicorn", "preloaded_app:app", "--preload"]
        command += ["--no-control-socket", *sum(options.items(), ())]
        for name, value in settings.items():
            command += ["--env", f"{name}={value}"]
        with Server(command, ("127.0.0.1", port), folder / "log") as server:
            yield Site(
                url=f"http://127.0.0.1:{port}",
                master=server.pid,
                simulator=simulator,
                gate=gate,
                under_way=under_way,
            )


class Viewer:
    """A thread that reads one answer."""

    def __init__(self, site: Site, **query: str) -> None:
        self.text = ""
        self.worker: int | None = None
        self.stream: str | None = None
        self.error: Exception | None = None
        self._site, self._query = site, query
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def end(self) -> Self:
        """Wait for the end of the answer."""
        self._thread.join(SOON)
        assert not self._thread.is_alive(), "the viewer still waits"
        return self

    def _run(self) -> None:
        try:
            with requests.get(
                self._site.url, self._query, stream=True, timeout=SOON
            ) as response:
                response.raise_for_status()
                self.worker = int(response.headers["X-Worker"])
                self.stream = response.headers["X-Stream"]
                response.encoding = "utf-8"
                for text in response.iter_content(None, decode_unicode=True):
                    self.text += text
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error


@contextlib.contextmanager
def held_viewers(site, *queries):
    """All threads of both workers are in the middle of an answer, or wait for a permit.

    They go on when the block ends.
    """
    gates = [threading.Semaphore(3) for _ in range(HELD)]
    site.simulator.play(*[Script(gate=gate) for gate in gates])
    viewers = [Viewer(site, **query).start() for query in queries]
    assert len(viewers) == VIEWERS
    try:
        until(lambda: sum(bool(viewer.text) for viewer in viewers) == HELD, "begun")
        yield viewers
    finally:
        for gate in gates:
            gate.release(10_000)


def questions(name, count):
    return [{"q": f"{name}, question {number}"} for number in range(count)]


def answers(viewers):
    return {viewer.text for viewer in viewers if viewer.error is None}


def workers_of_connections(site):
    """Return the processes that have sent requests over each connection."""
    found = collections.defaultdict(set)
    for request in site.simulator.requests:
        found[request.connection].add(request.headers["x-worker"])
    return found


def sockets(pid):
    """Return the sockets a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(str(entry.readlink()))
    return {each for each in found if each.startswith("socket:")}


def upstream_sockets(site, pid):
    """Return those of a process that are connected to the simulator."""
    connected = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[2].rpartition(":")[2], 16) == site.simulator.port:
            connected.add(f"socket:[{fields[9]}]")
    return sockets(pid) & connected


def workers(site):
    return {
        int(child)
        for task in Path(f"/proc/{site.master}/task").iterdir()
        for child in (task / "children").read_text().split()
    }


def test_hundreds_of_requests_from_many_threads(site):
    wrong = []

    def view(name):
        for query in questions(name, 6):
            viewer = Viewer(site, **query).start().end()
            if viewer.error or viewer.text != site.expected(query["q"]):
                wrong.append((query, viewer.text, viewer.error))

    threads = [
        threading.Thread(target=view, args=(f"Viewer {number}",), daemon=True)
        for number in range(VIEWERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(3 * SOON)
        assert not thread.is_alive()
    assert wrong == []
    assert len(site.simulator.requests) >= 6 * VIEWERS
    assert {len(some) for some in workers_of_connections(site).values()} == {1}


def test_no_two_processes_have_the_same_connection(site):
    asked = questions("Together", VIEWERS)
    with held_viewers(site, *asked) as viewers:
        both = {viewer.worker for viewer in viewers} - {None}
        assert both == workers(site)
        one, other = (upstream_sockets(site, worker) for worker in both)
        masters = upstream_sockets(site, site.master)
        assert len(masters) == (0 if site.under_way is None else 2)
        assert not masters & one
        assert not masters & other
        assert not one & other
        assert min(len(one), len(other)) >= PERMITS
    assert [viewer.end().error for viewer in viewers] == [None] * VIEWERS
    assert answers(viewers) == {site.expected(query["q"]) for query in asked}
    assert {len(some) for some in workers_of_connections(site).values()} == {1}


def test_a_worker_is_killed_in_the_middle(site):
    asked = questions("Killed", VIEWERS)
    with held_viewers(site, *asked) as viewers:
        before = workers(site)
        killed = next(viewer.worker for viewer in viewers if viewer.worker)
        os.kill(killed, signal.SIGKILL)
        until(lambda: len(workers(site) - before) == 1, "nobody in its place")
    (survivor,) = before - {killed}
    served = collections.Counter(viewer.end().worker for viewer in viewers)
    # Those who waited for a permit of the one that was killed never learnt its name;
    # those whom it had not yet accepted need not notice.
    assert served[killed] == PERMITS
    assert served[None] <= THREADS - PERMITS
    for query, viewer in zip(asked, viewers, strict=True):
        whole = site.expected(query["q"])
        if viewer.worker in {killed, None}:
            assert viewer.error is not None
            assert whole.startswith(viewer.text)
            assert viewer.text != whole
        else:
            assert (viewer.text, viewer.error) == (whole, None)

    # Whoever took its place does all that it did, and what it left undone.
    again = questions("After", VIEWERS)
    texts = [site.expected(query["q"]) for query in again]
    if site.under_way is not None:
        for number, viewer in enumerate(viewers):
            if viewer.worker == killed:
                again[number] = {"id": viewer.stream}
                texts[number] = site.expected(asked[number]["q"])
    with held_viewers(site, *again) as viewers:
        both = {viewer.worker for viewer in viewers} - {None}
        assert survivor in both
        assert both == workers(site) != before
    for viewer, text in zip(viewers, texts, strict=True):
        assert (viewer.end().text, viewer.error) == (text, None)
    assert {len(some) for some in workers_of_connections(site).values()} == {1}


def test_the_stream_under_way_in_the_first_process_ends_right(site):
    if site.under_way is None:
        pytest.skip("this client was not used before the fork")
    for _ in range(2):
        assert Viewer(site, q="beside it").start().end().text
    assert not site.under_way.exists()
    site.gate.release(10_000)
    until(site.under_way.exists, "the first process reads")
    text = site.under_way.read_text(encoding="utf-8")
    assert text == site.expected("through the fork")
    asked = [
        request
        for request in site.simulator.requests
        if request.headers["x-worker"] == str(site.master)
    ]
    assert len(asked) == 2
