"""Who is alive: locks of the kernel, and files that come and go."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest
from strikes import interrupt, moments

from holystream.journal.owners import OwnerLock, bury, bury_all, is_alive


def test_an_owner_lives_until_it_is_closed(tmp_path):
    lock = OwnerLock(tmp_path)
    assert is_alive(tmp_path, lock.owner)
    assert is_alive(tmp_path, lock.owner)
    bury_all(tmp_path)
    lock.close()
    lock.close()
    assert not is_alive(tmp_path, lock.owner)
    assert list(tmp_path.iterdir()) == []


def test_each_has_a_name_of_its_own(tmp_path):
    locks = [OwnerLock(tmp_path) for _ in range(20)]
    names = {lock.owner for lock in locks}
    assert len(names) == 20
    assert all(name.startswith(f"{os.getpid()}-") for name in names)


def test_one_that_was_left_is_dead(tmp_path):
    name = "12-0123456789abcdef"
    (tmp_path / f"{name}.lock").touch()
    assert not is_alive(tmp_path, name)
    bury(tmp_path, name)
    bury(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


def test_another_who_looks_at_the_same_time_is_not_the_owner(tmp_path):
    name = "12-0123456789abcdef"
    with (tmp_path / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_alive(tmp_path, name)


@pytest.mark.parametrize("name", ["", "../x", "12-xyz", "12-0123456789abcdef/../x"])
def test_a_name_that_cannot_be_one_is_of_nobody(tmp_path, name):
    (tmp_path / "x.lock").touch()
    assert not is_alive(tmp_path, name)
    bury(tmp_path, name)
    assert (tmp_path / "x.lock").exists()


def test_a_file_that_was_taken_away_before_it_was_locked(tmp_path, monkeypatch):
    """Somebody swept it as that of a dead owner: the owner becomes another one."""
    lock_it, taken = fcntl.flock, []

    def flock(descriptor, operation):
        if not taken:
            (path,) = tmp_path.iterdir()
            taken.append(path.stem)
            bury_all(tmp_path)
        lock_it(descriptor, operation)

    monkeypatch.setattr("holystream.journal.owners.fcntl.flock", flock)
    lock = OwnerLock(tmp_path)
    monkeypatch.undo()
    assert taken != [lock.owner]
    assert is_alive(tmp_path, lock.owner)
    assert [path.stem for path in tmp_path.iterdir()] == [lock.owner]


def test_a_descriptor_is_not_handed_to_programs(tmp_path):
    lock = OwnerLock(tmp_path)
    assert not os.get_inheritable(lock._descriptor)
    lock.close()


def test_a_file_that_another_looks_at_before_it_is_locked(tmp_path, monkeypatch):
    """For a moment it holds the lock that tells the dead: the owner takes another."""
    lock_it, lookers = fcntl.flock, []

    def flock(descriptor, operation):
        if not lookers:
            (path,) = tmp_path.iterdir()
            lookers.append(path.open())
            lock_it(lookers[0], fcntl.LOCK_SH)
        lock_it(descriptor, operation)

    monkeypatch.setattr("holystream.journal.owners.fcntl.flock", flock)
    lock = OwnerLock(tmp_path)
    monkeypatch.undo()
    lookers[0].close()
    assert [path.stem for path in tmp_path.iterdir()] == [lock.owner]
    assert is_alive(tmp_path, lock.owner)


def test_no_ctrl_c_leaves_a_descriptor_open(tmp_path):
    owner = OwnerLock(tmp_path)
    folder = Path("/proc/self/fd")
    before = len(list(folder.iterdir()))
    for look in (
        lambda: is_alive(tmp_path, owner.owner),
        lambda: OwnerLock(tmp_path).close(),
    ):
        for strike in moments(("journal/owners.py",)):
            with contextlib.suppress(KeyboardInterrupt), strike.by(interrupt):
                look()
            assert len(list(folder.iterdir())) == before
    owner.close()
