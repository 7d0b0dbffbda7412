"""Claims about chance: known answers, independence of streams, bounds, moments."""

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.core.keys import ec_private_key, rsa_private_key
from sim.core.rng import FastStream, Rng, Stream, _minus_ln_q32

SEEDS = st.integers(0, 2**256 - 1)


def test_splitmix64_gives_its_published_numbers():
    stream = FastStream(1234567)
    assert [stream.u64() for _ in range(3)] == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_the_drbg_gives_the_standard_s_answer_for_the_standard_s_seed():
    # NIST CAVP, HMAC_DRBG.rsp, SHA-256, no prediction resistance, no additional input, count 0:
    # entropy || nonce, then the second of two generates of 128 bytes.
    seed = bytes.fromhex(
        "ca851911349384bffe89de1cbdc46e6831e44d34a4fb935ee285dd14b71a7488659ba96c601dc69fc902940805ec0ca8"
    )
    stream = Stream(seed)
    stream._generate(128)
    assert stream._generate(128).hex() == (
        "e528e9abf2dece54d47c7e75e5fe302149f817ea9fb4bee6f4199697d04d5b89d54fbb978a15b5c443c9ec21036d2460"
        "b6f73ebad0dc2aba6e624abf07745bc107694bb7547bb0995f70de25d6b29e2d3011bb19d27676c07162c8b5ccde0668"
        "961df86803482cb37ed6d5c0bb8d50cf1f50d476aa0458bdaba806f48be9dcb8"
    )


@given(SEEDS)
def test_a_draw_in_one_stream_moves_no_other(seed):
    first, second = Rng(seed), Rng(seed)
    first.stream("a").bytes(1000)
    first.fast("a").u64()
    assert first.stream("b").bytes(32) == second.stream("b").bytes(32)
    assert first.fast("b").u64() == second.fast("b").u64()


def test_names_seeds_and_children_give_different_streams():
    drawn = [
        Rng(1).stream("a").bytes(16),
        Rng(2).stream("a").bytes(16),
        Rng(1).stream("b").bytes(16),
        Rng(1).child("a").stream("a").bytes(16),
        Rng(1).fast("a").bytes(16),
    ]
    assert len(set(drawn)) == len(drawn)
    assert Rng(1).child("x").stream("y").bytes(8) == Rng(1).stream("x/y").bytes(8)


@given(SEEDS, st.lists(st.integers(1, 700), max_size=20))
def test_a_stream_is_the_same_however_it_is_cut(seed, sizes):
    whole = Stream(seed.to_bytes(32, "big"))
    pickled = Stream(seed.to_bytes(32, "big"))
    for size in sizes:
        drawn = whole.bytes(size)
        pickled = pickle.loads(pickle.dumps(pickled))
        assert pickled.bytes(size) == drawn
        assert len(drawn) == size


@given(SEEDS, st.integers(1, 2**200))
def test_below_stays_below(seed, bound):
    rng = Rng(seed)
    assert 0 <= rng.stream("s").below(bound) < bound
    assert 0 <= rng.fast("s").below(bound) < bound


@pytest.mark.parametrize("source", [Stream(b"fixed"), FastStream(99)])
def test_below_is_uniform(source):
    counts = [0] * 10
    for _ in range(20_000):
        counts[source.below(10)] += 1
    chi_square = sum((count - 2000) ** 2 / 2000 for count in counts)
    assert chi_square < 60  # nine degrees of freedom: about 1e-9


def test_exponential_draws_have_their_mean_and_median():
    source = FastStream(7)
    mean_ns = 1_000_000
    draws = sorted(source.exponential_ns(mean_ns) for _ in range(20_000))
    assert abs(sum(draws) / len(draws) - mean_ns) < 0.05 * mean_ns
    assert abs(draws[10_000] - 693_147) < 0.05 * mean_ns


@given(st.integers(1, 2**64 - 1))
def test_the_logarithm_is_that_of_the_standard_library(word):
    assert abs(_minus_ln_q32(word) - -math.log(word / 2**64) * 2**32) <= 64


def test_shuffling_keeps_every_item():
    assert sorted(FastStream(3).shuffled(range(100))) == list(range(100))


def test_keys_come_from_the_stream_alone():
    scalars = {ec_private_key(Stream(b"key")).private_numbers().private_value for _ in range(2)}
    assert len(scalars) == 1
    moduli = {rsa_private_key(Stream(b"key"), 1024).private_numbers().public_numbers.n for _ in range(2)}
    assert len(moduli) == 1
    assert moduli.pop().bit_length() == 1024


@pytest.mark.parametrize("bound", [0, -1])
def test_an_empty_range_is_refused(bound):
    with pytest.raises(ValueError, match="positive"):
        FastStream(1).below(bound)


def test_a_block_is_the_same_words_as_single_draws():
    one, other = (Rng(3).fast("x") for _ in range(2))
    one.u64(), other.u64()
    assert one.block(1000).tolist() == [other.u64() for _ in range(1000)]
    assert one.block(0).tolist() == []
    assert one.u64() == other.u64()
