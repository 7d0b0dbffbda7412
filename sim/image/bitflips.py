"""Counts what a verifier says about every single-bit change of a signed file.

Models: the attacker who may change one bit anywhere.  The answer of each try is the refusing check's name; a change
that is accepted, and an exception that is no refusal, are kept with the number of their bit.

Leaves out: changes of several bits, insertions and deletions.

Sources: none; the figure asked of a verifier is that nothing is accepted and nothing escapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import frozen

from sim.errors import FormatError, VerificationError

__all__ = ["FlipReport", "flip_bit", "flip_bits"]


@frozen(kw_only=True)
class FlipReport:
    """How many changes were tried, how many each check refused, and the bits that were accepted or escaped."""

    tried: int
    refused: dict[str, int]
    accepted: tuple[int, ...]
    escaped: tuple[tuple[int, str], ...]


def flip_bits(
    data: bytes, verify: Callable[[bytes], object], bits: Iterable[int] | None = None
) -> FlipReport:
    """Try `verify` on `data` with each bit changed in turn, or with the given ones only."""
    tried = 0
    refused: dict[str, int] = {}
    accepted: list[int] = []
    escaped: list[tuple[int, str]] = []
    for bit in range(8 * len(data)) if bits is None else bits:
        tried += 1
        try:
            verify(flip_bit(data, bit))
        except VerificationError as error:
            refused[error.check] = refused.get(error.check, 0) + 1
        except FormatError as error:
            refused[error.what] = refused.get(error.what, 0) + 1
        except Exception as error:  # the point is to find these
            escaped.append((bit, repr(error)))
        else:
            accepted.append(bit)
    return FlipReport(
        tried=tried, refused=dict(sorted(refused.items())), accepted=tuple(accepted), escaped=tuple(escaped)
    )


def flip_bit(data: bytes, bit: int) -> bytes:
    """Return `data` with one bit changed; bit 0 is the lowest of the first byte."""
    index = bit // 8
    return data[:index] + bytes((data[index] ^ 1 << bit % 8,)) + data[index + 1 :]
