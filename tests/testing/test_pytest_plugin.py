"""The plugin as its users meet it: installed, in a pytest of their own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import _holystream_pytest

pytest_plugins = ["pytester"]


@pytest.fixture
def passes(pytester, monkeypatch):
    """Run tests in a fresh interpreter, where every warning is an error."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def check(source, count, *options):
        pytester.makepyfile(source)
        result = pytester.runpytest_subprocess("-W", "error", *options)
        result.assert_outcomes(passed=count)

    return check


def test_it_is_installed_for_every_pytest(pytestconfig):
    plugin = pytestconfig.pluginmanager.get_plugin("holystream")
    assert plugin is _holystream_pytest


def test_the_fixtures_work_together(passes):
    passes(
        """
        import holystream
        from holystream.simulator import Script

        def test_retry(holystream_simulator, holystream_client, holystream_clock):
            holystream_simulator.play(Script(status=503, times=2))
            with holystream_client.stream("hello") as stream:
                assert stream.get_final_text()
            assert len(holystream_simulator.requests) == 3
            assert holystream_clock.waits == [0.5, 1.0]

        def test_each_test_has_its_own(
            holystream_simulator, holystream_client, holystream_clock
        ):
            assert holystream_clock.waits == []
            assert holystream_simulator.requests == ()
            assert holystream_simulator.base_url in repr(holystream_client)
        """,
        2,
    )


def test_the_clock_is_gone_after_the_test(passes):
    passes(
        """
        from holystream import Client
        from holystream.testing import SleeplessClock

        def test_with(holystream_clock):
            assert Client._time is holystream_clock

        def test_without():
            assert not isinstance(Client._time, SleeplessClock)
        """,
        2,
    )


def test_the_simulator_is_closed_after_the_test(passes):
    passes(
        """
        import threading
        simulators = []

        def test_with(holystream_simulator, holystream_client):
            holystream_client.stream("hello").until_done()
            simulators.append(holystream_simulator)

        def test_without():
            assert simulators[0].open_connections == 0
            assert threading.enumerate() == [threading.main_thread()]
        """,
        2,
    )


def test_a_silent_server_does_not_hold_a_test_for_minutes(holystream_client):
    timeouts = holystream_client._settings.timeouts
    assert max(timeouts.connect, timeouts.first_token, timeouts.idle) <= 10


def test_a_project_that_does_not_use_it_pays_nothing(passes):
    passes(
        """
        import sys

        def test_nothing_was_loaded():
            costly = {
                "holystream", "requests", "urllib3", "msgspec", "tenacity",
                "flask", "django", "responses",
            }
            assert "_holystream_pytest" in sys.modules
            assert costly & set(sys.modules) == set()
        """,
        1,
    )


def test_a_broken_installation_harms_no_other_test(pytester, passes):
    pytester.makeconftest("import sys; sys.modules['holystream'] = None")
    passes("def test_anything(): pass", 1)


def test_it_can_be_left_out(passes):
    passes(
        """
        import sys

        def test_it_is_not_there(request):
            assert "_holystream_pytest" not in sys.modules
        """,
        1,
        "-p",
        "no:holystream",
    )


def test_no_name_of_it_collides_and_each_is_explained():
    tree = ast.parse(Path(_holystream_pytest.__file__).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert functions
    for function in functions:
        assert function.name.startswith("holystream_")
        assert ast.get_docstring(function)
