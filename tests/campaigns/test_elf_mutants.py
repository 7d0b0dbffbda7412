"""The campaign of mutated ELF files, sampled: it must run, load and refuse files of each type, and be able to fail."""

import importlib.util
from pathlib import Path

import pytest

from sim.kernel import userworld
from sim.kernel.layout import Layout
from sim.kernel.segment_buffers import SegmentBuffers

SCRIPT = Path(__file__).with_name("elf_mutants.py")


@pytest.fixture(scope="module")
def campaign():
    spec = importlib.util.spec_from_file_location("elf_mutants_campaign", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sampled_campaign_finds_nothing_and_loads_and_refuses_each_file(campaign, capsys):
    status = campaign.main(["--count", "1500", "--seed", "3"])
    text = capsys.readouterr().out
    assert status == 0, text
    assert "1500 mutants: 0 findings" in text
    for name, _, _ in campaign.seeds():
        assert f"{name}: loaded" in text
        assert f"{name}: refused" in text


def test_the_unchanged_files_load(campaign):
    whole = campaign.Campaign(1)
    whole.host = campaign.Host(1)
    for name, data, way in whole.seeds:
        whole.check(name, way, data)
    assert dict(whole.outcomes) == {"loaded": len(whole.seeds)}


def test_an_error_of_another_kind_is_a_finding(campaign, capsys, monkeypatch):
    def crash(*_):
        raise KeyError("oops")

    monkeypatch.setattr(SegmentBuffers, "store", crash)
    assert campaign.main(["--count", "30"]) == 1
    assert "KeyError in" in capsys.readouterr().out


def test_a_region_left_in_the_layout_is_a_finding(campaign, capsys, monkeypatch):
    place = Layout.place

    def twice(self, kind, size_bytes, name=""):
        if name == "mutant":
            place(self, kind, size_bytes, "forgotten")
        return place(self, kind, size_bytes, name)

    monkeypatch.setattr(Layout, "place", twice)
    assert campaign.main(["--count", "30"]) == 1
    assert "LEFT SOMETHING BEHIND" in capsys.readouterr().out


def test_frames_left_by_a_refused_program_are_a_finding(campaign, capsys, monkeypatch):
    def keep(self, base):
        return None

    monkeypatch.setattr(userworld.KernelMemory, "unmap_segment", keep)
    assert campaign.main(["--count", "30"]) == 1
    assert "FINDING" in capsys.readouterr().out


def test_a_slow_reader_is_a_finding(campaign, capsys, monkeypatch):
    monkeypatch.setattr(campaign, "SECONDS_MAX", 0)
    assert campaign.main(["--count", "5"]) == 1
    assert "SLOW" in capsys.readouterr().out
