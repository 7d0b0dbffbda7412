"""The TXT registers as tboot's txt-stat prints them.

Models: the lines of txt-stat for the registers that the simulation has, in its order and spelling.  Leaves out the heap,
the DMA-protected range, the bus registers, and the log that follows there.

Sources: tboot 1.10.5, utils/txt-stat.c.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.boot.txt_errors import describe_errorcode
from sim.hw.txt import TxtState
from sim.report.table import Section

__all__ = ["txt_section"]

_KEY_LINE_BYTES = 16
_STS_BITS = (
    ("senter_done", 0),
    ("sexit_done", 1),
    ("mem_config_lock", 6),
    ("private_open", 7),
    ("locality_1_open", 15),
    ("locality_2_open", 16),
)


def txt_section(state: TxtState) -> Section:
    """Return the registers as a section of a report."""
    return Section(
        title="Intel(r) TXT Configuration Registers",
        lines=tuple(_lines(state)),
        mood="bad" if state.txt_reset else "good" if state.senter_done else "plain",
    )


def _lines(state: TxtState) -> Iterator[str]:
    yield f"STS: {state.sts:#010x}"
    for name, bit in _STS_BITS:
        yield f"    {name}: {_word(bool(state.sts >> bit & 1))}"
    yield f"ESTS: {state.ests:#04x}"
    yield f"    txt_reset: {_word(state.txt_reset)}"
    yield f"E2STS: {state.e2sts:#018x}"
    yield f"    secrets: {_word(state.secrets)}"
    yield f"ERRORCODE: {state.errorcode:#010x}"
    yield from (f"  {line}" for line in describe_errorcode(state.errorcode)[1:])
    yield f"DIDVID: {state.didvid:#018x}"
    yield f"    vendor_id: {state.didvid & 0xFFFF:#x}"
    yield f"    device_id: {state.didvid >> 16 & 0xFFFF:#x}"
    yield f"    revision_id: {state.didvid >> 32 & 0xFFFF:#x}"
    yield f"SINIT.SIZE: {state.sinit_bytes}B ({state.sinit_bytes:#x})"
    yield "PUBLIC.KEY:"
    key = bytes.fromhex(state.public_key)
    for at in range(0, len(key), _KEY_LINE_BYTES):
        yield f"    {key[at : at + _KEY_LINE_BYTES].hex(' ')}"
    yield f"TXT measured launch: {_word(state.senter_done)}"
    yield f"secrets flag set: {_word(state.secrets)}"


def _word(value: bool) -> str:  # noqa: FBT001 - the only argument of a formatter
    return "TRUE" if value else "FALSE"
