"""JSON is counted before it is read: bytes, and the marks of values."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image.boundedjson import parse_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def count(value):
    """The values of a document, itself included."""
    if isinstance(value, list):
        return 1 + sum(map(count, value))
    if isinstance(value, dict):
        return 1 + sum(map(count, value.values()))
    return 1


@given(VALUES)
def test_what_is_within_the_limits_is_read_and_no_value_escapes_the_count(value):
    data = json.dumps(value).encode()
    assert parse_json(data, "t", size_max=len(data), values_max=2 * len(data)) == value
    if count(value) > 3:
        with pytest.raises(LimitError, match="more than 1 values"):
            parse_json(data, "t", size_max=len(data), values_max=1)


@pytest.mark.parametrize("data", [b"[[],[],[]]", "[[],[],[]]"])
def test_the_count_is_the_same_of_bytes_and_of_text(data):
    assert parse_json(data, "t", size_max=10, values_max=6) == [[], [], []]
    with pytest.raises(LimitError, match="more than 5 values"):
        parse_json(data, "t", size_max=10, values_max=5)
    with pytest.raises(LimitError, match=r"more than 9 (bytes|characters)"):
        parse_json(data, "t", size_max=9, values_max=6)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 100_000])
def test_what_is_no_json_is_refused(data):
    with pytest.raises(FormatError, match="not acceptable as JSON"):
        parse_json(data, "t", size_max=200_000, values_max=200_000)


@pytest.mark.parametrize(
    ("data", "options", "kind", "words"),
    [
        (b"[1]", {"size_max": 2}, LimitError, "more than 2 bytes"),
        ("[1]", {"size_max": 2}, LimitError, "more than 2 characters"),
        (b"[1,2]", {"values_max": 1}, LimitError, "more than 1 values"),
        (b'{"a":{}}', {"values_max": 1}, LimitError, "more than 1 values"),
        ('{"a":{}}', {"values_max": 1}, LimitError, "more than 1 values"),
        (b"", {}, FormatError, "not acceptable as JSON: Expecting value: line 1 column 1 (char 0)"),
    ],
)
def test_what_is_refused_is_said_with_the_format_and_no_place(data, options, kind, words):
    with pytest.raises(FormatError) as caught:
        parse_json(data, "report", **{"size_max": 9, "values_max": 9, **options})
    assert type(caught.value) is kind
    assert (caught.value.what, caught.value.where, caught.value.message) == ("report", "", words)
