"""Which module goes into which PCR."""

from __future__ import annotations

import pytest

from sim.boot.pcrmap import LATE_LAUNCH_MAP, LOADER_MAP, module_base_name


@pytest.mark.parametrize(
    ("name", "loader", "late"),
    [
        ("esxupdt.v00", 11, 19),
        ("b.b00", 12, 19),
        ("k.b00", 12, 19),
        ("s.v00", 12, 19),
        ("sb.v00", 12, 19),
        ("chardevs.b00", 13, 20),
        ("vmx.v00", 13, 20),
        ("imgdb.tgz", 13, 20),
        ("state.tgz", 13, 20),
        ("k", 12, 19),
        ("kk.b00", 13, 20),
        ("K.b00", 13, 20),
        ("jumpstrt.gz", 14, 21),
        ("useropts.gz", 14, 21),
        ("features.gz", 14, 21),
        ("b.gz", 14, 21),
    ],
)
def test_each_module_has_the_pcr_of_its_class(name, loader, late):
    assert LOADER_MAP.module_pcr(name) == loader
    assert LATE_LAUNCH_MAP.module_pcr(name) == late


def test_modules_of_the_real_txt_host_fall_into_the_pcrs_of_its_report(vectors):
    import json

    report = json.loads((vectors / "esxi_txt_report.json").read_text())
    groups = report["pcr_manifest"]["pcr_event_log_map"]["SHA256"]
    checked = 0
    for group in groups:
        for event in group["event_log"]:
            kind, label = event["info"]["EventType"], event["label"]
            if kind in ("HostTpmSoftwareComponentEvent", "HostTpmOptionEvent") and "." in label:
                assert LATE_LAUNCH_MAP.module_pcr(label) == int(group["pcr_index"].removeprefix("pcr_"))
                checked += 1
    assert checked == 154


def test_base_name_drops_directory_and_extension():
    assert module_base_name("/bootbank/net-e1000.v00") == "net-e1000"
