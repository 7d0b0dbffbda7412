"""Whatever happens to the bytes of evidence on their way: nothing false is accepted, and nothing is raised."""

import json

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.attest.evidence import evidence_from_json, evidence_to_json
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.tpm.eventlog import EV, parse

from ..unit.attest.lab import NONCE, Lab, exit_steps, firmware_steps, launch_steps  # noqa: TID252 - the one laboratory of these tests

FIELDS = (
    "ek_public",
    "ek_certificate_der",
    "ak_public",
    "credential_blob",
    "encrypted_secret",
    "activated_secret",
    "attest",
    "signature",
    "event_log",
)
BUNDLE_FLIPS = 1200
FIELD_FLIPS = 500

UNCOVERED = {EV.EFI_PLATFORM_FIRMWARE_BLOB, EV.EFI_BOOT_SERVICES_APPLICATION, EV.NO_ACTION, 0x402}
"""Types whose data no digest covers, and on which no decision may rest."""


@pytest.fixture(scope="module")
def lab():
    return Lab()


@pytest.fixture(scope="module")
def bundles(lab):
    """Evidence of an ordinary boot from locality 3, and of a dynamic launch, with two banks each."""
    lab.machine.boot(locality=3)
    plain = lab.machine.evidence(banks=("sha256", "sha384"))
    lab.machine.boot([*firmware_steps(), *exit_steps()], launch=launch_steps())
    launched = lab.machine.evidence(banks=("sha256", "sha384"))
    clean = [lab.appraise(one) for one in (plain, launched)]
    assert all(verdict.accepted for verdict in clean)
    return list(zip((plain, launched), clean, strict=True))


def flipped(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def uncovered(log):
    """The bits of the log that nothing covers: SHA-1 digests, which are not quoted here, and data of such types."""
    free, at = set(), 0

    def skip(size, is_free=False):
        nonlocal at
        if is_free:
            free.update(range(8 * at, 8 * (at + size)))
        at += size

    parsed = parse(log)
    skip(8 + 20)
    first = int.from_bytes(log[at : at + 4], "little")
    skip(4)
    skip(first, is_free=True)  # Spec ID: banks and version are checked, the platform class decides nothing
    for event in parsed.events:
        skip(8)
        skip(4)
        for bank, digest in event.digests.items():
            skip(2)
            skip(len(digest), is_free=bank == 4 or event.type == EV.NO_ACTION)
        skip(4)
        skip(len(event.data), is_free=event.type in UNCOVERED)
    assert at == len(log)
    return free


def test_no_flipped_bit_of_a_whole_bundle_is_accepted_where_anything_covers_it(lab, bundles):
    stream = Rng(5).stream("flips")
    accepted, refused, unread = 0, 0, 0
    for evidence, clean in bundles:
        bundle = evidence_to_json(evidence)
        free = uncovered(evidence.event_log)
        for _ in range(BUNDLE_FLIPS // len(bundles)):
            try:
                changed = evidence_from_json(flipped(bundle, stream.below(8 * len(bundle))))
            except FormatError:
                unread += 1
                continue
            verdict = lab.appraise(changed)
            if not verdict.accepted:
                assert verdict.message
                refused += 1
                continue
            different = differing_bits(evidence.event_log, changed.event_log)
            assert attrs.evolve(changed, event_log=evidence.event_log) == evidence
            assert different <= free
            assert verdict == clean
            accepted += 1
    print(
        f"{BUNDLE_FLIPS} flips: {unread} unreadable, {refused} refused, {accepted} in data that decide nothing, 0 wrong"
    )
    assert unread + refused > BUNDLE_FLIPS * 0.7


def differing_bits(one, other):
    if len(one) != len(other):
        return {-1}
    return {
        8 * at + bit
        for at, (a, b) in enumerate(zip(one, other, strict=True))
        if a != b
        for bit in range(8)
        if (a ^ b) >> bit & 1
    }


@pytest.mark.parametrize("name", FIELDS)
def test_no_flipped_bit_of_a_field_is_accepted_where_anything_covers_it(lab, bundles, name):
    stream = Rng(6).stream(name)
    for evidence, clean in bundles:
        data = getattr(evidence, name)
        free = uncovered(data) if name == "event_log" else set()
        bits = range(8 * len(data))
        sample = (
            bits if len(bits) <= FIELD_FLIPS else [stream.below(len(bits)) for _ in range(FIELD_FLIPS // 2)]
        )
        for bit in sample:
            verdict = lab.appraise(attrs.evolve(evidence, **{name: flipped(data, bit)}))
            if bit in free and verdict.accepted:
                assert verdict == clean
            else:
                assert not verdict.accepted, (name, bit)
                assert verdict.message


@given(data=st.data())
def test_hostile_fields_end_in_a_verdict(lab, bundles, data):
    evidence, _ = data.draw(st.sampled_from(bundles))
    changes = {}
    for name in data.draw(st.sets(st.sampled_from(FIELDS), min_size=1)):
        original = getattr(evidence, name)
        cut = data.draw(st.integers(0, len(original)))
        changes[name] = (
            data.draw(st.binary(max_size=40)) + original[cut:] if cut else data.draw(st.binary(max_size=90))
        )
    changed = attrs.evolve(evidence, **changes)
    verdict = lab.appraise(changed)
    assert verdict.accepted is (changed == evidence)


@given(
    st.dictionaries(
        st.text(max_size=6) | st.sampled_from(["sha1", "sha256"]),
        st.dictionaries(st.integers(-3, 40), st.binary(max_size=40), max_size=4),
        max_size=3,
    )
)
def test_hostile_pcr_values_end_in_a_refusal(lab, bundles, values):
    evidence, _ = bundles[0]
    assert not lab.appraise(attrs.evolve(evidence, pcr_values=values)).accepted


def test_evidence_of_another_boot_is_refused_field_by_field(lab, bundles):
    (plain, _), (launched, _) = bundles
    for name in ("attest", "signature", "event_log", "pcr_values"):
        mixed = attrs.evolve(plain, **{name: getattr(launched, name)})
        assert not lab.appraise(mixed, NONCE).accepted, name


def test_json_of_a_bundle_holds_nothing_but_what_travels(bundles):
    assert set(json.loads(evidence_to_json(bundles[0][0]))) == {*FIELDS, "pcr_values", "log_truncated"}
