"""The capped fluid share and the readjustment of weights, against published and calculated examples."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.kernel.sched.fluid import Claim, FloorsExceedCapacity, feasible_weights, fluid_shares


def shares(capacity, *claims):
    found = fluid_shares(capacity, [Claim(weight=w, floor=lo, ceiling=hi) for w, lo, hi in claims])
    return [float(share) for share in found.shares], float(found.level)


def test_published_example_of_shares_and_reservation():
    assert shares(6000, (1000, 0, 500), (1000, 2250, 6000), (2000, 0, 6000)) == ([500, 2250, 3250], 1.625)


def test_published_example_with_less_demand_gives_the_rest_away():
    assert shares(6000, (1000, 0, 500), (1000, 2250, 6000), (2000, 0, 2000)) == ([500, 3500, 2000], 3.5)


def test_pool_with_more_shares_can_give_less_to_each_of_its_vms():
    pools, _ = shares(100, (8000, 0, 100), (4000, 0, 100))
    assert pools == [pytest.approx(66.667, abs=0.001), pytest.approx(33.333, abs=0.001)]
    inside_high, _ = shares(pools[0], *[(1000, 0, 100)] * 6)
    inside_normal, _ = shares(pools[1], *[(1000, 0, 100)] * 2)
    assert round(inside_high[0], 1) == 11.1
    assert round(inside_normal[0], 1) == 16.7


def test_disk_example_with_two_reservations():
    claims = [(1, 300, 1000), (1, 250, 1000), (2, 0, 1000), (2, 0, 1000), (2, 0, 1000)]
    assert shares(1000, *claims)[0] == [300, 250, 150, 150, 150]


def test_more_capacity_than_demand_serves_every_ceiling():
    assert shares(10, (1, 0, 2), (5, 1, 3))[0] == [2, 3]
    assert shares(10)[0] == []


def test_floors_beyond_the_capacity_are_refused():
    with pytest.raises(FloorsExceedCapacity, match="floors of 5 exceed the capacity of 4"):
        fluid_shares(4, [Claim(weight=1, floor=5, ceiling=5)])


@pytest.mark.parametrize("values", [(0, 0, 1), (-1, 0, 1), (1, 2, 1), (1, -1, 1)])
def test_impossible_claims_are_refused(values):
    with pytest.raises(ValueError, match="want weight"):
        Claim(weight=values[0], floor=values[1], ceiling=values[2])


claims = st.lists(
    st.tuples(st.integers(1, 2000), st.integers(0, 8), st.integers(0, 12), st.integers(1, 5)),
    min_size=1,
    max_size=8,
).map(
    lambda rows: [
        Claim(weight=w, floor=Fraction(low, d), ceiling=Fraction(low + more, d)) for w, low, more, d in rows
    ]
)


@given(claims, st.integers(0, 20))
def test_shares_are_clipped_at_one_level_and_add_up(found, extra):
    capacity = sum((claim.floor for claim in found), Fraction(0)) + extra
    result = fluid_shares(capacity, found)
    assert sum(result.shares) == min(capacity, sum(claim.ceiling for claim in found))
    for claim, share in zip(found, result.shares, strict=True):
        assert share == min(max(result.level * claim.weight, claim.floor), claim.ceiling)


@given(claims, st.integers(0, 20), st.integers(0, 7), st.integers(1, 1000))
def test_more_weight_never_gets_less(found, extra, place, more):
    capacity = sum((claim.floor for claim in found), Fraction(0)) + extra
    place %= len(found)
    old = found[place]
    raised = [*found]
    raised[place] = Claim(weight=old.weight + more, floor=old.floor, ceiling=old.ceiling)
    assert fluid_shares(capacity, raised).shares[place] >= fluid_shares(capacity, found).shares[place]


weight_lists = st.lists(st.integers(1, 100), min_size=1, max_size=8)


@given(weight_lists, st.integers(1, 5))
def test_readjusted_weights_ask_for_at_most_one_cpu_each(weights, cpus):
    found = feasible_weights(weights, cpus)
    if len(weights) > cpus:
        assert all(weight * cpus <= sum(found) for weight in found)
        ideal = fluid_shares(cpus, [Claim(weight=weight, ceiling=1) for weight in weights]).shares
        assert tuple(weight * cpus / sum(found) for weight in found) == ideal
    else:
        assert len(set(found)) == 1


def lock_step(weigh, steps, *, arrival=1000):
    """Run start tags on two CPUs; client 3 comes at `arrival` with the smallest tag.  Returns quanta and waits."""
    tags = {1: Fraction(0), 2: Fraction(0)}
    shares_of = {1: 1, 2: 10, 3: 1}
    served = dict.fromkeys(shares_of, 0)
    wait = longest = 0
    for step in range(steps):
        if step == arrival:
            tags[3] = min(tags.values())
        weights = dict(zip(tags, weigh([shares_of[client] for client in tags]), strict=True))
        chosen = sorted(tags, key=lambda client: (tags[client], client))[:2]
        for client in chosen:
            tags[client] += 1 / Fraction(weights[client])
            served[client] += 1
        wait = 0 if 1 in chosen else wait + 1
        longest = max(longest, wait)
    return list(served.values()), longest


def test_infeasible_weights_starve_without_readjustment():
    assert lock_step(lambda weights: weights, 2500) == ([1300, 2500, 1200], 900)


def test_readjustment_ends_the_starvation():
    assert lock_step(lambda weights: feasible_weights(weights, 2), 2500) == ([1750, 2500, 750], 1)
