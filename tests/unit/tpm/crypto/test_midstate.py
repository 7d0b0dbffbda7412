"""A digest that stops and goes on equals the digest of the whole."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.tpm.constants import HASH_BYTES
from sim.tpm.crypto.midstate import HashState
from sim.tpm.hashing import hash_bytes

PIECES = st.lists(st.binary(max_size=300), max_size=6)


@pytest.mark.parametrize("hash_alg", list(HASH_BYTES))
@given(pieces=PIECES)
def test_pieces_hash_as_the_whole_does(hash_alg, pieces):
    state = HashState(hash_alg=hash_alg)
    for piece in pieces:
        state = state.update(piece).compact()

    assert state.digest() == hash_bytes(hash_alg, b"".join(pieces))


@pytest.mark.parametrize("hash_alg", list(HASH_BYTES))
def test_a_long_input_is_compacted_by_itself(hash_alg):
    state = HashState(hash_alg=hash_alg)
    for _ in range(6):
        state = state.update(b"x" * 1024)

    assert len(state.pending) < 4097
    assert state.count
    assert state.digest() == hash_bytes(hash_alg, b"x" * 6144)
