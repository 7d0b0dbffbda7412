"""GetRandom and StirRandom.

Models: a deterministic generator seeded at manufacture, which StirRandom reseeds.  Leaves out: entropy.
Source: TPM 2.0 Library part 3, chapter 16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.core.rng import Stream
from sim.tpm.constants import TPM_CC
from sim.tpm.wire import DIGEST_BYTES_MAX

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "get_random", "stir_random"]

_RESEED_BYTES = 32


def get_random(tpm: Tpm, bytes_requested: int) -> tuple[Any, ...]:
    """Return random bytes, at most as many as the largest digest has."""
    return (tpm.random.bytes(min(bytes_requested, DIGEST_BYTES_MAX)),)


def stir_random(tpm: Tpm, data: bytes) -> tuple[Any, ...]:
    """Mix the caller's data into the generator."""
    tpm.random = Stream(tpm.random.bytes(_RESEED_BYTES) + data)
    return ()


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.GetRandom.value: get_random,
    TPM_CC.StirRandom.value: stir_random,
}
"""The actions of this group, by command code."""
