"""The TXT registers are shown in the words of txt-stat."""

from sim.hw.txt import TxtRegisters
from sim.report.txt import txt_section


def shown(registers):
    return txt_section(registers.state())


def test_launched_host_shows_what_txt_stat_shows_on_one():
    registers = TxtRegisters()
    registers.public_key = bytes(range(32))
    registers.note_sinit(131072)
    registers.note_launch()
    section = shown(registers)
    assert section.mood == "good"
    assert section.lines == (
        "STS: 0x00018091",
        "    senter_done: TRUE",
        "    sexit_done: FALSE",
        "    mem_config_lock: FALSE",
        "    private_open: TRUE",
        "    locality_1_open: TRUE",
        "    locality_2_open: TRUE",
        "ESTS: 0x00",
        "    txt_reset: FALSE",
        "E2STS: 0x0000000000000002",
        "    secrets: TRUE",
        "ERRORCODE: 0x00000000",
        "DIDVID: 0x00000001b0068086",
        "    vendor_id: 0x8086",
        "    device_id: 0xb006",
        "    revision_id: 0x1",
        "SINIT.SIZE: 131072B (0x20000)",
        "PUBLIC.KEY:",
        "    00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f",
        "    10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f",
        "TXT measured launch: TRUE",
        "secrets flag set: TRUE",
    )


def test_error_code_is_explained():
    registers = TxtRegisters()
    registers.note_error(0xC0001501)
    section = shown(registers)
    assert section.mood == "bad"
    at = section.lines.index("ERRORCODE: 0xc0001501")
    assert section.lines[at + 1] == (
        "    AC module error : acm_type=0x1, progress=0x10, error=0x5 (MLE_MISMATCH)"
    )
    assert "TXT measured launch: FALSE" in section.lines
    assert shown(TxtRegisters()).mood == "plain"
