"""The last few answers are remembered: as many as were asked for, and never one of other bytes."""

import pytest

from sim.image import contents
from sim.image.recent import Recent


def test_an_answer_is_worked_out_once_while_it_is_among_the_last():
    asked = []
    length = Recent(lambda data: asked.append(data) or len(data), 2)
    assert [length(data) for data in (b"a", b"bb", b"a", bytes([97]))] == [1, 2, 1, 1]
    assert asked == [b"a", b"bb"]
    length(b"ccc")
    length(b"a")
    assert asked == [b"a", b"bb", b"ccc", b"a"]


def test_files_that_differ_in_one_byte_have_their_own_answers():
    last = Recent(lambda data: data[-1], 4)
    assert (last(b"\0" * 99 + b"\1"), last(b"\0" * 99 + b"\2")) == (1, 2)


def test_a_refusal_is_not_remembered_and_all_can_be_forgotten():
    asked = []

    def odd(data):
        asked.append(data)
        if len(data) % 2 == 0:
            raise ValueError(data)
        return data

    function = Recent(odd, 4)
    for _ in range(2):
        with pytest.raises(ValueError, match="bb"):
            function(b"bb")
    function(b"c")
    function.cache_clear()
    function(b"c")
    assert asked == [b"bb", b"bb", b"c", b"c"]


def test_it_keeps_the_name_and_the_words_of_its_function():
    assert contents.open_archive.__name__ == "open_archive"
    assert "archive" in contents.open_archive.__doc__
