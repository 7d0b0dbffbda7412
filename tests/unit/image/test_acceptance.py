import pytest

from sim.errors import FormatError
from sim.image.acceptance import AcceptanceLevel


def test_levels_are_in_esxi_order():
    assert [level.title for level in sorted(AcceptanceLevel, reverse=True)] == [
        "VMwareCertified",
        "VMwareAccepted",
        "PartnerSupported",
        "CommunitySupported",
    ]


@pytest.mark.parametrize("level", AcceptanceLevel)
def test_each_spelling_leads_back_to_its_level(level):
    assert AcceptanceLevel.from_title(level.title) is level
    assert AcceptanceLevel.from_xml(level.xml_name) is level


def test_api_spellings_are_those_of_the_vsphere_api():
    assert [level.api_name for level in AcceptanceLevel] == [
        "community",
        "partner",
        "vmware_accepted",
        "vmware_certified",
    ]


@pytest.mark.parametrize("text", ["partnersupported", "PARTNER", "", "partner ", "PartnerSupported\n"])
def test_names_are_case_sensitive_and_exact(text):
    with pytest.raises(FormatError):
        AcceptanceLevel.from_title(text)
    with pytest.raises(FormatError):
        AcceptanceLevel.from_xml(text)


def test_a_host_takes_its_own_level_and_higher_ones():
    host = AcceptanceLevel.PARTNER_SUPPORTED
    assert [level.allowed_on(host) for level in AcceptanceLevel] == [False, True, True, True]
