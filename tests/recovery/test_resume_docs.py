"""Every example of docs/resume.md runs as it stands there, and earns what it says."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

import holystream
from holystream.cli import asked, recorded
from holystream.providers import registry
from holystream.resume import DEFAULT_STRATEGIES, STRATEGIES
from holystream.simulator import Script, Simulator

TEXT = (Path(__file__).parents[2] / "docs" / "resume.md").read_text("utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
WAYS = re.findall(r"^\| `(\w+)` \| .* \|$", TEXT, re.MULTILINE)
CUT = 7000
BY_CURSOR, BY_PREFILL = {"ids": "named"}, {"prefill": "continue", "tokens": True}


def example(marker):
    (code,) = [code for code in EXAMPLES if marker in code]
    return code


@pytest.fixture
def sim():
    with Simulator(length=80) as made:
        yield made


@pytest.fixture
def reader(sim, monkeypatch, tmp_path):
    """What the reader has typed so far; his provider is the simulator."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        registry,
        "PROFILES",
        {
            name: dataclasses.replace(profile, base_url=sim.base_url)
            for name, profile in registry.PROFILES.items()
        },
    )
    monkeypatch.setenv("HOLYSHEEP_API_KEY", "hs-resume-4f9a1c")
    monkeypatch.setenv("HOLYSTREAM_API_KEY", "hs-resume-4f9a1c")
    with holystream.Client(model="deepseek-v3.2") as client:
        yield {"__name__": "__main__", "holystream": holystream, "client": client}


@pytest.fixture
def run(sim, reader):
    def run_one(marker, **names):
        code = example(marker)
        code = code.replace("http://localhost:8000/v1", sim.base_url)
        reader.update(names)
        first = reader["client"]
        exec(compile(code, "resume.md", "exec"), reader)
        if reader["client"] is not first:
            reader["client"].close()

    return run_one


def test_less_than_was_asked_for(run, sim, reader):
    sim.play(Script(cut_at=CUT))
    run("min_guarantee=exact")
    assert reader["text"].endswith(" [...]")
    assert sim.generations[0].text.startswith(reader["text"].removesuffix(" [...]"))
    run("min_guarantee=exact")
    assert reader["text"] == sim.generations[-1].text


EACH_WAY = [
    ('resume=("cursor",)', BY_CURSOR, r"VERBATIM \d+"),
    ('provider="vllm"', BY_PREFILL, "VERIFIED"),
    ("seed=7", {}, "REPLAYED"),
    ('"stitch")', {"stitch": "continue", "overlap": 40}, "STITCHED"),
    ('("replay", "restart")', {}, "RESTARTED"),
]


@pytest.mark.parametrize(("marker", "script", "printed"), EACH_WAY)
def test_each_way(run, sim, reader, capsys, marker, script, printed):  # noqa: PLR0917
    sim.play(Script(cut_at=CUT, **script), Script(**script))
    run(marker)
    assert re.fullmatch(rf"{printed}\n", capsys.readouterr().out)
    completion = reader.get("completion") or reader["stream"].completion
    assert completion.attempts == 2
    assert reader.get("text", completion.text) == completion.text


def whole(sim, **options):
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return sim.answer({"model": "deepseek-v3.2", "messages": messages, **options}).text


def crashed(sim, journal, **options):
    """Another process begins a stream and is no more; return what it has shown."""
    sim.play(Script(ids="named", pace=0.0001))
    with holystream.Client(model="deepseek-v3.2", journal=journal) as client:
        stream = client.stream("Why is the sky blue?", stream_id="sky-1", **options)
        with stream:
            for _ in stream.text_stream:
                if len(stream.partial_text) > 60:
                    break
    return stream.partial_text


def test_recorded_to_its_end(run, sim, capsys):
    run('stream_id="sky-1"')
    assert capsys.readouterr().out == sim.generations[0].text
    assert Path("streams.db").stat().st_mode & 0o777 == 0o600
    assert Path("streams.db.owners").stat().st_mode & 0o777 == 0o700


def test_after_a_crash(run, sim, capsys):
    shown = crashed(sim, "streams.db")
    sim.play(Script(ids="named"))
    run("after=len(shown)", shown=shown)
    assert shown + capsys.readouterr().out == sim.generations[0].text


def test_with_a_journal_that_lags(run, sim, capsys):
    shown = crashed(sim, "streams.db", temperature=0)
    more = whole(sim, temperature=0)[: len(shown) + 20]
    run("checkpoint_every=2000", shown=more)
    assert more + capsys.readouterr().out == whole(sim, temperature=0)


def test_by_a_token(run, sim, reader):
    run("token, shown =")
    assert len(reader["shown"]) > 100
    assert reader["shown"] + reader["rest"] == whole(sim, temperature=0)


def test_what_it_costs(run, sim, capsys):
    sim.play(Script(cut_at=CUT))
    run("in completion.interruption_costs")
    assert re.fullmatch(r"replay [1-9]\d* 0\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("provider", "script", "name", "options"),
    [
        ("openai-compatible", BY_CURSOR, "cursor", {}),
        ("vllm", BY_PREFILL, "prefill", {"temperature": 0}),
        ("openai-compatible", {"stitch": "continue"}, "stitch", {}),
        ("openai-compatible", {}, "replay", {"temperature": 0}),
        ("openai-compatible", {}, "restart", {}),
    ],
)
def test_the_table_of_costs(sim, provider, script, name, options):
    sim.play(Script(cut_at=CUT, **script), Script(**script))
    with holystream.Client(
        "hs-any-key", provider=provider, base_url=sim.base_url, model="m"
    ) as client:
        stream = client.stream("Why?" * 100, resume=(name,), **options)
        pieces = 0
        for event in stream:
            if isinstance(event, holystream.Interrupted):
                break
            pieces += isinstance(event, holystream.TextDelta)
        (cost,) = stream.get_final_completion().interruption_costs
    prompt = stream.usage.prompt_tokens
    assert cost.strategy == name
    if name == "cursor":
        expected = (0, 0, pieces)
    elif name in {"prefill", "stitch"}:
        again = 4 if name == "prefill" else 0
        expected = (cost.wasted_prompt_tokens, again, pieces - again)
        assert cost.wasted_prompt_tokens > pieces
    else:
        expected = (prompt, pieces, 0)
    assert (
        cost.wasted_prompt_tokens,
        cost.wasted_completion_tokens,
        cost.saved_completion_tokens,
    ) == expected


def test_every_way_and_level_is_in_the_tables():
    assert set(WAYS) >= set(STRATEGIES)
    for name in holystream.Guarantee:
        assert f"| `{name}` |" in TEXT
    for name, ways in STRATEGIES.items():
        (row,) = re.findall(
            rf"^\| `{name}` \| \D.*\| (`.*) \| .* \|$", TEXT, re.MULTILINE
        )
        assert set(re.findall(r"`(\w+)`", row)) == {str(way.guarantee) for way in ways}
    assert f"`{str(DEFAULT_STRATEGIES).replace(chr(39), chr(34))}`" in TEXT


def test_the_commands_are_what_they_are():
    assert recorded.VARIABLE in TEXT
    assert asked.strategies("cursor, restart") == ("cursor", "restart")


def test_the_links_within_the_page_lead_somewhere():
    anchors = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^##+ (.*)$", TEXT, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([\w-]+)\)", TEXT)) <= anchors


def test_every_example_is_run_by_a_test_here():
    here = Path(__file__).read_text("utf-8")
    markers = {marker for _, marker in re.findall(r"""\brun\((["'])(.+?)\1""", here)}
    markers |= {marker for marker, _, _ in EACH_WAY}
    assert set(EXAMPLES) == {example(marker) for marker in markers}
