"""The management network port: an address, a link, and how long bytes take to cross it.

Models: one port with a locally administered MAC address from a seeded stream, link state, serialisation time at the
link's rate plus a one-way latency, and byte counts.

Leaves out: frames, switches, loss, queues, offloads and the data network of the virtual machines.
"""

from __future__ import annotations

from sim.core.rng import Stream
from sim.core.units import SECOND
from sim.errors import VmksimError
from sim.hw.spec import NicSpec


class LinkDown(VmksimError):  # noqa: N818 - the name says the state, as network people do
    """The port has no link, so nothing can be sent or received."""


class Nic:
    """One network port of the host."""

    def __init__(self, spec: NicSpec, stream: Stream, name: str = "vmnic0") -> None:
        self.name = name
        self.spec = spec
        first, *rest = stream.bytes(6)
        self.mac = bytes([(first & 0xFC) | 0x02, *rest])
        self.link_up = True
        self.sent_bytes = 0
        self.received_bytes = 0

    @property
    def mac_text(self) -> str:
        """The MAC address as six groups of hex digits."""
        return self.mac.hex(":")

    def send_ns(self, size_bytes: int) -> int:
        """Count `size_bytes` as sent and return the time until the far end has them all."""
        self._need_link()
        self.sent_bytes += size_bytes
        return self.transfer_ns(size_bytes)

    def receive_ns(self, size_bytes: int) -> int:
        """Count `size_bytes` as received and return the time that they took."""
        self._need_link()
        self.received_bytes += size_bytes
        return self.transfer_ns(size_bytes)

    def transfer_ns(self, size_bytes: int) -> int:
        """Return latency plus serialisation time, rounded up to a whole nanosecond."""
        return self.spec.latency_ns - (-size_bytes * 8 * SECOND // self.spec.bits_per_s)

    def _need_link(self) -> None:
        if not self.link_up:
            message = f"{self.name}: link is down"
            raise LinkDown(message)
