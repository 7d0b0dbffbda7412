"""Checks of a quote that a P-256 key in a TPM of this project cannot show: RSA keys, odd schemes, odd selections."""

import hashlib

import attrs
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from sim.attest import event_log, keys, launch, quote
from sim.attest.verdict import AttestationError
from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.tpm.constants import TPM_ALG, TPM_RH
from sim.tpm.eventlog import EV, EventLogWriter, parse
from sim.tpm.tagged import EsxTag
from sim.tpm.templates import ATTESTATION_KEY
from sim.tpm.wire import (
    TPM2B_PUBLIC,
    TPMS_ATTEST,
    TPMS_PCR_SELECTION,
    TPMS_SCHEME_HASH,
    TPMS_SIGNATURE_RSA,
    TPMT_PUBLIC,
    TPMT_SIGNATURE,
    TPMT_SYM_DEF_OBJECT,
)
from sim.tpm.wire.public import TPMS_RSA_PARMS, TPMT_RSA_SCHEME

from .lab import (
    ALL_BANKS,
    NONCE,
    QUOTED,
    SHA256,
    Lab,
    Step,
    answered,
    boot_steps,
    codes,
    launch_steps,
    tagged,
)


@pytest.fixture(scope="module")
def rsa_key():
    """An RSA key, as another make of TPM would use it."""
    return rsa_private_key(Rng(1).stream("ak"))


def rsa_public(key, scheme=TPM_ALG.RSASSA, hash_alg=SHA256, exponent=0):
    modulus = key.public_key().public_numbers().n
    return attrs.evolve(
        ATTESTATION_KEY,
        type=TPM_ALG.RSA.value,
        parameters=TPMS_RSA_PARMS(
            symmetric=TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.NULL.value, keyBits=None, mode=None),
            scheme=TPMT_RSA_SCHEME(scheme=scheme.value, details=TPMS_SCHEME_HASH(hashAlg=hash_alg)),
            keyBits=2048,
            exponent=exponent,
        ),
        unique=modulus.to_bytes(256, "big"),
    )


def rsa_evidence(lab, key, public):
    """Evidence of the lab's machine, quoted by an RSA key that stands for another make of TPM."""
    area = TPM2B_PUBLIC.encode(public)
    name = b"\x00\x0b" + hashlib.sha256(area[2:]).digest()
    qualified = b"\x00\x0b" + hashlib.sha256(TPM_RH.ENDORSEMENT.to_bytes(4, "big") + name).digest()
    evidence = lab.machine.evidence()
    attest = attrs.evolve(TPMS_ATTEST.decode(evidence.attest), qualifiedSigner=qualified).encode()
    signed = key.sign(attest, padding.PKCS1v15(), hashes.SHA256())
    signature = TPMT_SIGNATURE(
        sigAlg=TPM_ALG.RSASSA.value, signature=TPMS_SIGNATURE_RSA(hash=SHA256, sig=signed)
    ).encode()
    return answered(evidence, area, attest=attest, signature=signature)


@pytest.fixture
def lab():
    lab = Lab()
    lab.machine.boot()
    return lab


def test_an_rsa_attestation_key_is_as_good(lab, rsa_key):
    for exponent in (0, 65537):
        assert lab.appraise(rsa_evidence(lab, rsa_key, rsa_public(rsa_key, exponent=exponent))).accepted


def test_an_rsa_key_with_another_scheme_hash_or_exponent_is_refused(lab, rsa_key):
    key = rsa_key
    for public, code in (
        (rsa_public(key, scheme=TPM_ALG.RSAPSS), "ak_scheme"),
        (rsa_public(key, hash_alg=TPM_ALG.SHA1.value), "ak_scheme"),
        (rsa_public(key, exponent=3), "ak_public"),
        (attrs.evolve(rsa_public(key), unique=bytes(256)), "ak_public"),
        (attrs.evolve(rsa_public(key), nameAlg=TPM_ALG.SHA384.value), "ak_scheme"),
    ):
        assert codes(lab.appraise(rsa_evidence(lab, key, public))) == [code]


def test_key_kinds_do_not_mix(lab, rsa_key):
    evidence, rsa = lab.machine.evidence(), rsa_evidence(lab, rsa_key, rsa_public(rsa_key))
    for one, other in ((evidence, rsa), (rsa, evidence)):
        assert not lab.appraise(attrs.evolve(one, signature=other.signature)).accepted
        assert not lab.appraise(answered(one, other.ak_public)).accepted
    assert codes(lab.appraise(attrs.evolve(evidence, signature=rsa.signature))) == ["signature"]


def test_an_ecc_scheme_or_name_over_another_hash_is_refused(lab):
    public = keys.read_public(lab.machine.evidence().ak_public)
    scheme = attrs.evolve(public.parameters.scheme, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA1.value))
    weak = attrs.evolve(public, parameters=attrs.evolve(public.parameters, scheme=scheme))
    for wrong in (weak, attrs.evolve(public, nameAlg=TPM_ALG.SHA1.value)):
        with pytest.raises(AttestationError) as caught:
            keys.check_ak_scheme(wrong)
        assert caught.value.check == "ak_scheme"


def test_a_public_area_with_bytes_behind_it_is_refused(lab):
    area = lab.machine.evidence().ak_public
    assert isinstance(keys.read_public(area), TPMT_PUBLIC)
    with pytest.raises(FormatError):
        keys.read_public(area + b"\0")


def test_a_bank_selected_twice_is_refused(lab):
    info = TPMS_ATTEST.decode(lab.machine.evidence().attest).attested
    twice = attrs.evolve(info, pcrSelect=(*info.pcrSelect, TPMS_PCR_SELECTION.of(SHA256, [0])))
    with pytest.raises(AttestationError) as caught:
        quote.check_pcr_selection(twice, {"sha256": {}}, ("sha256",), ())
    assert caught.value.check == "pcr_selection"


def test_values_offered_in_another_order_are_the_same_values(lab):
    evidence = lab.machine.evidence()
    backwards = dict(reversed(evidence.pcr_values["sha256"].items()))
    assert lab.appraise(attrs.evolve(evidence, pcr_values={"sha256": backwards})).accepted


def test_events_in_a_pcr_that_is_not_quoted_prove_nothing_and_are_refused(lab):
    """A policy may ask for fewer PCRs; what the log says beyond the quote is then unproven, good or bad."""
    evidence = lab.machine.evidence(pcrs=range(8))
    verdict = lab.appraise(evidence, required_pcrs=tuple(range(8)))
    assert set(codes(verdict)) == {"event_uncovered"}
    assert "PCR 13" in verdict.message


def test_values_of_an_impossible_shape_are_refused_before_anything_else(lab):
    evidence = lab.machine.evidence()
    for values in (
        {"md5": {0: bytes(16)}},
        {"sha256": {0: bytes(31)}},
        {"sha256": {-1: bytes(32)}},
        {"sha256": {24: bytes(32)}},
    ):
        assert codes(lab.appraise(attrs.evolve(evidence, pcr_values=values, ek_certificate_der=b""))) == [
            "format"
        ]


def test_a_log_of_nothing_but_its_header_is_refused():
    with pytest.raises(AttestationError) as caught:
        event_log.read_event_log(EventLogWriter(ALL_BANKS).to_bytes())
    assert caught.value.check == "event_log"


def test_an_h_crtm_event_alone_tells_that_pcr_0_began_at_4():
    writer = EventLogWriter(ALL_BANKS)
    writer.measure(0, EV.EFI_HCRTM_EVENT, b"HCRTM", b"crtm")
    assert event_log.startup_locality(parse(writer.to_bytes())) == 4


def events_of(steps):
    writer = EventLogWriter(ALL_BANKS)
    for step in steps:
        writer.measure(step.pcr, step.type, step.data, step.over)
    return parse(writer.to_bytes()).events


@pytest.mark.parametrize("steps", [
    launch_steps(),
    [*launch_steps(), Step(17, 0x402, bytes(4), b"SINIT")],
    [Step(17, 0x402, bytes(4), b"SINIT"), Step(18, 0x402, bytes(4), b"SINIT"), *launch_steps()],
    [Step(17, 0x402, bytes(4), b"SINIT"), *launch_steps(), *launch_steps()],
    [],
])  # fmt: skip
def test_a_launch_begins_with_its_one_hash_sequence_and_repeats_nothing(steps):
    launch.check_launch_events(events_of([Step(17, 0x402, bytes(4), b"SINIT"), *launch_steps()]))
    with pytest.raises(AttestationError) as caught:
        launch.check_launch_events(events_of(steps))
    assert caught.value.check == "launch_events"


def test_two_asset_tags_are_one_too_many(lab):
    tags = [tagged(14, EsxTag.TAG, text) for text in (b"rack 7", b"rack 8")]
    lab.machine.boot([*boot_steps(), *tags])
    assert codes(lab.appraise(lab.machine.evidence(), asset_tags=None)) == ["asset_tag"]


def test_the_key_of_the_public_area_is_what_verifies(lab):
    evidence = lab.machine.evidence(nonce=NONCE, pcrs=QUOTED)
    key = keys.public_key(keys.read_public(evidence.ak_public), "ak_public")
    signature = quote.read_signature(evidence.signature)
    quote.check_signature(key, evidence.attest, signature)
    with pytest.raises(AttestationError):
        quote.check_signature(key, evidence.attest + b"\0", signature)
