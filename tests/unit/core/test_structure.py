"""Claims about reading specs: every error has its key path, what was found and what is wanted."""

from datetime import UTC, datetime

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.structure import between, in_choices, matches, plain, quantity, structure
from sim.core.units import GIB
from sim.errors import ScenarioError


@attrs.frozen(kw_only=True)
class Inner:
    memory_bytes: int = attrs.field(default=GIB, metadata=quantity("bytes"), validator=between(1, 2**40))
    name: str = attrs.field(default="x", validator=matches("[a-z]+", "small letters"))
    kind: str = attrs.field(default="a", validator=in_choices("a", "b"))
    on: bool = False


@attrs.frozen(kw_only=True)
class Outer:
    title: str
    inner: Inner = attrs.field(factory=Inner)
    inners: tuple[Inner, ...] = ()
    shares: int | str = "normal"
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    words: dict[str, str] = attrs.field(factory=dict)
    limit_ns: int | None = attrs.field(default=None, metadata=quantity("ns"))
    old: int = attrs.field(default=1, validator=attrs.validators.ge(1))


def test_a_right_table_becomes_a_spec():
    spec = structure(
        {
            "title": "t",
            "inner": {"memory": "4GiB"},
            "inners": [{"memory": 7}, {"on": True}],
            "shares": 5,
            "when": "2027-02-03T04:05:06",
            "words": {"a": "b"},
            "limit": "2us",
        },
        Outer,
    )
    assert spec.inner.memory_bytes == 4 * GIB
    assert [inner.memory_bytes for inner in spec.inners] == [7, GIB]
    assert (spec.shares, spec.limit_ns, spec.words) == (5, 2000, {"a": "b"})
    assert spec.when == datetime(2027, 2, 3, 4, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "s.title: this key is missing"),
        ({"title": 3}, "s.title: wrong value, got 3, wanted a text"),
        ({"title": "t", "inner": 4}, "s.inner: wrong value, got 4, wanted a table"),
        ({"title": "t", "inner": {"memry": 1}}, "s.inner.memry: unknown key; did you mean 'memory'?"),
        (
            {"title": "t", "inner": {"zzz": 1}},
            "s.inner.zzz: unknown key, wanted one of memory, name, kind, on",
        ),
        (
            {"title": "t", "inner": {"memory": -5}},
            "s.inner.memory: wrong value, got -5, wanted an integer from 1 to",
        ),
        (
            {"title": "t", "inner": {"memory": "4GX"}},
            "s.inner.memory: wrong value, got '4GX', wanted a number with",
        ),
        (
            {"title": "t", "inner": {"memory": 1.5}},
            "s.inner.memory: wrong value, got 1.5, wanted an integer of bytes",
        ),
        (
            {"title": "t", "inner": {"memory": "0.3B"}},
            "s.inner.memory: wrong value, got '0.3B', wanted a whole",
        ),
        (
            {"title": "t", "inners": [{}, {"kind": "c"}]},
            "s.inners[1].kind: wrong value, got 'c', wanted one of a, b",
        ),
        ({"title": "t", "inners": {}}, "s.inners: wrong value, got dict, wanted a list"),
        ({"title": "t", "inners": [1]}, "s.inners[0]: wrong value, got 1, wanted a table"),
        ({"title": "t", "inner": {"on": 1}}, "s.inner.on: wrong value, got 1, wanted true or false"),
        ({"title": "t", "inner": {"name": "A"}}, "s.inner.name: wrong value, got 'A', wanted small letters"),
        ({"title": "t", "shares": True}, "s.shares: wrong value, got True, wanted an integer or a text"),
        ({"title": "t", "when": "soon"}, "s.when: wrong value, got 'soon', wanted a date and time"),
        ({"title": "t", "old": 0}, "s.old: must be >= 1: 0"),
        ({"title": "t", "old": True}, "s.old: wrong value, got True, wanted an integer"),
        ([], "s: wrong type, got list, wanted a table"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(data, message):
    with pytest.raises(ScenarioError) as caught:
        structure(data, Outer, "s")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_plain_goes_back_to_data():
    spec = Outer(title="t", inners=(Inner(),))
    assert plain(spec)["inners"] == [{"memory_bytes": GIB, "name": "x", "kind": "a", "on": False}]
    assert plain(spec)["when"] == "2026-01-01T00:00:00+00:00"


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3)
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["title", "inner", "inners", "memory", "words", "x"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@given(TREES)
def test_any_data_gives_a_spec_or_a_scenario_error(data):
    try:
        spec = structure(data, Outer, "s")
    except ScenarioError as error:
        spec = error.path
    assert isinstance(spec, Outer) or spec.startswith("s")
