"""Claims about recovery keys: every key has its digits, and one wrong digit is noticed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError
from sim.kernel.recovery_key import format_recovery_key, parse_recovery_key

KEYS = st.binary(min_size=32, max_size=32)


@given(KEYS)
def test_digits_and_back(key):
    digits = format_recovery_key(key)
    assert [len(group) for group in digits.split("-")] == [6] * 16
    assert parse_recovery_key(digits) == key


@given(KEYS, st.integers(0, 95), st.integers(1, 9))
def test_one_wrong_digit_is_named_by_its_group(key, place, change):
    digits = list(format_recovery_key(key).replace("-", ""))
    digits[place] = str((int(digits[place]) + change) % 10)
    text = "-".join("".join(digits[at : at + 6]) for at in range(0, 96, 6))
    with pytest.raises(FormatError, match=f"group {place // 6 + 1}:"):
        parse_recovery_key(text)


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text):
    with pytest.raises(FormatError):
        parse_recovery_key(text)


@pytest.mark.parametrize("digits", ["\u0660" * 6, "000000 ", "720896"])
def test_only_plain_digits_of_sixteen_bits_count(digits):
    with pytest.raises(FormatError):
        parse_recovery_key("-".join([digits] + ["000000"] * 15))


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_key_has_32_bytes(size):
    with pytest.raises(FormatError):
        format_recovery_key(bytes(size))
