"""Firmware code and Secure Boot keys against what makers publish: each deviation is a reason of its own."""

import hashlib

import attrs
import pytest

from sim.attest import firmware, platform
from sim.attest.uefi import IMAGE_SECURITY_DATABASE, UefiVariable
from sim.image.efi_lists import OWNER, ListEntry, encode_signature_lists
from sim.image.platform import ReferenceCode, ReferencePlatform
from sim.tpm.eventlog import EV

from .alone import SHA256, event, refused
from .lab import DATABASE, Lab, Step, boot_steps, codes, firmware_steps, keys, manifest, variable

VERSION = "1.2.3".encode("utf-16-le") + b"\0\0"


def code(name, pcr, content, **changes):
    return ReferenceCode(name=name, pcr=pcr, digests=(hashlib.sha256(content).digest(),), **changes)


MODEL = ReferencePlatform(
    model="model 1",
    code=(
        code("version", 0, VERSION),
        code("volume", 0, b"firmware!"),
        code("card", 2, b"option ROM", required=False),
    ),
    platform_keys=(b"platform key",),
    exchange_keys=(b"exchange key",),
    allowed=(b"loader authority", b"another authority"),
)


def judged(steps, *platforms, **policy):
    lab = Lab()
    evidence = lab.machine.boot(steps).evidence()
    return lab.appraise(evidence, manifest=attrs.evolve(manifest(), platforms=platforms), **policy)


def with_rom(content):
    return [Step(2, EV.EFI_BOOT_SERVICES_DRIVER, b"where it was", content), *boot_steps()]


def with_variable(name, content):
    """The boot of a host whose firmware holds another content of a Secure Boot variable."""
    space = {"namespace": DATABASE} if name in {"db", "dbx"} else {}
    start = variable(name, b"", **space)[:16] + len(name).to_bytes(8, "little")
    wide = name.encode("utf-16-le")
    return [
        attrs.evolve(step, data=variable(name, content, **space))
        if step.type == EV.EFI_VARIABLE_DRIVER_CONFIG
        and step.data.startswith(start)
        and step.data[32:].startswith(wide)
        else step
        for step in boot_steps()
    ]


def with_authority(data):
    return [
        attrs.evolve(step, data=data) if step.type == EV.EFI_VARIABLE_AUTHORITY else step
        for step in boot_steps()
    ]


def changed(old, new):
    return [attrs.evolve(step, over=new) if step.over == old else step for step in boot_steps()]


# ------------------------------------------------------------ code


def test_published_firmware_is_accepted_with_and_without_its_card():
    for steps in (boot_steps(), with_rom(b"option ROM")):
        verdict = judged(steps, MODEL)
        assert verdict.accepted, verdict.message
        assert verdict.unknown == ()


def test_where_no_release_was_published_the_verdict_says_that_it_is_not_known():
    lab = Lab()
    evidence = lab.machine.boot(boot_steps()).evidence()
    published = attrs.evolve(manifest(), releases=(), platforms=(MODEL,))
    verdict = lab.appraise(evidence, manifest=published)
    assert verdict.accepted, verdict.message
    assert verdict.unknown == ("which versions of VIBs were released together: the manifest does not say",)


def test_where_nobody_published_firmware_the_verdict_says_that_it_is_not_known():
    verdict = judged(changed(b"firmware!", b"implanted"))
    assert verdict.accepted
    assert verdict.unknown == ("firmware code and Secure Boot keys: no maker's reference was given",)


def test_changed_firmware_is_named_by_what_is_there_and_what_is_missing():
    verdict = judged(changed(b"firmware!", b"implanted"), MODEL)
    assert [(one.code, one.message, one.component) for one in verdict.reasons] == [
        ("firmware_code", "firmware code in PCR 0 is not as the maker of model 1 published it", "firmware"),
        ("firmware_missing", "the firmware code volume of model 1 was not measured into PCR 0", "volume"),
    ]
    assert verdict.reasons[0].evidence == f"digest {hashlib.sha256(b'implanted').hexdigest()}"


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        (with_rom(b"evil ROM"), ["firmware_code"]),
        (with_rom(b"firmware!"), ["firmware_code"]),
        ([step for step in boot_steps() if step.over != b"firmware!"], ["firmware_missing"]),
        ([Step(0, EV.POST_CODE, b"text", b"more code"), *boot_steps()], ["firmware_code"]),
        ([Step(0, EV.NONHOST_CODE, b"text", b"more code"), *boot_steps()], ["firmware_code"]),
        ([Step(1, EV.CPU_MICROCODE, b"text", b"more code"), *boot_steps()], ["firmware_code"]),
        ([Step(1, EV.PLATFORM_CONFIG_FLAGS, b"a setting"), *boot_steps()], []),
    ],
)
def test_every_kind_of_code_is_judged_in_its_pcr(steps, found):
    assert codes(judged(steps, MODEL)) == found


def test_one_model_must_explain_everything():
    other = attrs.evolve(MODEL, model="model 2", code=(*MODEL.code[:2], code("card", 2, b"ROM of 2")))
    assert judged(with_rom(b"option ROM"), other, MODEL).accepted
    assert judged(with_rom(b"ROM of 2"), MODEL, other).accepted
    mixed = [Step(2, EV.EFI_BOOT_SERVICES_DRIVER, b"", b"option ROM"), *with_rom(b"ROM of 2")]
    assert codes(judged(mixed, MODEL, other)) == ["firmware_code"]


# ------------------------------------------------------------ Secure Boot keys


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("PK", keys(b"another platform key")),
        ("KEK", keys(b"exchange key", b"attacker's")),
        ("db", keys(b"loader authority", b"attacker's")),
    ],
)
def test_a_key_that_no_maker_published_is_refused_by_its_variable(name, content):
    steps = with_variable(name, content)
    verdict = judged(steps, MODEL)
    assert [(one.code, one.component) for one in verdict.reasons] == [("secure_boot_keys", name)]
    assert judged(steps).accepted, "nobody published any"


def test_dbx_must_hold_what_its_maker_published_and_may_hold_more():
    model = attrs.evolve(MODEL, forbidden=(b"\1" * 32, b"\2" * 32))
    full = encode_signature_lists([b"\1" * 32, b"\2" * 32, b"\3" * 32])
    assert judged(with_variable("dbx", full), model).accepted
    for content, missing in ((b"", 2), (encode_signature_lists([b"\1" * 32]), 1)):
        verdict = judged(with_variable("dbx", content), model)
        assert verdict.message == (
            f"the Secure Boot variable dbx lacks {missing} of the entries that the maker of model 1 published"
        )


def test_keys_decide_nothing_where_secure_boot_is_off_and_may_be():
    steps = [
        attrs.evolve(step, data=variable("SecureBoot", b"\0"))
        if step.data == variable("SecureBoot", b"\1")
        else step
        for step in with_variable("db", b"junk")
        if step.type != EV.EFI_VARIABLE_AUTHORITY
    ]
    assert judged(steps, MODEL, require_secure_boot=False).accepted
    assert codes(judged(steps, MODEL)) == ["secure_boot"]


@pytest.mark.parametrize("name", ["PK", "KEK", "db"])
def test_secure_boot_with_an_empty_variable_is_refused(name):
    verdict = judged(with_variable(name, b""))
    assert (codes(verdict), verdict.message) == (
        ["secure_boot_keys"], f"Secure Boot was on, yet its variable {name} is empty",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["PK", "KEK", "db", "dbx"])
def test_variables_that_hold_no_lists_are_refused(name):
    verdict = judged(with_variable(name, b"junk"))
    assert codes(verdict) == ["secure_boot_keys"]
    assert verdict.message.startswith(f"the Secure Boot variable {name} cannot be read: ")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (variable("db", OWNER + b"attacker's", DATABASE), "authority"),
        (variable("db", b"\0" * 16 + b"loader authority", DATABASE), "authority"),
        (variable("db", OWNER + b"loader authority"), "authority"),
        (variable("MokList", OWNER + b"loader authority", DATABASE), "authority"),
        (b"junk", "pcr7_order"),
    ],
)
def test_who_vouches_must_stand_in_the_measured_db(data, code):
    assert codes(judged(with_authority(data))) == [code]


def test_who_vouches_must_not_stand_in_dbx():
    authority = UefiVariable(namespace=IMAGE_SECURITY_DATABASE, name="db", content=OWNER + b"ca")
    entry = ListEntry(kind="certificate", data=b"ca")
    firmware.check_authorities([authority], {"db": [entry], "dbx": []})
    assert refused(firmware.check_authorities, [authority], {"db": [entry], "dbx": [entry]}) == (
        "authority", "what vouched for a boot loader is in the measured dbx", "boot loader", "",
    )  # fmt: skip


def test_a_digest_of_another_bank_explains_no_code():
    events = [event(0, EV.S_CRTM_VERSION, VERSION), event(0, EV.EFI_PLATFORM_FIRMWARE_BLOB, b"firmware!")]
    assert platform.platform_problems(events, {}, SHA256, [MODEL]) == ()
    assert len(platform.platform_problems(events, {}, 0x0C, [MODEL])) == 4
    assert platform.platform_problems(events, {}, SHA256, []) == ()
    assert firmware_steps()
