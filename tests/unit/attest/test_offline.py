"""Files from anywhere: good ones prove what they prove, each attack is refused by its name, hostile bytes never raise."""

import struct

import attrs
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.attest import quote
from sim.attest.keys import read_public
from sim.attest.offline import Files, appraise_files, read_pcr_file, recognise
from sim.attest.verdict import AttestationError
from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.tpm.constants import TPM_RH
from sim.tpm.eventlog import EV, EventLogWriter, parse
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import TPM2B_PUBLIC

from .lab import ALL_BANKS, NONCE, QUOTED, Lab, Step, boot_steps, find, replaced, variable


def pcr_file(values, size=24):
    """What tpm2_quote -o writes for {bank: {pcr: value}}."""
    algorithms = {"sha1": 4, "sha256": 0xB, "sha384": 0xC, "sha512": 0xD}
    fields, digests = [], []
    for bank, pcrs in values.items():
        bitmap = sum(1 << pcr for pcr in pcrs).to_bytes(4, "little")
        fields += [algorithms[bank], size // 8, bitmap]
        digests += [value for _, value in sorted(pcrs.items())]
    fields += [0, 0, bytes(4)] * (16 - len(values))
    data = struct.pack("<I" + "HB4sx" * 16, len(values), *fields)
    lists = [digests[at : at + 8] for at in range(0, len(digests), 8)]
    data += struct.pack("<I", len(lists))
    for each in lists:
        padded = [part for value in each for part in (len(value), value)] + [0, b""] * (8 - len(each))
        data += struct.pack("<I" + "H64s" * 8, len(each), *padded)
    return data


class Booted:
    """A machine that has booted, and the files of a quote of it."""

    def __init__(self, steps=None, banks=("sha256",), pcrs=QUOTED, **boot):
        self.lab = Lab()
        self.lab.machine.boot(steps, **boot)
        self.evidence = self.lab.machine.evidence(banks=banks, pcrs=pcrs)

    def files(self, **changes):
        files = Files(
            attest=self.evidence.attest,
            signature=self.evidence.signature,
            key=self.evidence.ak_public,
            nonce=NONCE,
            pcr_file=pcr_file(self.evidence.pcr_values),
            log=self.evidence.event_log,
        )
        return attrs.evolve(files, **changes)

    def judge(self, *, require_secure_boot=False, **changes):
        return appraise_files(self.files(**changes), require_secure_boot=require_secure_boot)


@pytest.fixture(scope="module")
def booted():
    return Booted()


def codes(verdict):
    return [reason.code for reason in verdict.reasons]


NO_CREDENTIAL = "the public area says that the key is a TPM's restricted signing key: no credential proves that a TPM holds it"


def test_good_files_are_accepted_and_what_they_prove_is_told(booted):
    verdict = booted.judge(require_secure_boot=True)
    assert verdict.accepted, verdict.reasons
    assert verdict.unchecked == (NO_CREDENTIAL,)
    assert [text.split()[0:3] for text in verdict.proven] == [
        ["the", "key", "signed"],
        ["the", "quote", "names"],
        ["the", "quote", "answers"],
        ["the", "PCR", "values"],
        ["the", "event", "log"],
    ]
    assert verdict.pcr_values == {"sha256": booted.evidence.pcr_values["sha256"]}
    assert (verdict.log.secure_boot, verdict.log.system, str(verdict.log.hand_over)) == (
        True,
        "esxi",
        "clean",
    )
    assert len(verdict.log.applications) == 2


@pytest.mark.parametrize(
    ("left_out", "told"),
    [
        ({"nonce": None}, "no nonce"),
        ({"log": None}, "no event log"),
        ({"log": None, "pcr_file": None}, "no PCR values"),
    ],
)
def test_what_was_not_given_is_told_and_not_claimed(booted, left_out, told):
    verdict = booted.judge(**left_out)
    assert verdict.accepted
    assert any(told in text for text in verdict.unchecked)
    assert len(verdict.proven) == 5 - len(left_out)


def test_without_a_file_of_values_the_replay_of_the_log_is_held_to_the_quote(booted):
    verdict = booted.judge(pcr_file=None)
    assert verdict.accepted
    assert verdict.pcr_values == {"sha256": booted.evidence.pcr_values["sha256"]}
    log = EventLogWriter(ALL_BANKS)
    for event in parse(booted.evidence.event_log).events[:-1]:
        log.append(event.pcr, event.type, event.digests, event.data)
    assert codes(booted.judge(pcr_file=None, log=log.to_bytes())) == ["pcr_digest"]


def test_secure_boot_can_be_demanded_only_where_it_is_proven(booted):
    assert codes(booted.judge(require_secure_boot=True, log=None)) == ["secure_boot"]
    off = Booted(boot_steps(secure_boot=False))
    assert off.judge().accepted
    assert codes(off.judge(require_secure_boot=True)) == ["secure_boot"]
    without_7 = Booted(pcrs=[pcr for pcr in QUOTED if pcr != 7])
    verdict = without_7.judge()
    assert verdict.accepted
    assert verdict.log.secure_boot is None
    assert any("does not cover PCR 7" in text for text in verdict.unchecked)
    assert codes(without_7.judge(require_secure_boot=True)) == ["secure_boot"]


def test_secure_boot_without_an_authority_is_none_that_can_be_demanded():
    nobody = Booted([step for step in boot_steps() if step.type != EV.EFI_VARIABLE_AUTHORITY])
    assert nobody.judge().accepted
    verdict = nobody.judge(require_secure_boot=True)
    assert [one.message for one in verdict.reasons] == [
        "Secure Boot was on, yet no authority vouched for a boot loader"
    ]


def test_a_quote_of_the_sha_1_bank_alone_is_told(booted):
    assert not any("SHA-1" in text for text in booted.judge().unchecked)
    assert not any("SHA-1" in text for text in Booted(banks=("sha1", "sha256")).judge().unchecked)
    verdict = Booted(banks=("sha1",)).judge(require_secure_boot=True)
    assert verdict.accepted
    assert any("covers the SHA-1 bank alone" in text for text in verdict.unchecked)


def software_signature(attest, private):
    r, s = decode_dss_signature(private.sign(attest, ec.ECDSA(hashes.SHA256())))
    parts = (part.to_bytes(32, "big") for part in (r, s))
    return struct.pack(">HH", 0x18, 0xB) + b"".join(struct.pack(">H", 32) + part for part in parts)


def test_a_software_key_in_a_public_area_of_its_own_is_never_called_a_tpm_s(booted):
    private = ec.derive_private_key(5, ec.SECP256R1())
    point = private.public_key().public_numbers()
    public = read_public(booted.evidence.ak_public)
    unique = attrs.evolve(public.unique, x=point.x.to_bytes(32, "big"), y=point.y.to_bytes(32, "big"))
    key = TPM2B_PUBLIC.encode(attrs.evolve(public, unique=unique))
    verdict = booted.judge(key=key, signature=software_signature(booted.evidence.attest, private))
    assert verdict.accepted
    assert not any("TPM" in text or "names this key" in text for text in verdict.proven)
    assert NO_CREDENTIAL in verdict.unchecked
    assert any("names no primary key" in text for text in verdict.unchecked)


@pytest.mark.parametrize("salt", [32, padding.PSS.MAX_LENGTH])
def test_a_quote_signed_by_rsapss_is_verified(booted, salt):
    private = rsa_private_key(Rng(5).stream("key"))
    public = private.public_key()
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    scheme = padding.PSS(padding.MGF1(hashes.SHA256()), salt)

    def signed(attest):
        raw = private.sign(attest, scheme, hashes.SHA256())
        return struct.pack(">HHH", 0x16, 0xB, len(raw)) + raw

    attest = booted.evidence.attest
    assert booted.judge(key=der, signature=signed(attest)).accepted
    assert codes(booted.judge(key=der, signature=signed(attest + b"x"))) == ["signature"]
    with pytest.raises(AttestationError):
        quote.check_signature(public, attest, quote.read_signature(signed(attest)))


# ------------------------------------------------------------ attacks


def test_a_quote_with_another_magic_or_type_is_refused_though_its_signature_is_good(booted):
    private = ec.derive_private_key(5, ec.SECP256R1())
    der = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def signed(attest):
        r, s = decode_dss_signature(private.sign(attest, ec.ECDSA(hashes.SHA256())))
        parts = (part.to_bytes(32, "big") for part in (r, s))
        return struct.pack(">HH", 0x18, 0xB) + b"".join(struct.pack(">H", 32) + part for part in parts)

    good = booted.evidence.attest
    assert booted.judge(signature=signed(good), key=der).accepted
    for forged, code in (
        (b"\x11" + good[1:], "magic"),
        (good[:4] + b"\x80\x17" + good[6:], "format"),
        (good + b"\0", "format"),
    ):
        assert codes(booted.judge(attest=forged, signature=signed(forged), key=der)) == [code]


def test_an_unrestricted_key_is_refused(booted):
    client = booted.lab.machine.client
    handle, public, _ = client.create_primary(SIGNING_KEY, TPM_RH.OWNER)
    client.flush(handle)
    assert codes(booted.judge(key=public)) == ["ak_attributes"]


def test_values_outside_the_attested_selection_are_refused(booted):
    values = {"sha256": {**booted.evidence.pcr_values["sha256"], 16: bytes(32)}}
    assert codes(booted.judge(pcr_file=pcr_file(values))) == ["pcr_selection"]
    values = {"sha256": dict(booted.evidence.pcr_values["sha256"])}
    values["sha256"][11] = bytes(32)
    assert codes(booted.judge(pcr_file=pcr_file(values))) == ["pcr_digest"]
    both = {**booted.evidence.pcr_values, "sha1": {0: bytes(20)}}
    assert codes(booted.judge(pcr_file=pcr_file(both))) == ["pcr_selection"]


def test_an_old_quote_another_key_and_another_signature_are_refused(booted):
    assert codes(booted.judge(nonce=b"another nonce")) == ["nonce"]
    signature = bytearray(booted.evidence.signature)
    signature[-1] ^= 1
    assert codes(booted.judge(signature=bytes(signature))) == ["signature"]
    attest = bytearray(booted.evidence.attest)
    attest[-1] ^= 1
    assert codes(booted.judge(attest=bytes(attest))) == ["signature"]
    assert codes(booted.judge(key=booted.evidence.ek_public)) == ["ak_attributes"]


def test_a_log_that_does_not_explain_a_value_is_refused_by_pcr_and_bank(booted):
    def without(position):
        log = EventLogWriter(ALL_BANKS)
        for number, event in enumerate(parse(booted.evidence.event_log).events):
            if number != position:
                log.append(event.pcr, event.type, event.digests, event.data)
        return log.to_bytes()

    events = parse(booted.evidence.event_log).events
    for position in (0, len(events) // 2, len(events) - 1):
        verdict = booted.judge(log=without(position))
        assert codes(verdict) == ["replay"]
        assert f"PCR {events[position].pcr} of the sha256 bank" in verdict.reasons[0].message


def test_a_log_without_the_quoted_bank_is_refused(booted):
    log = EventLogWriter((4,))
    for event in parse(booted.evidence.event_log).events:
        log.append(event.pcr, event.type, {4: event.digests[4]}, event.data)
    assert codes(booted.judge(log=log.to_bytes())) == ["log_banks"]
    assert codes(booted.judge(log=log.to_bytes(), pcr_file=None)) == ["log_banks"]


def test_data_that_were_not_measured_are_refused_though_the_log_replays():
    steps = boot_steps(secure_boot=False)
    old = find(steps, "SecureBoot".encode("utf-16-le"))
    lie = attrs.evolve(old, data=variable("SecureBoot", b"\x01"), over=old.data)
    verdict = Booted(replaced(steps, old, lie)).judge(require_secure_boot=True)
    assert "event_data" in codes(verdict)


def test_a_second_separator_and_a_failed_firmware_are_refused():
    assert codes(Booted([*boot_steps(), Step(4, EV.SEPARATOR, bytes(4))]).judge()) == ["separator"]
    steps = boot_steps()
    broken = [step for step in steps if step.type == EV.SEPARATOR and step.pcr == 2]
    again = replaced(steps, broken[0], Step(2, EV.SEPARATOR, b"\x00\x00\x00\x01"))
    assert codes(Booted(again).judge()) == ["separator"]


def test_every_quoted_bank_must_be_explained():
    two = Booted(banks=("sha256", "sha384"))
    assert two.judge().accepted
    values = {bank: dict(pcrs) for bank, pcrs in two.evidence.pcr_values.items()}
    assert set(two.judge().pcr_values) == set(values)


def test_a_quote_of_nothing_proves_nothing():
    lab = Lab()
    lab.machine.boot()
    evidence = lab.machine.evidence(pcrs=())
    files = Files(attest=evidence.attest, signature=evidence.signature, key=evidence.ak_public)
    assert codes(appraise_files(files)) == ["pcr_selection"]


# ------------------------------------------------------------ the files


def test_a_file_of_values_is_read_back(booted):
    values = {
        "sha1": {pcr: bytes([pcr]) * 20 for pcr in (0, 5, 23)},
        "sha256": {pcr: bytes([pcr]) * 32 for pcr in range(24)},
    }
    assert read_pcr_file(pcr_file(values)) == values


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\x11" + data[1:],
        lambda data: data[:4] + b"\x99\x00" + data[6:],
        lambda data: data[:6] + b"\x09" + data[7:],
        lambda data: data[:132] + b"\xff\xff\xff\xff" + data[136:],
        lambda data: data[:136] + b"\x09" + data[137:],
        lambda data: data[:140] + b"\x41" + data[141:],
        lambda data: data[:140] + b"\x1f" + data[141:],
        lambda data: data[:8] + b"\x01" + data[9:],
        lambda data: b"",
    ],
)
def test_a_broken_file_of_values_is_refused(spoil):
    data = pcr_file({"sha256": {pcr: bytes(32) for pcr in range(20)}})
    with pytest.raises(FormatError):
        read_pcr_file(spoil(data))


def test_each_kind_of_file_is_recognised(booted):
    files = booted.files()
    for name in ("attest", "signature", "key", "pcr_file", "log"):
        assert recognise(getattr(files, name)) == name
    with pytest.raises(FormatError, match="neither quote"):
        recognise(b"something else altogether")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_changed_byte_in_quote_signature_key_or_values_is_never_accepted(booted, data):
    files = booted.files()
    name = data.draw(st.sampled_from(["attest", "signature", "pcr_file", "log"]))
    content = bytearray(getattr(files, name))
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    verdict = appraise_files(attrs.evolve(files, **{name: bytes(content)}))
    if name in ("attest", "signature"):
        assert not verdict.accepted
    elif verdict.accepted:  # padding of the values, or a description in the log that no digest covers
        assert verdict.pcr_values == {"sha256": booted.evidence.pcr_values["sha256"]}


@settings(max_examples=300, deadline=None)
@given(
    parts=st.fixed_dictionaries(
        {name: st.binary(max_size=200) for name in ("attest", "signature", "key")},
        optional={name: st.binary(max_size=600) for name in ("nonce", "pcr_file", "log")},
    )
)
def test_noise_is_refused_and_never_raises(parts):
    assert not appraise_files(Files(**parts)).accepted


def test_a_log_without_an_event_that_extends_ends_in_a_reason(booted):
    agile = EventLogWriter((4,))
    agile.startup_locality(3)
    old = struct.pack("<II", 0, 3) + bytes(20) + struct.pack("<I", 17) + b"StartupLocality\0\3"
    for log in (agile.to_bytes(), old):
        assert codes(booted.judge(log=log)) == ["log_banks"]
        assert codes(booted.judge(log=log, pcr_file=None)) == ["log_banks"]
        verdict = booted.lab.appraise(attrs.evolve(booted.evidence, event_log=log))
        assert codes(verdict) == ["log_banks"]
