"""Which places each acceptance level may write to: every place of both lists, and what is next to it."""

import pytest

from sim.image.acceptance import AcceptanceLevel
from sim.image.pathrules import ANYWHERE, PathRules

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel


@pytest.mark.parametrize(
    "folder",
    [
        "opt/",
        "usr/lib/vmware/",
        "etc/vmware/shutdown/",
        "etc/vmware/pciid/",
        "etc/vmware/vm-support/",
        "etc/vmware/firewall/",
        "etc/vmware/service/",
        "etc/vmware/driver.map.d/",
    ],
)
def test_every_level_may_write_below_a_community_folder_and_not_beside_it(folder):
    rules = PathRules()
    for level in AcceptanceLevel:
        assert rules.refused(level, [f"{folder}x", f"{folder}x/y"]) == ()
    beside = f"{folder[:-1]}x"
    for level in (COMMUNITY, PARTNER):
        assert rules.refused(level, [beside, f"{folder}x", f"x/{folder}x"]) == tuple(
            sorted([beside, f"x/{folder}x"])
        )


@pytest.mark.parametrize(
    "path",
    [
        "etc/vmware/vmware.lic",
        "etc/vmware/support",
        "etc/vmware/support/x",
        "etc/vmware/oem.xml",
        "etc/vmware/backup.conf",
        "customLinks.xml",
        "etc/init.d/x",
        "etc/vmware/default.map.d/x",
    ],
)
def test_partners_may_write_what_the_community_may_not(path):
    rules = PathRules()
    assert rules.refused(COMMUNITY, [path]) == (path,)
    for level in (PARTNER, ACCEPTED, CERTIFIED):
        assert rules.refused(level, [path]) == ()


@pytest.mark.parametrize("path", ["etc/vmware/oem.xml/x", "etc/vmware/backup.conf~", "customlinks.xml"])
def test_a_single_file_of_the_partners_list_opens_nothing_beside_it(path):
    assert PathRules().refused(PARTNER, [path]) == (path,)


def test_from_the_level_that_vmware_accepts_on_every_place_is_free():
    for level in (ACCEPTED, CERTIFIED):
        assert PathRules().refused(level, ["bin/sh", "etc/passwd"]) == ()
        assert PathRules(community=(), partner=()).refused(level, ["bin/sh"]) == ()


def test_refused_paths_are_named_once_and_sorted():
    assert PathRules().refused(COMMUNITY, ["z", "opt/x", "a", "z"]) == ("a", "z")


def test_without_rules_every_level_writes_anywhere():
    assert PathRules(community=("",), partner=()) == ANYWHERE
    for level in AcceptanceLevel:
        assert ANYWHERE.refused(level, ["bin/sh", "etc/passwd", "x"]) == ()
