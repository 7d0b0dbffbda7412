"""Vectors and their owners: claims, refusals, counts, and how often stray interrupts are told."""

import pytest

from sim.core.context import Sim
from sim.core.units import SECOND
from sim.errors import SimBug
from sim.kernel.interrupts import KERNEL_OWNER, InterruptTable, VectorRefused


@pytest.fixture
def table():
    return InterruptTable(Sim(), 4)


def test_a_vector_has_one_owner_until_he_goes(table):
    table.claim(0x50, "nvme")
    table.claim(0x51, "nvme")
    with pytest.raises(VectorRefused, match="0x50 belongs to nvme"):
        table.claim(0x50, "usb")
    table.release("nvme")
    table.claim(0x50, "usb")
    assert [table.owner_of(vector) for vector in (0x50, 0x51, 0xEF)] == ["usb", None, KERNEL_OWNER]


@pytest.mark.parametrize("vector", [-1, 0, 14, 31, 256])
def test_exceptions_are_nobody_s_to_claim(table, vector):
    with pytest.raises(VectorRefused, match="32 to 255"):
        table.claim(vector, "usb")
    with pytest.raises(SimBug):
        table.deliver(0, vector)


def test_interrupts_are_counted_for_their_owner_or_as_nobodys(table):
    table.claim(0x50, "nvme")
    assert [table.deliver(1, vector) for vector in (0x50, 0x50, 0xFD, 0x60)] == [
        "nvme",
        "nvme",
        KERNEL_OWNER,
        None,
    ]
    assert table.taken == {"nvme": 2, KERNEL_OWNER: 1}
    assert table.unowned == {0x60: 1}
    with pytest.raises(SimBug):
        table.deliver(4, 0x60)


def test_a_flood_is_told_once_a_second_with_its_number(table):
    sim = table._sim
    for _ in range(25):
        sim.engine.run(sim.now + SECOND // 10)
        for _ in range(1000):
            table.deliver(3, 0x60)
    told = [
        (row["time_ns"] // 10**8, row["pcpu"], row["vector"], row["count"])
        for row in sim.trace.select("interrupt.unowned")
    ]
    assert told == [(1, 3, 0x60, 1), (11, 3, 0x60, 10_000), (21, 3, 0x60, 10_000)]
    assert table.unowned == {0x60: 25_000}
    assert sum("nobody owns" in row["text"] for row in sim.trace.select("log.line")) == 3
