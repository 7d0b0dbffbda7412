"""Ephemeral scalars that the TPM remembers by a counter between two commands.

Models: Commit and EC_Ephemeral give a counter out, Sign and ZGen_2Phase use it up; only the latest few are remembered.
Leaves out: nothing of the library's rule; how a scalar follows from the counter is this TPM's own affair.
Source: TPM 2.0 Library part 1, annex C.2.3.
"""

from __future__ import annotations

from sim.core.facts import fact
from sim.tpm.constants import TPM_ALG
from sim.tpm.crypto.ecc import EXTRA_BITS, Curve, private_scalar
from sim.tpm.crypto.kdf import kdf_a

__all__ = ["Commits"]

COMMITS_MAX = fact("tpm.commits_max", 128, unit="scalars", source="swtpm 0.7.1", kind="inferred").value
_COUNTER_MASK = 0xFFFF


class Commits:
    """The counter, which of its latest values are unused, and the secret that the scalars come from."""

    def __init__(self) -> None:
        self.restart(b"")

    def restart(self, secret: bytes) -> None:
        """Forget all scalars and begin anew with another secret, as Startup(CLEAR) does."""
        self.secret = secret
        self.counter = 0
        self.unused: tuple[int, ...] = ()

    def take(self) -> int:
        """Give the next counter out; the oldest unused one is forgotten."""
        counter = self.counter
        self.counter += 1
        oldest = self.counter - COMMITS_MAX
        self.unused = (*[each for each in self.unused if each >= oldest], counter)
        return counter & _COUNTER_MASK

    def find(self, counter: int) -> int | None:
        """Return the full value of a 16-bit counter that is unused, or None."""
        return next((each for each in self.unused if each & _COUNTER_MASK == counter), None)

    def spend(self, counter: int) -> None:
        """Use a counter up."""
        self.unused = tuple(each for each in self.unused if each & _COUNTER_MASK != counter)

    def scalar(self, full_counter: int, curve: Curve, name: bytes) -> int:
        """Return the scalar that belongs to a full counter, a curve and the name of a key (empty: no key)."""
        context = name + full_counter.to_bytes(8, "big")
        bits = (curve.n.bit_length() + 7) // 8 * 8 + EXTRA_BITS
        return private_scalar(curve, kdf_a(TPM_ALG.SHA512, self.secret, b"ECDAA Commit", context, bits))
