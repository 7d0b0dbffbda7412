from contextlib import suppress

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import FormatError, LimitError
from sim.image import bootcfg
from sim.image.bootcfg import BootConfig, format_boot_config, parse_boot_config

CONFIG = BootConfig(
    kernel="b.b00",
    modules=("jumpstrt.gz", "k.b00", "net_e10.v00", "state.tgz"),
    kernelopt="autoPartition=FALSE enableTboot=TRUE",
    build="8.0.2-0.0.1",
    updated=3,
)
TEXT = format_boot_config(CONFIG).decode()


def test_the_file_has_the_lines_of_an_installed_host():
    assert TEXT.splitlines() == [
        "bootstate=0",
        "title=Loading VMware ESXi",
        "timeout=5",
        "prefix=",
        "kernel=b.b00",
        "kernelopt=autoPartition=FALSE enableTboot=TRUE",
        "modules=jumpstrt.gz --- k.b00 --- net_e10.v00 --- state.tgz",
        "build=8.0.2-0.0.1",
        "updated=3",
    ]


def test_reading_gives_back_what_was_written():
    assert parse_boot_config(TEXT.encode()) == CONFIG


def test_comments_and_empty_lines_are_passed_over():
    assert parse_boot_config(b"# a comment\n\n" + TEXT.encode()) == CONFIG


def test_the_kernel_is_loaded_first():
    assert CONFIG.load_order[:2] == ("b.b00", "jumpstrt.gz")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("title=", "titel="),
        ("bootstate=0", "bootstate"),
        ("bootstate=0", "bootstate=00"),
        ("bootstate=0", "bootstate=-1"),
        ("updated=3", "updated=three"),
        ("kernel=b.b00", "kernel="),
        ("kernel=b.b00", "kernel=../b.b00"),
        ("kernel=b.b00\n", ""),
        (" --- k.b00", " -- k.b00"),
        (" --- k.b00", " --- "),
        ("updated=3\n", "updated=3\nupdated=4\n"),
        ("ESXi", "ESXi\x07"),
        ("ESXi", "ESX\xe9"),
    ],
)
def test_a_line_that_is_not_understood_is_refused(old, new):
    assert old in TEXT
    with pytest.raises(FormatError):
        parse_boot_config(TEXT.replace(old, new).encode("latin-1"))


def test_limits_have_names(monkeypatch):
    with pytest.raises(LimitError, match="characters"):
        parse_boot_config(TEXT.replace("ESXi", "x" * 5000).encode())
    monkeypatch.setattr(bootcfg, "MODULES_MAX", 3)
    with pytest.raises(LimitError, match="modules"):
        parse_boot_config(TEXT.encode())
    monkeypatch.setattr(bootcfg, "CONFIG_BYTES_MAX", 10)
    with pytest.raises(LimitError, match="bytes"):
        parse_boot_config(TEXT.encode())


@pytest.mark.parametrize(
    "field",
    [{"kernelopt": "a\nkernel=evil.b00"}, {"title": "é"}, {"kernel": "a b"}, {"modules": ("a", "b --- c")}],
)
def test_a_value_cannot_smuggle_in_another_line(field):
    with pytest.raises(FormatError):
        format_boot_config(attrs.evolve(CONFIG, **field))


@given(st.binary(max_size=150))
def test_any_bytes_are_a_configuration_or_refused(data):
    with suppress(FormatError):
        assert parse_boot_config(b"kernel=a\n" + data).kernel == "a"
