"""Theory of disk queues, run again: what published examples of mClock and PARDA say, and what their rules give.

Models: mClock's tags for clients that always have a request waiting, at a disk of fixed speed (V11); PARDA's rule for
the windows of hosts that share an array, whose latency is what is outstanding over what it serves (V12, V13).

Leaves out: arrivals, queues and the disks' own time, so nothing of it stands for the VMkernel's I/O.  V12 was measured on
an array, each host with a speed of its own; here all hosts are alike, so only sums and means are compared, to a tenth.

Sources: Gulati, Merchant and Varman, "mClock", OSDI 2010; Gulati, Ahmad and Waldspurger, "PARDA", FAST 2009, table 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from sim.kernel.sched.fluid import Claim, fluid_shares
from sim.labs.cpu_fixtures import Fixture

__all__ = ["DISK_FIXTURES", "mclock_served", "parda_windows", "run_disk_fixtures"]

IOPS = 1000
ARRAY_IOPS = 3360
"""What the array of V12 served in all while nobody was held back."""


def mclock_served(
    iops: int, weights: Sequence[int], reservations: Sequence[int], requests: int
) -> list[Fraction]:
    """Serve so many requests of clients that always have one, and return each one's requests a second."""
    clients = range(len(weights))
    served = [0] * len(weights)
    due = [Fraction(0)] * len(weights)  # R tags
    shared = [Fraction(0)] * len(weights)  # P tags
    for step in range(requests):
        now = Fraction(step, iops)
        owed = [client for client in clients if reservations[client] and due[client] <= now]
        client = min(owed, key=due.__getitem__) if owed else min(clients, key=shared.__getitem__)
        shared[client] += Fraction(1, weights[client])
        if owed:  # service by weight does not count against the reservation: there the R tag stays
            due[client] = max(due[client] + Fraction(1, reservations[client]), now)
        served[client] += 1
    return [Fraction(count * iops, requests) for count in served]


def parda_windows(
    betas: Sequence[int], threshold_ms: int, steps: int, gain: Fraction = Fraction(1, 10), most: int = 32
) -> tuple[list[Fraction], Fraction]:
    """Let hosts adapt their windows to the latency of an array; return the windows and the latency in ms at the end.

    Windows are kept to thousandths of a request, between 1 and `most`.
    """
    windows = [Fraction(most)] * len(betas)
    for _ in range(steps):
        latency = Fraction(1000 * sum(windows), ARRAY_IOPS)
        for host, beta in enumerate(betas):
            wanted = (1 - gain) * windows[host] + gain * (threshold_ms / latency * windows[host] + beta)
            windows[host] = Fraction(round(1000 * min(max(wanted, Fraction(1)), Fraction(most))), 1000)
    return windows, Fraction(1000 * sum(windows), ARRAY_IOPS)


def _v11() -> list[Fixture]:
    """Five clients of a disk: two with more reserved than their weight gives."""
    weights, reservations = (1, 1, 2, 2, 2), (300, 250, 0, 0, 0)
    found = mclock_served(IOPS, weights, reservations, 20_000)
    claims = [
        Claim(weight=weight, floor=floor, ceiling=IOPS)
        for weight, floor in zip(weights, reservations, strict=True)
    ]
    fluid = fluid_shares(IOPS, claims).shares
    rows = []
    for number, expected in enumerate((300, 250, 150, 150, 150)):
        case = f"mClock, weights 1,1,2,2,2, 300 and 250 reserved: client {number + 1}"
        rows.append(_row("V11", f"{case}, fluid", "IOPS", expected, fluid[number]))
        rows.append(_row("V11", f"{case}, by tags", "IOPS", expected, found[number], tolerance=Fraction(1)))
    return rows


def _v12() -> list[Fixture]:
    """Four hosts with 32 requests each in flight, and then with a threshold of 30 ms."""
    rows = []
    free = Fraction(1000 * 4 * 32, ARRAY_IOPS)
    rows.append(
        _row("V12", "four hosts, 32 requests each: mean latency", "ms", 37, free, tolerance=Fraction(37, 10))
    )
    windows, latency = parda_windows((1, 1, 1, 1), 30, 2000)
    case = "the same with PARDA at 30 ms"
    rows.append(_row("V12", f"{case}: mean latency", "ms", 31, latency, tolerance=Fraction(31, 10)))
    served = 1000 * sum(windows) / latency
    rows.append(_row("V12", f"{case}: in all", "IOPS", 3350, served, tolerance=Fraction(335)))
    return rows


def _v13() -> list[Fixture]:
    """Four hosts of which two have twice the share."""
    windows, latency = parda_windows((1, 1, 2, 2), 25, 2000)
    case = "PARDA at 25 ms, beta 1:1:2:2"
    rows = [_row("V13", f"{case}: latency", "ms", 25, latency, tolerance=Fraction(5, 2))]
    for host in (1, 2, 3):
        ratio = windows[host] / windows[0]
        name = f"{case}: window of host {host + 1} by that of host 1"
        rows.append(_row("V13", name, "1", (1, 1, 2, 2)[host], ratio, tolerance=Fraction(1, 10)))
    return rows


def _row(
    name: str, case: str, unit: str, expected: int, found: Fraction, *, tolerance: Fraction = Fraction(0)
) -> Fixture:
    published = {"V12": "measured on an array", "V13": "about"}.get(name, "")
    return Fixture(
        name=name,
        case=case,
        unit=unit,
        expected=Fraction(expected),
        found=Fraction(found),
        tolerance=tolerance,
        published=published,
    )


DISK_FIXTURES: tuple[Callable[[], list[Fixture]], ...] = (_v11, _v12, _v13)
"""The examples; each gives its rows."""


def run_disk_fixtures() -> list[Fixture]:
    """Run every example."""
    return [row for example in DISK_FIXTURES for row in example()]
