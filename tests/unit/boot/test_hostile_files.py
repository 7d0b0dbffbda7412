"""Any bytes in any file that a boot reads: one outcome, never an exception, never a foreign byte accepted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.boot.bootinfo import BootFailure, BootInfo
from sim.boot.loadoption import LOAD_OPTION_BYTES_MAX, parse_load_option
from sim.errors import FormatError, LimitError

FILES = ("boot.cfg", "imgdb.tgz", "b.b00", "vim.v00", "useropts.gz", "state.tgz", "vmkusb.v00")
VARIABLES = ("db", "dbx", "Boot0001", "BootOrder", "PK")

damage = st.one_of(
    st.tuples(st.just("replace"), st.binary(max_size=300), st.just(0)),
    st.tuples(st.just("cut"), st.just(b""), st.integers(0, 2000)),
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=40), st.just(0)),
    st.tuples(st.just("splice"), st.binary(min_size=1, max_size=40), st.integers(0, 2000)),
)


def damaged(data, how):
    kind, content, at = how
    if kind == "replace":
        return content
    if kind == "cut":
        return data[: min(at, len(data))]
    if kind == "append":
        return data + content
    at = min(at, len(data))
    return data[:at] + content + data[at + len(content) :]


@pytest.fixture(scope="module")
def clean_pcrs(make_world):
    world = make_world()
    world.boot()
    return world.pcrs()


@given(name=st.sampled_from(FILES), how=damage, secure_boot=st.booleans())
@settings(max_examples=80)
def test_damaged_bank_file_ends_in_an_outcome_and_never_passes_secure_boot(
    make_world, name, how, secure_boot
):
    world = make_world(secure_boot=secure_boot)
    volume = world.board.disk.volume("bootbank")
    before = volume.peek(name)
    volume.write(name, damaged(before, how))
    outcome = world.boot()
    assert isinstance(outcome, (BootInfo, BootFailure))
    if secure_boot and volume.peek(name) != before:
        assert isinstance(outcome, BootFailure) or world.pcrs() != clean_pcrs


@given(name=st.sampled_from(("EFI/VMware/safeboot64.efi", "EFI/VMware/mboot64.efi")), how=damage)
@settings(max_examples=60)
def test_damaged_loader_never_starts_under_secure_boot(make_world, name, how):
    world = make_world()
    volume = world.board.disk.volume("esp")
    before = volume.peek(name)
    volume.write(name, damaged(before, how))
    outcome = world.boot()
    assert isinstance(outcome, BootInfo) == (volume.peek(name) == before)


@given(name=st.sampled_from(VARIABLES), how=damage)
@settings(max_examples=60)
def test_damaged_firmware_variable_ends_in_an_outcome(make_world, name, how):
    world = make_world()
    firmware = world.board.firmware
    firmware.set_variable(name, damaged(firmware.variables[name], how))
    assert isinstance(world.boot(), (BootInfo, BootFailure))


@given(data=st.binary(max_size=200))
@settings(max_examples=200)
def test_load_option_parser_gives_an_option_or_a_format_error(data):
    try:
        option = parse_load_option(data)
    except FormatError:
        return
    assert option.file_path


def test_file_name_that_is_no_ascii_is_told_escaped(make_world):
    world = make_world()
    world.board.disk.volume("bootbank").write("\udcff\n.v00", b"implant")
    failure = world.boot()
    assert isinstance(failure, BootFailure)
    assert all(line.isascii() and line.isprintable() for line in world.lines("secureboot"))


def test_load_option_over_its_limit_is_refused():
    with pytest.raises(LimitError):
        parse_load_option(bytes(LOAD_OPTION_BYTES_MAX + 1))
