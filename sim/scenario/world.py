"""The makers behind a simulated world: code signers and the TPM's manufacturer, all from the seed.

Models: one PKI and one TPM vendor a world.  `vmksim image sign --seed N` signs with the keys that the hosts of a
scenario with seed N trust.

Leaves out: secrecy: whoever knows the seed has all keys.
"""

from __future__ import annotations

from datetime import datetime

from sim.core.context import EPOCH
from sim.core.rng import Rng
from sim.image.pki import Pki
from sim.tpm.manufacture import TpmVendor

__all__ = ["world_pki", "world_tpm_vendor"]


def world_pki(rng: Rng, epoch: datetime = EPOCH) -> Pki:
    """Return the code-signing PKI of the world with this root of chance."""
    return Pki.create(rng.child("makers"), epoch=epoch)


def world_tpm_vendor(rng: Rng) -> TpmVendor:
    """Return the maker of the world's TPMs."""
    return TpmVendor(rng.child("tpm vendor"))
