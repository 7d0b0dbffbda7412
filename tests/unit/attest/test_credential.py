"""Credentials made in software: a TPM with both keys opens them, and nobody else does."""

import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.attest.credential import make_challenge
from sim.attest.keys import name_of, public_key, read_public
from sim.attest.verdict import AttestationError
from sim.core.rng import Rng
from sim.errors import FormatError
from sim.kernel.quoting import HOST_ATTESTATION_KEY
from sim.tpm.client import TpmError
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_ECC, TPM_RC
from sim.tpm.manufacture import TpmVendor
from sim.tpm.templates import ATTESTATION_KEY, EK_ECC, EK_RSA
from sim.tpm.wire import TPM2B_PUBLIC, TPMS_ECC_POINT, TPMT_SYM_DEF_OBJECT

from .lab import Machine, activate


def large(template, curve, name_alg, bits):
    """An endorsement template with another curve, name algorithm and cipher key."""
    symmetric = TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.AES.value, keyBits=bits, mode=TPM_ALG.CFB.value)
    return attrs.evolve(
        template,
        nameAlg=name_alg.value,
        objectAttributes=template.objectAttributes | 0x40,  # its policy is for SHA-256; a password will do
        authPolicy=b"",
        parameters=attrs.evolve(template.parameters, curveID=curve.value, symmetric=symmetric),
        unique=TPMS_ECC_POINT(x=b"", y=b""),
    )


@pytest.fixture(scope="module")
def machine():
    machine = Machine(TpmVendor(Rng(1)))
    machine.power_on()
    return machine


@pytest.fixture
def loaded(machine):
    """Both keys of the machine in its TPM: {"ek": handle, "ak": handle} and their public areas."""
    ek, ek_public, _ = machine.client.create_primary(EK_ECC)
    ak, ak_public, _ = machine.client.create_primary(HOST_ATTESTATION_KEY)
    yield ek, ek_public, ak, ak_public
    machine.client.flush(ek)
    machine.client.flush(ak)


def challenge_for(ek_public, ak_public, label="challenge"):
    return make_challenge(ek_public, ak_public, Rng(5).stream(label))


def refused(machine, ak, ek, challenge):
    with pytest.raises(TpmError) as caught:
        activate(machine.tpm, ak, ek, challenge)
    assert caught.value.command == TPM_CC.ActivateCredential.name
    return caught.value.rc & 0xFFF


@pytest.mark.parametrize("template", [EK_ECC, EK_RSA], ids=["ecc", "rsa"])
def test_the_tpm_with_both_keys_opens_the_credential(machine, template):
    ek, ek_public, _ = machine.client.create_primary(template)
    ak, ak_public, name = machine.client.create_primary(HOST_ATTESTATION_KEY)
    challenge = challenge_for(ek_public, ak_public)
    assert challenge.ak_name == name_of(ak_public) == name
    assert activate(machine.tpm, ak, ek, challenge) == challenge.secret
    machine.client.flush(ek)
    machine.client.flush(ak)


@pytest.mark.parametrize("shape", [
    (TPM_ECC.NIST_P256, TPM_ALG.SHA256, 256), (TPM_ECC.NIST_P384, TPM_ALG.SHA384, 256),
    (TPM_ECC.NIST_P384, TPM_ALG.SHA512, 128),
])  # fmt: skip
def test_endorsement_keys_of_other_strengths_serve_too(machine, shape):
    ek, ek_public, _ = machine.client.create_primary(large(EK_ECC, *shape))
    ak, ak_public, _ = machine.client.create_primary(HOST_ATTESTATION_KEY)
    challenge = challenge_for(ek_public, ak_public)
    opened = machine.client._call(
        TPM_CC.ActivateCredential, (ak, ek), challenge.credential_blob, challenge.encrypted_secret
    )
    assert opened == (challenge.secret,)
    machine.client.flush(ek)
    machine.client.flush(ak)


def test_a_credential_for_another_name_stays_closed(machine, loaded):
    ek, ek_public, ak, ak_public = loaded
    other = TPM2B_PUBLIC.encode(attrs.evolve(read_public(ak_public), authPolicy=bytes(32)))
    assert refused(machine, ak, ek, challenge_for(ek_public, other)) == TPM_RC.INTEGRITY | 0x1C0


def test_a_credential_for_the_keys_of_two_tpms_opens_in_neither(machine, loaded):
    ek, ek_public, ak, ak_public = loaded
    other = Machine(machine.vendor, "T2")
    other.power_on()
    other_ek, other_ek_public, _ = other.client.create_primary(EK_ECC)
    other_ak, other_ak_public, _ = other.client.create_primary(HOST_ATTESTATION_KEY)
    for challenge in (challenge_for(ek_public, other_ak_public), challenge_for(other_ek_public, ak_public)):
        assert refused(machine, ak, ek, challenge) == TPM_RC.INTEGRITY | 0x1C0
        assert refused(other, other_ak, other_ek, challenge) == TPM_RC.INTEGRITY | 0x1C0


@pytest.mark.parametrize("part", ["credential_blob", "encrypted_secret"])
def test_no_flipped_bit_of_a_credential_opens(machine, loaded, part):
    ek, ek_public, ak, ak_public = loaded
    challenge = challenge_for(ek_public, ak_public)
    data = getattr(challenge, part)
    for bit in range(0, 8 * len(data), 5):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        assert refused(machine, ak, ek, attrs.evolve(challenge, **{part: bytes(changed)}))


def test_every_challenge_has_another_secret_and_one_seed_gives_one_challenge(loaded):
    _, ek_public, _, ak_public = loaded
    stream = Rng(5).stream("several")
    first, second = (make_challenge(ek_public, ak_public, stream) for _ in range(2))
    assert first.secret != second.secret
    assert first.credential_blob != second.credential_blob
    assert first.encrypted_secret != second.encrypted_secret
    assert first == challenge_for(ek_public, ak_public, "several") == pickle.loads(pickle.dumps(first))


def test_a_secret_does_not_show_in_what_is_printed(loaded):
    _, ek_public, _, ak_public = loaded
    challenge = challenge_for(ek_public, ak_public)
    assert challenge.secret.hex() not in repr(challenge)
    assert repr(challenge.secret)[2:-1] not in repr(challenge)


def rsa_ek(**changes):
    return attrs.evolve(EK_RSA, unique=(2**2047 + 5).to_bytes(256, "big"), **changes)


@pytest.mark.parametrize("ek", [
    ATTESTATION_KEY, EK_ECC, EK_RSA, attrs.evolve(EK_ECC, nameAlg=TPM_ALG.SHA1.value),
    attrs.evolve(EK_ECC, unique=TPMS_ECC_POINT(x=b"\1" * 32, y=b"\1" * 32)),
    rsa_ek(parameters=attrs.evolve(EK_RSA.parameters, exponent=3)),
    attrs.evolve(EK_RSA, unique=b"\xff" * 100),
])  # fmt: skip
def test_a_key_for_which_no_credential_can_be_made_is_refused(ek):
    with pytest.raises(AttestationError) as caught:
        make_challenge(TPM2B_PUBLIC.encode(ek), TPM2B_PUBLIC.encode(ATTESTATION_KEY), Rng(1).stream("x"))
    assert caught.value.check == "ek_public"


def test_a_key_that_is_neither_rsa_nor_ecc_is_none(machine):
    ek, area, _ = machine.client.create_primary(EK_ECC)
    machine.client.flush(ek)
    public = read_public(area)
    assert public_key(public, "ek_public").curve.name == "secp256r1"
    with pytest.raises(AttestationError):
        public_key(attrs.evolve(public, unique=b""), "ek_public")


@given(st.binary(max_size=400), st.binary(max_size=100))
def test_hostile_public_areas_end_in_a_refusal(ek_public, ak_public):
    with pytest.raises((FormatError, AttestationError)):
        make_challenge(ek_public, ak_public, Rng(1).stream("x"))


@given(data=st.data())
def test_changed_public_areas_are_refused_or_get_a_credential(data):
    good = TPM2B_PUBLIC.encode(rsa_ek())
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        challenge = make_challenge(bytes(changed), TPM2B_PUBLIC.encode(ATTESTATION_KEY), Rng(1).stream("x"))
    except (FormatError, AttestationError):
        return
    assert len(challenge.encrypted_secret) == 256
