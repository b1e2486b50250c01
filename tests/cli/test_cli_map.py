"""``holystream map``: its lines in and out, its end by any means, and going on."""

from __future__ import annotations

import collections
import gc
import importlib
import io
import json
import re
import signal
import stat
import subprocess
import sys
import time

import pytest

from holystream import Interrupted, Map, StreamError, Waiting
from holystream.cli import main, prompts, results, retries
from holystream.simulator import Script


@pytest.fixture
def files(tmp_path):
    return tmp_path / "in.jsonl", tmp_path / "out.jsonl"


@pytest.fixture
def words(sim, files):
    """The command over these files."""

    def made(*others, out=True):
        given, output = files
        more = ("--out", str(output)) if out else ()
        host = ("--model", "m", "--base-url", sim.base_url)
        return ("map", str(given), *more, *host, *others)

    return made


def write(path, *items):
    path.write_text("".join(f"{json.dumps(item)}\n" for item in items))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def lines_in(path):
    return path.read_bytes().count(b"\n")


def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_line_for_each_item(run, words, files):
    given, out = files
    write(
        given,
        "echo:a",
        {"prompt": "echo:b", "id": "bee"},
        {"messages": [{"role": "user", "content": "echo:c"}], "id": 3},
    )
    result = run(*words())
    assert (result.status, result.out) == (0, "")
    assert result.err.endswith("holystream: 3 done\n")
    found = {record["index"]: record for record in read(out)}
    assert [found[n]["text"] for n in range(3)] == ["a", "b", "c"]
    assert [found[n].get("id") for n in range(3)] == [None, "bee", 3]
    assert found[0]["finish_reason"] == "stop"
    assert found[0]["guarantee"] == "SINGLE"
    assert found[0]["usage"]["completion_tokens"] > 0


def test_without_out_the_lines_go_to_stdout(run, words, sim):
    result = run("map", "-", *words(out=False)[2:], given=b'"echo:a"\n\n"echo:b"\n')
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert sorted(line["text"] for line in lines) == ["a", "b"]
    assert result.status == 0


def test_any_text_is_a_line(run, words, files):
    given, out = files
    text = "naïve \N{GRINNING FACE}\u2028\x85\n\x00 \\"
    write(given, f"echo:{text}")
    run(*words())
    assert out.read_bytes().count(b"\n") == 1
    assert read(out)[0]["text"] == text


def test_options_reach_the_requests(run, words, files, sim):
    write(files[0], {"prompt": "echo:a", "max_tokens": 5, "model": "own"}, "echo:b")
    given = ("--max-tokens", "9", "--temperature", "0", "--seed", "3")
    assert run(*words(*given, "--concurrency", "1")).status == 0
    one, other = [request.json for request in sim.requests]
    assert (one["model"], one["max_tokens"]) == ("own", 5)
    assert (other["model"], other["max_tokens"]) == ("m", 9)
    assert other["temperature"] == 0
    assert other["seed"] == 3


def test_what_is_done_is_not_asked_again(run, words, files, sim):
    given, out = files
    write(given, *[f"echo:{n}" for n in range(5)])
    run(*words())
    before = out.read_bytes()
    write(given, *[f"echo:{n}" for n in range(7)])
    result = run(*words())
    assert (result.status, len(sim.requests)) == (0, 7)
    assert "2 done, 5 done before" in result.err
    assert out.read_bytes().startswith(before)
    assert sorted(record["index"] for record in read(out)) == list(range(7))


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--model", "other"), "with --model m, now with --model other"),
        (("--temperature", "0"), "without --temperature, now with --temperature 0.0"),
        (("--seed", "3"), "--seed"),
        (("--max-tokens", "9"), "--max-tokens"),
        (
            ("--provider", "vllm"),
            "with --provider openai-compatible, now with --provider vllm",
        ),
    ],
)
def test_answers_to_other_options_are_not_kept_in_silence(  # noqa: PLR0917 - fixtures
    run, words, files, sim, environment, changed, named
):
    environment["VLLM_API_KEY"] = environment["HOLYSTREAM_API_KEY"]
    given, out = files
    write(given, "echo:a", "echo:b")
    sim.play(Script(status=400), Script())
    assert run(*words("--concurrency", "1")).status == 1
    before = out.read_bytes()
    asked = len(sim.requests)
    result = run(*words(*changed))
    assert result.status == 2
    assert named in result.err
    assert "give another --out, or the options of then" in result.err
    assert (out.read_bytes(), len(sim.requests)) == (before, asked)
    assert run(*words()).status == 0


def test_options_that_an_item_has_of_its_own_may_change_for_others(run, words, files):
    write(files[0], {"prompt": "echo:a", "model": "own", "seed": 1, "temperature": 0})
    assert run(*words()).status == 0
    result = run(*words("--model", "x", "--seed", "2", "--temperature", "1"))
    assert (result.status, "0 done, 1 done before" in result.err) == (0, True)


def test_an_output_from_before_options_were_noted_is_gone_on_with(run, words, files):
    given, out = files
    write(given, "echo:a", "echo:b")
    assert run(*words()).status == 0
    found = read(out)
    for record in found:
        del record["request"]
    write(out, *found)
    result = run(*words("--seed", "3"))
    assert (result.status, "2 done before" in result.err) == (0, True)


def test_an_item_that_is_tried_again_is_told_once(run, words, files, sim):
    write(files[0], "echo:a")
    sim.play(Script(status=503, headers={"Retry-After": "0.01"}, times=2))
    result = run(*words())
    assert result.status == 0
    lines = result.err.splitlines()
    told = [line for line in lines if line.startswith("holystream: line 1: attempt 2 ")]
    assert len(told) == 1, result.err
    assert "503" in told[0]
    assert not any("attempt 3" in line for line in lines)
    assert lines[-1] == "holystream: 1 done; 2 attempts failed and were made again"


def test_verbose_tells_all_that_happens_to_an_item(run, words, files, sim):
    write(files[0], "echo:a")
    sim.play(Script(status=503, headers={"Retry-After": "0.01"}, times=2))
    told = run(*words("-v")).err
    assert told.count("holystream: line 1: interrupted: Overloaded: ") == 2
    assert "holystream: line 1: connected to " in told
    for number in (2, 3):
        assert re.search(rf"line 1: waiting .* s \(.*\) for attempt {number}\n", told)


def test_without_a_model_nothing_is_asked(run, sim, files):
    given, out = files
    write(given, {"prompt": "echo:a", "model": "own"}, "echo:b", "echo:c")
    command = ("map", str(given), "--out", str(out), "--base-url", sim.base_url)
    result = run(*command)
    assert result.status == 2
    assert "line 2 names no model: give --model" in result.err
    assert not out.exists()
    assert sim.requests == ()
    write(given, {"prompt": "echo:a", "model": "own"})
    assert run(*command).status == 0
    piped = run("map", "-", *command[4:], given=b'"echo:b"\n"echo:c"\n')
    assert (piped.status, piped.out) == (2, "")
    assert len(sim.requests) == 1


def test_a_misspelt_field_is_told_with_those_there_are(run, words, files):
    write(files[0], {"promt": "echo:a"}, {"prompt": "a", "max_completion_tokens": 1})
    assert run(*words()).status == 1
    first, second = (record["error"]["message"] for record in read(files[1]))
    assert first.startswith('there is no field "promt": did you mean "prompt"? ')
    for name in ("id", "messages", "max_tokens", "extra_body"):
        assert name in first
    assert '"max_tokens"' in second


def test_what_failed_is_tried_again_and_has_one_line(run, words, files, sim):
    given, out = files
    write(given, *[f"echo:{n}" for n in range(5)])
    out.touch(mode=0o640)
    sim.play(Script(status=400, times=2))
    result = run(*words("--concurrency", "1"))
    assert result.status == 1
    assert "3 done, 2 failed" in result.err
    assert "line 1 failed: BadRequest" in result.err
    failed = [record["error"] for record in read(out) if "error" in record]
    assert [error["type"] for error in failed] == ["BadRequest"] * 2
    assert all(error["message"] for error in failed)
    assert run(*words()).status == 0
    assert sorted(record["text"] for record in read(out)) == list("01234")
    assert stat.S_IMODE(out.stat().st_mode) == 0o640
    assert set(out.parent.iterdir()) == {given, out}


def test_a_text_that_broke_off_is_kept_with_its_error(run, words, files, sim):
    write(files[0], "hello")
    sim.play(Script(cut_at=3000, sampling=True, times=0))
    run(*words("--resume", "replay", "--timeout", "20"))
    (found,) = read(files[1])
    assert "text" not in found
    assert found["error"]["type"] == "StreamInterrupted"
    assert found["error"]["partial_text"]


def test_mistakes_are_failures_and_nothing_is_sent_for_them(run, words, files, sim):
    given, out = files
    given.write_bytes(
        b"\xef\xbb\xbf"
        + b"\n".join(
            [
                *(
                    b"not JSON",
                    b"5",
                    b'{"promt": 1}',
                    b'{"prompt": "a", "messages": []}',
                ),
                *(b'{"prompt": "a", "id": [1]}', b"{}", b"\xff", b"[" * 9999),
                *(b"", b'{"prompt": ""}', b'"echo:right"'),
            ]
        )
    )
    result = run(*words())
    assert result.status == 1
    found = read(out)
    assert [record["text"] for record in found if "text" in record] == ["right"]
    assert {record["error"]["type"] for record in found if "error" in record} == {
        "InvalidRequest"
    }
    assert len(found) == 10
    assert len(sim.requests) == 1


def test_fail_fast_ends_with_the_status_of_the_failure(run, words, files, sim):
    given, out = files
    write(given, *[f"echo:{n}" for n in range(50)])
    sim.play(Script(status=401, times=0))
    result = run(*words("--fail-fast", "--concurrency", "1"))
    assert result.status == 3
    assert len(read(out)) == 1
    assert len(sim.requests) <= 3


def test_the_same_id_twice_is_refused_before_anything_is_asked(run, words, files, sim):
    write(files[0], *({"prompt": "echo:a", "id": n} for n in (1, 2, 3, 1)))
    result = run(*words())
    assert result.status == 2
    assert "lines 1 and 4 have the same id" in result.err
    assert sim.requests == ()


def test_the_same_id_twice_in_a_pipe_is_refused_when_it_comes(run, words, sim):
    item = json.dumps({"prompt": "echo:a", "id": 1})
    result = run("map", "-", *words(out=False)[2:], given=f"{item}\n{item}\n".encode())
    assert result.status == 2
    assert "lines 1 and 2 have the same id" in result.err
    assert len(sim.requests) == 1


def test_the_answers_to_another_input_are_left(run, words, files):
    given, out = files
    write(given, "echo:a", "echo:b")
    run(*words())
    before = out.read_bytes()
    write(given, "echo:b", "echo:a")
    result = run(*words())
    assert result.status == 2
    assert "line 1 is not what" in result.err
    assert out.read_bytes() == before


def test_so_they_are_where_only_a_later_line_is_another(run, words, files, sim):
    given, out = files
    write(given, {"prompt": "echo:a"}, {"prompt": 5}, {"prompt": "echo:b"})
    run(*words())
    before = out.read_bytes()
    assert before.count(b'"error"') == 1
    write(given, {"prompt": "echo:a"}, {"prompt": "echo:new"}, {"prompt": "echo:c"})
    sent = len(sim.requests)
    result = run(*words())
    assert result.status == 2
    assert "line 3 is not what" in result.err
    assert out.read_bytes() == before
    assert len(sim.requests) == sent


@pytest.mark.parametrize("piped", [False, True])
def test_an_input_that_has_none_of_the_answered_items_is_another(
    run, words, files, sim, piped
):
    given, out = files

    def asked(*items):
        write(given, *items)
        if piped:
            return run("map", "-", *words()[2:], given=given.read_bytes())
        return run(*words())

    one, two, five, six = ({"prompt": f"echo:{n}", "id": n} for n in (1, 2, 5, 6))
    assert asked(one, two).status == 0
    before, sent = out.read_bytes(), len(sim.requests)
    for others in ([five, six], ["echo:x", "echo:y"], [one, five], [two], []):
        result = asked(*others)
        assert result.status == 2
        assert "which is no item of this input" in result.err
        assert "give the file of then, or another --out" in result.err
        assert (out.read_bytes(), len(sim.requests)) == (before, sent)
    result = asked(five, two, six, one)
    assert (result.status, len(sim.requests)) == (0, sent + 2)
    assert "2 done, 2 done before" in result.err
    assert [record["id"] for record in read(out)][:2] in ([1, 2], [2, 1])
    assert {record["id"]: record["text"] for record in read(out)} == {
        n: f"{n}" for n in (1, 2, 5, 6)
    }


def test_blank_lines_in_an_output_are_nothing(run, words, files, sim):
    given, out = files
    write(given, "echo:a", "echo:b")
    run(*words())
    before = out.read_bytes()
    out.write_bytes(before + b"\n")
    assert run(*words()).status == 0
    assert out.read_bytes() == before
    out.write_bytes(before.replace(b"\n", b"\n \r\n", 1) + b"  ")
    assert run(*words()).status == 0
    assert out.read_bytes() == before
    assert len(sim.requests) == 2


def test_the_results_come_while_a_pipe_is_quiet(sim, start, finish, words):
    """The next prompt is sent when the result of the one before is there."""
    process = start("map", "-", *words(out=False)[2:], stdin=subprocess.PIPE)
    for n in range(3):
        process.stdin.write(f'"echo:{n}"\n'.encode())
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["text"] == f"{n}"
    result = finish(process)
    assert (result.status, result.out) == (0, "")
    assert result.err.endswith("holystream: 3 done\n")


def test_a_ctrl_c_while_a_pipe_is_quiet(sim, start, finish, words):
    sim.play(Script(), Script(stall_headers=True))
    process = start("map", "-", *words(out=False)[2:], stdin=subprocess.PIPE)
    process.stdin.write(b'"echo:a"\n')
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["text"] == "a"
    process.stdin.write(b'"echo:b"\n')
    process.stdin.flush()
    assert sim.wait_until(lambda: len(sim.requests) == 2)
    process.send_signal(signal.SIGINT)
    # Its input stays open.
    assert process.wait(50) == 130
    assert finish(process).err.endswith("holystream: stopped by Ctrl-C: 1 done\n")


def test_what_had_come_is_written_when_ctrl_c_strikes_amid_a_line(
    sim, words, files, monkeypatch, capsys
):
    class Struck(io.BytesIO):
        """Is interrupted at its first line, when the next answer is there, too."""

        struck = False

        def write(self, data):
            written = super().write(data)
            if not self.struck:
                self.struck = True
                (asked,) = [one for one in gc.get_objects() if type(one) is Map]
                until(lambda: asked._ends.qsize() == 1)
                raise KeyboardInterrupt
            return written

    raw = Struck()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, write_through=True))
    monkeypatch.setenv("HOLYSTREAM_API_KEY", "sk-4711-do-not-show-me")
    write(files[0], "echo:a", "echo:b")
    assert main(words("--concurrency", "1", out=False)) == 130
    lines = raw.getvalue().decode().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["a", "b"]
    assert "stopped by Ctrl-C" in capsys.readouterr().err


def test_out_may_be_stdout(run, words, tmp_path):
    write(tmp_path / "in.jsonl", "echo:a")
    result = run(*words("--out", "-", out=False), cwd=tmp_path)
    assert result.status == 0
    assert json.loads(result.out)["text"] == "a"
    assert not (tmp_path / "-").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"# A readme\n",
        b"no line end",
        b'{"index": 0}\n',
        b'{"index": 0, "item": "x", "text": "a"}\nrubbish\n{"ind',
        b"\0\0\0\0",
        b'["index"]\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_file_of_something_else_is_left_as_it_is(run, words, files, sim, content):
    given, out = files
    write(given, "echo:a")
    out.write_bytes(content)
    result = run(*words())
    assert result.status == 2
    assert "is left as it is" in result.err
    assert out.read_bytes() == content
    assert sim.requests == ()


def test_an_output_is_written_by_one_process(  # noqa: PLR0917 - fixtures
    sim, start, finish, words, files, run
):
    write(files[0], "echo:a")
    sim.play(Script(stall_headers=True))
    first = start(*words())
    assert sim.wait_until(lambda: len(sim.requests) == 1)
    second = run(*words())
    assert second.status == 2
    assert "another process is writing" in second.err
    first.send_signal(signal.SIGINT)
    assert finish(first).status == 130


@pytest.mark.parametrize(
    ("given", "out", "complaint"),
    [
        ("missing", "out", "no file of prompts"),
        (".", "out", "no file of prompts"),
        ("there", "there", "the file of the prompts"),
        ("there", "/dev/null", "must be a file"),
        ("there", "no/such/folder", "No such file"),
    ],
)
def test_files_that_cannot_be(  # noqa: PLR0917 - fixtures
    run, sim, tmp_path, given, out, complaint
):
    write(tmp_path / "there", "echo:a")
    result = run(
        *("map", given, "--out", out, "--model", "m", "--base-url", sim.base_url),
        cwd=tmp_path,
    )
    assert result.status == 2
    assert complaint in result.err
    assert sim.requests == ()


def test_what_waits_without_an_attempt_is_no_retry(capsys):
    told = retries.Retries(verbose=False)
    for reason in ("circuit open", "server hint"):
        tell = told.of(7)
        for _ in range(3):
            tell(Waiting(delay=5.0, reason=reason, attempt=1))
        told._next = 0.0
    assert told.summary() == ""
    assert capsys.readouterr().err.splitlines() == [
        f"holystream: line 7: attempt 1 in 5.00 s{why}"
        for why in (
            " or sooner, as the host is left alone for now: other requests failed",
            ", as the server asks: another item was told so",
        )
    ]
    tell(Interrupted(error=StreamError("it broke"), attempt=1))
    tell(Waiting(delay=1.0, reason="backoff", attempt=2))
    tell(Waiting(delay=5.0, reason="circuit open", attempt=2))
    assert told.summary() == "; 1 attempt failed and was made again"


def test_a_line_says_why_it_takes_longer_than_a_retry(capsys):
    tell = retries.Retries(verbose=False).of(7)
    tell(Interrupted(error=StreamError("the connection broke"), attempt=4))
    tell(Waiting(delay=61.16, reason="circuit open", attempt=5))
    assert capsys.readouterr().err == (
        "holystream: line 7: attempt 5 in 61.16 s or sooner, as the host is left alone "
        "for now: the connection broke\n"
    )


def test_a_host_that_never_comes_back_ends_it(sim, words, files, monkeypatch, capsys):
    mapped = importlib.import_module("holystream.mapping.mapped")
    monkeypatch.setattr(mapped, "OUTAGE", 0.1)
    monkeypatch.setenv("HOLYSTREAM_API_KEY", "sk-4711-do-not-show-me")
    sim.play(Script(status=503, times=0))
    write(files[0], "echo:a", "echo:b", "echo:c")
    assert main(words("--concurrency", "2")) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert "error: no item was answered" in last
    assert last.endswith("; the same command goes on")


def test_a_ctrl_c_ends_it_cleanly(sim, start, finish, words, files):
    given, out = files
    write(given, *[f"echo:{n}" for n in range(20)])
    sim.play(*[Script()] * 5, Script(stall_headers=True, times=0))
    process = start(*words("--concurrency", "2"))
    assert sim.wait_until(lambda: len(sim.requests) == 7)
    until(lambda: len(read(out)) == 5)
    process.send_signal(signal.SIGINT)
    result = finish(process)
    assert result.status == 130
    assert "stopped by Ctrl-C: 5 done; the same command goes on" in result.err
    assert len(read(out)) == 5


def test_killed_at_any_moment_each_item_is_there_once(sim, start, run, words, files):
    """Killed again and again, amid its work: then it is let to end."""
    given, out = files
    write(given, *[f"echo:{n}" for n in range(60)])
    for kills in range(1, 6):
        process = start(*words("--concurrency", "4"), stderr=subprocess.DEVNULL)
        until(lambda least=9 * kills: out.exists() and lines_in(out) >= least)
        process.kill()
        process.wait()
    asked = len(sim.requests)
    assert run(*words()).status == 0
    found = read(out)
    assert collections.Counter(record["index"] for record in found) == dict.fromkeys(
        range(60), 1
    )
    assert all(record["text"] == str(record["index"]) for record in found)
    # What was done was kept: only what was on its way is asked again.
    assert asked <= 60 + 5 * 12


ASKED = {"model": "m"}


def completion_line(index):
    line = prompts.parse(f'"echo:{index}"'.encode(), index, index + 1)
    return results.record(line, None, ValueError("no"), ASKED).replace(
        b'"error": {"type": "ValueError", "message": "no"}', b'"text": "%d"' % index
    )


@pytest.mark.parametrize("failed", [False, True])
def test_a_line_torn_at_any_byte_is_taken_off(tmp_path, failed):
    path = tmp_path / "out.jsonl"
    before = completion_line(0)
    line = prompts.parse(b'"echo:1"', 1, 2)
    last = completion_line(1)
    other = results.record(line, None, ValueError("no"), ASKED) if failed else b""
    for size in range(len(last) + 1):
        path.write_bytes(before + other + last[:size])
        lines = iter([prompts.parse(b'"echo:0"', 0, 1), line])
        with results.Results(str(path), ASKED, lines) as found:
            if size >= len(last) - 1:
                assert found.before == 2
            else:
                assert found.before == 1
                found.write(last)
        assert path.read_bytes() == before + last
        assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_ends_it_with_a_sentence(run, words, files, sim):
    """A limit on the size of files, which is met amid a line."""
    given, out = files
    write(given, *[f"echo:{n}" for n in range(50)])
    through = ("bash", "-c", 'ulimit -f 2; exec "$@"', "-")
    result = run(*words(), through=through)
    assert result.status == 1
    assert "File too large" in result.err
    assert out.stat().st_size <= 2048
    assert run(*words()).status == 0
    assert sorted(record["index"] for record in read(out)) == list(range(50))
