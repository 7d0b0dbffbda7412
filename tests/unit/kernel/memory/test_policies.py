"""The rules of memory management as pure functions, against the figures that are in print."""

import pytest

from sim.core.units import GIB, KIB, MIB
from sim.errors import SimBug
from sim.kernel.memory.activity import ONE, Activity
from sim.kernel.memory.options import MemOptions
from sim.kernel.memory.protocol import Claim
from sim.kernel.memory.reclaim_rules import (
    balloon_max,
    balloon_step,
    cache_frames,
    cache_frames_max,
    compress_page,
    decompress_page,
    owed,
    slot_of,
    swap_file_pages,
)
from sim.kernel.memory.salting import content_hash, group_of, write_latency_ns
from sim.kernel.memory.states import Actions, MemState, actions_of, breaks_large, min_free, next_state
from sim.kernel.memory.targets import IdleTaxPolicy

PAGES = MIB // (4 * KIB)


def megabytes(total, active, tax):
    """Two VMs of 256 MB with equal shares, of which the second is fully active."""
    claims = [Claim(shares=1, touched=256 * PAGES, active=each * PAGES) for each in (active, 256)]
    return [
        round(pages / PAGES, 1) for pages in IdleTaxPolicy(tax_percent=tax).targets(total * PAGES, claims)
    ]


def test_the_idle_tax_gives_the_worked_figures():
    assert megabytes(358, 50, 0) == [179.0, 179.0]
    assert megabytes(358, 0, 75) == megabytes(358, 50, 75) == [102.0, 256.0]
    assert megabytes(358, 60, 75) == [107.6, 250.4]


def test_targets_keep_reservation_and_limit():
    claims = [Claim(shares=1, touched=100, reservation=90), Claim(shares=9, touched=100, limit=30)]
    assert IdleTaxPolicy(tax_percent=0).targets(110, claims) == (90, 20)
    assert IdleTaxPolicy(tax_percent=0).targets(125, claims) == (95, 30)
    assert IdleTaxPolicy(tax_percent=0).targets(10, claims) == (90, 0)


def test_with_enough_for_all_nobody_pays():
    claims = [Claim(shares=1, touched=100), Claim(shares=1000, touched=3)]
    assert IdleTaxPolicy().targets(103, claims) == (100, 3)
    assert IdleTaxPolicy().targets(102, claims) == (99, 3)


@pytest.mark.parametrize(
    ("gibibytes", "mebibytes"),
    [
        *((4, 245.76), (12, 573.44), (28, 901.12), (64, 1269.76), (96, 1597.44), (100, 1638.4)),
        *((128, 1925.12), (256, 3235.84), (512, 5857.28), (1024, 11100.16)),
    ],
)
def test_min_free_is_the_sliding_scale(gibibytes, mebibytes):
    assert round(min_free(gibibytes * GIB) / MIB, 2) == mebibytes


def test_min_free_of_a_real_host():
    assert min_free(32_510 * MIB) // MIB == 939


def walk_down_and_up(options, percents):
    state = MemState.HIGH
    seen = []
    for percent in percents:
        state = next_state(state, percent, 100, options)
        seen.append(str(state))
    return seen


def test_states_go_down_at_their_own_threshold_and_up_above_the_next_one():
    seen = walk_down_and_up(MemOptions(), (399, 100, 99, 64, 63, 31, 15, 36, 38, 70, 106, 255, 405, 406))
    assert seen == [
        *("high", "high", "clear", "clear", "soft", "hard", "low", "low", "hard", "soft", "clear", "clear"),
        *("clear", "high"),
    ]


def test_release_5_has_no_clear_state():
    options = MemOptions(release="5.x", hysteresis_percent=0)
    assert walk_down_and_up(options, (99, 63, 100, 101, 10)) == ["high", "soft", "soft", "high", "low"]
    with pytest.raises(SimBug, match="no state clear"):
        next_state(MemState.CLEAR, 1, 1, options)


def test_each_state_permits_what_is_published():
    assert actions_of(MemState.HIGH) == Actions()
    assert actions_of(MemState.CLEAR) == Actions(share_now=True)
    assert actions_of(MemState.SOFT) == Actions(share_now=True, balloon=True)
    assert actions_of(MemState.HARD) == Actions(share_now=True, compress=True, swap=True)
    assert actions_of(MemState.LOW) == Actions(compress=True, swap=True, block=True)


def test_large_pages_are_broken_below_the_high_threshold():
    assert breaks_large(399, 100, "6.0")
    assert not breaks_large(400, 100, "6.0")
    assert not breaks_large(100, 100, "5.x")


def test_what_is_owed_goes_to_the_means_of_the_state():
    soft, hard, low = (actions_of(state) for state in (MemState.SOFT, MemState.HARD, MemState.LOW))
    assert owed(100, 70, 5, 20, soft).balloon == 20
    assert owed(100, 90, 5, 20, soft).balloon == 15
    assert owed(100, 70, 5, 20, soft).swap == 0
    assert (owed(100, 70, 5, 20, hard).swap, owed(100, 70, 5, 20, hard).balloon) == (30, 5)
    assert not owed(100, 70, 5, 20, hard).blocked
    assert owed(100, 70, 5, 20, low).blocked
    assert not owed(70, 70, 5, 20, low).blocked
    assert owed(70, 72, 5, 20, hard).balloon == 3
    assert owed(70, 99, 5, 20, soft).balloon == 0
    assert owed(100, 70, 5, 20, actions_of(MemState.HIGH)).swap == 0


def test_the_balloon_has_a_bound_and_a_pace():
    options = MemOptions(balloon_pages=10)
    assert balloon_max(1000, options) == 650
    assert [balloon_step(50, target, options) for target in (100, 55, 50, 45, 0)] == [10, 5, 0, -5, -10]


def test_a_compressed_page_takes_a_slot_of_one_or_two_kilobytes():
    assert [slot_of(size) for size in (1, 1024, 1025, 2048, 2049)] == [1024, 1024, 2048, 2048, None]
    assert [cache_frames(*slots) for slots in ((0, 0), (1, 0), (4, 0), (1, 2), (0, 2))] == [0, 1, 1, 2, 1]
    assert cache_frames_max(1000, MemOptions()) == 100
    page = bytes(range(16)) * 256
    packed = compress_page(page)
    assert packed is not None
    assert decompress_page(packed) == page
    noise = b"".join(((word * 2654435761) ** 3 & 0xFFFFFFFF).to_bytes(4, "little") for word in range(1024))
    assert compress_page(noise) is None


def test_the_swap_file_takes_what_is_not_reserved():
    assert swap_file_pages(1000, 0) == 1000
    assert swap_file_pages(1000, 400) == 600
    assert swap_file_pages(1000, 1000) == 0


def test_the_estimate_rises_fast_and_falls_slowly():
    activity = Activity()
    for _ in range(8):
        activity = activity.after(10, 100)
    assert activity.estimate() == ONE // 10
    assert activity.estimate(90, 100) > ONE * 45 // 100
    risen = activity.after(90, 100)
    assert risen.estimate() == risen.fast > risen.slow
    fallen = risen.after(0, 100).after(0, 100)
    assert fallen.estimate() == fallen.slow > fallen.fast
    assert fallen.pages(1000) == -(-1000 * fallen.slow // ONE)


def test_an_average_reaches_both_ends():
    activity = Activity().after(0, 100)
    for _ in range(400):
        activity = activity.after(100, 100)
    assert activity.fast == ONE
    assert activity.slow == ONE
    for _ in range(400):
        activity = activity.after(0, 100)
    assert (activity.slow, activity.fast) == (0, 0)
    with pytest.raises(SimBug):
        activity.after(101, 100)


def test_salting_decides_who_shares_with_whom():
    assert group_of("a", "", 2) != group_of("b", "", 2)
    assert group_of("a", "x", 2) == group_of("b", "x", 2)
    assert group_of("a", "", 1) == group_of("b", "", 1) != group_of("c", "x", 1)
    assert group_of("a", "x", 0) == group_of("b", "y", 0)
    assert group_of("x", "", 2) != group_of("b", "x", 2)


def test_a_hash_of_few_bits_collides_and_a_long_one_does_not_here():
    pages = [bytes([number]) * 4096 for number in range(40)]
    assert len({content_hash(page) for page in pages}) == 40
    assert len({content_hash(page, 4) for page in pages}) <= 16
    assert all(content_hash(page, 4) < 16 for page in pages)


def test_a_write_that_copies_takes_longer():
    assert write_latency_ns(copied=True) > 10 * write_latency_ns(copied=False)
