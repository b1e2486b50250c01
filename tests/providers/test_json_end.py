"""The look for the end of JSON, beside what the parser says at every piece."""

import json

from hypothesis import example, given, strategies as st

from holystream.providers.json_end import JSONEnd

VALUES = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\{}[] ,:'), max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner)
    ),
    max_leaves=8,
)
SPACE = st.text(st.sampled_from(" \t\r\n"), max_size=2)
TEXTS = st.text(st.sampled_from('{}[]"\\a1, :\n'), max_size=30) | st.builds(
    "{}{}{}{}".format, SPACE, VALUES.map(json.dumps), SPACE, st.sampled_from("} x[")
)


def is_container(text):
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


@given(text=TEXTS, sizes=st.lists(st.integers(0, 4), max_size=60))
@example(text='["\\\\"]', sizes=[1] * 9)
@example(text='{"\\"}":1}', sizes=[1] * 9)
@example(text="[]\xa0", sizes=[])
def test_it_is_reached_wherever_the_parser_would_agree(text, sizes):
    end = JSONEnd()
    fed = ""
    verdicts = set()
    for size in [*sizes, len(text)]:
        piece = text[len(fed) : len(fed) + size]
        fed += piece
        end.feed(piece)
        if is_container(fed):
            assert end.reached
        if end.reached:
            verdicts.add(is_container(fed))
    # Whatever comes behind it: to ask the parser once is enough.
    assert len(verdicts) < 2
