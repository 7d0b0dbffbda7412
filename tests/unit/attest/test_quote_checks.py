"""Each check of keys, quote and credential alone: its bounds, and the name, words and evidence of its refusal."""

import hashlib

import attrs
import pytest

from sim.attest import keys, quote
from sim.attest.credential import Challenge, check_activation, make_credential
from sim.attest.verdict import ClockState
from sim.core.rng import Rng
from sim.tpm.constants import TPM_ALG, TPM_GENERATED_VALUE, TPM_ST
from sim.tpm.templates import ATTESTATION_KEY, EK_ECC
from sim.tpm.wire import TPMS_ATTEST, TPMS_PCR_SELECTION, TPMS_QUOTE_INFO
from sim.tpm.wire.attest import TPMS_CLOCK_INFO

from .alone import ONE, SHA1, SHA256, evidence, refused


def test_wrong_attributes_of_a_key_are_named_with_the_word_they_stand_in():
    swapped = attrs.evolve(EK_ECC, objectAttributes=ATTESTATION_KEY.objectAttributes)
    keys.check_ak_attributes(ATTESTATION_KEY)
    keys.check_ek_attributes(EK_ECC)
    assert refused(keys.check_ek_attributes, swapped) == (
        "ek_attributes",
        "the endorsement key is not a restricted decryption key of this TPM (wrong: decrypt, sign)",
        None,
        f"objectAttributes 0x{ATTESTATION_KEY.objectAttributes:08x}",
    )
    assert refused(keys.check_ak_attributes, EK_ECC)[:2] == (
        "ak_attributes",
        "the attestation key is not a restricted signing key of this TPM (wrong: decrypt, sign)",
    )


def test_schemes_and_names_other_than_sha_256_are_refused():
    keys.check_ak_scheme(ATTESTATION_KEY)
    words = "the attestation key does not sign with ECDSA or RSASSA over SHA-256"
    assert refused(keys.check_ak_scheme, EK_ECC)[:2] == ("ak_scheme", words)
    strange = attrs.evolve(ATTESTATION_KEY, type=TPM_ALG.KEYEDHASH.value)
    assert refused(keys.check_ak_scheme, strange)[:2] == ("ak_scheme", words)
    longer = attrs.evolve(ATTESTATION_KEY, nameAlg=TPM_ALG.SHA384.value)
    assert refused(keys.check_ak_scheme, longer)[:2] == (
        "ak_scheme", "the attestation key's name is not a SHA-256 name",
    )  # fmt: skip
    check, words, *_ = refused(keys.public_key, attrs.evolve(EK_ECC, unique=b""), "ek_public")
    assert (check, words) == ("ek_public", "the public area holds no usable key: neither RSA nor ECC")


SELECTION = (TPMS_PCR_SELECTION.of(SHA256, [0, 7]), TPMS_PCR_SELECTION.of(SHA1, [3]))
VALUES = {"sha256": {7: ONE, 0: bytes(32)}, "sha1": {3: b"\x03" * 20}}


def quoted(digest=b"", selection=SELECTION):
    return TPMS_QUOTE_INFO(pcrSelect=selection, pcrDigest=digest)


def attest(info=None, **changes):
    clock = TPMS_CLOCK_INFO(clock=10_000_000, resetCount=5, restartCount=2, safe=1)
    plain = TPMS_ATTEST(
        magic=TPM_GENERATED_VALUE,
        type=TPM_ST.ATTEST_QUOTE.value,
        qualifiedSigner=b"signer",
        extraData=b"n" * 16,
        clockInfo=clock,
        firmwareVersion=0,
        attested=info or quoted(),
    )
    return attrs.evolve(plain, **changes)


def test_a_structure_that_is_no_quote_of_a_tpm_is_refused_with_what_it_is():
    assert quote.check_magic_and_type(attest()) == quoted()
    assert refused(quote.check_magic_and_type, attest(magic=0x12)) == (
        "magic", "the quote was not made by a TPM", None, "magic 0x00000012",
    )  # fmt: skip
    words = "what the TPM signed is not a quote"
    assert refused(quote.check_magic_and_type, attest(type=0x8017)) == (
        "attest_type", words, None, "type 0x8017",
    )  # fmt: skip
    assert refused(quote.check_magic_and_type, attest(attested=object()))[1] == words


def test_a_nonce_is_fresh_from_sixteen_bytes_on_and_the_one_that_was_asked():
    quote.check_nonce(attest(), b"n" * 16)
    assert refused(quote.check_nonce, attest(extraData=b"n" * 15), b"n" * 15) == (
        "nonce", "a nonce of 15 bytes is too short to be fresh", None, "",
    )  # fmt: skip
    quote.check_nonce(attest(extraData=b"n"), b"n", bytes_min=1)
    assert refused(quote.check_nonce, attest(), b"m" * 16) == (
        "nonce", "the quote does not answer this nonce", None, f"extraData {'6e' * 16}",
    )  # fmt: skip
    assert refused(quote.check_qualified_signer, attest(), b"") == (
        "qualified_signer", "the quote names another key than the one offered", None,
        f"qualifiedSigner {b'signer'.hex()}",
    )  # fmt: skip


NOW = ClockState(clock=10_000_000, reset_count=5, restart_count=2, safe=True)
LAG = 1 << 22


def clocked(**changes):
    return attest(clockInfo=attrs.evolve(attest().clockInfo, **changes))


def test_a_clock_that_went_on_is_returned():
    assert quote.check_clock(attest(), None) == NOW
    assert quote.check_clock(clocked(safe=0), None).safe is False
    for last in (NOW, attrs.evolve(NOW, restart_count=1), attrs.evolve(NOW, reset_count=4, restart_count=9)):
        assert quote.check_clock(attest(), last) == NOW
    assert quote.check_clock(attest(), NOW, rebooted=False) == NOW
    assert quote.check_clock(attest(), attrs.evolve(NOW, restart_count=1), rebooted=True) == NOW


@pytest.mark.parametrize(
    ("changes", "rebooted", "name", "words"),
    [
        ({"reset_count": 6}, None, "clock", "the TPM's reset counters went back"),
        ({"restart_count": 3}, None, "clock", "the TPM's reset counters went back"),
        ({"clock": 10_000_001}, None, "clock", "the TPM's clock went back"),
        ({"reset_count": 4}, False, "tpm_reset", "the TPM was reset while its host was not"),
        (
            {"restart_count": 1},
            False,
            "tpm_restart",
            "the TPM was restarted 1 times while its host resumed 0 times",
        ),
        ({}, True, "tpm_reset", "the host was rebooted and its TPM was not reset"),
    ],
)
def test_a_clock_that_cannot_be_is_refused_with_both_states(changes, rebooted, name, words):
    last = attrs.evolve(NOW, **changes)
    assert refused(quote.check_clock, attest(), last, rebooted=rebooted) == (
        name, words, None, f"last {last}, now {NOW}",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("restarts", "resumes", "good"), [(1, 1, True), (2, 1, True), (2, 2, True), (0, 1, False), (1, 2, False)]
)
def test_a_resume_restarts_once_or_with_a_launch_twice(restarts, resumes, good):
    last = attrs.evolve(NOW, restart_count=2 - restarts)
    if good:
        assert quote.check_clock(attest(), last, rebooted=False, resumes=resumes) == NOW
    else:
        assert refused(quote.check_clock, attest(), last, rebooted=False, resumes=resumes)[:2] == (
            "tpm_restart", f"the TPM was restarted {restarts} times while its host resumed {resumes} times",
        )  # fmt: skip


def test_a_clock_may_fall_back_a_little_only_after_a_reset_that_was_not_orderly():
    before = attrs.evolve(NOW, reset_count=4, clock=NOW.clock + LAG)
    assert quote.check_clock(clocked(safe=0), before).clock == NOW.clock
    later = attrs.evolve(before, clock=before.clock + 1)
    for asked, last in (
        (clocked(safe=0), later),
        (attest(), before),
        (clocked(safe=0), attrs.evolve(before, reset_count=5)),
    ):
        assert refused(quote.check_clock, asked, last)[1] == "the TPM's clock went back"


def test_values_are_those_of_the_selection_and_their_digest_that_of_the_quote():
    quote.check_pcr_selection(quoted(), VALUES, ("sha256", "sha1"), ())
    quote.check_pcr_selection(quoted(), {**VALUES, "sha384": {}}, ("sha256",), (0, 7))
    assert refused(quote.check_pcr_selection, quoted(), VALUES, ("sha256",), (9, 7, 8))[:2] == (
        "pcr_coverage", "the quote does not cover PCR 8, 9 of the sha256 bank",
    )  # fmt: skip
    assert refused(quote.check_pcr_selection, quoted(), VALUES, ("sha512",), (0,))[1] == (
        "the quote does not cover PCR 0 of the sha512 bank"
    )
    assert refused(quote.check_pcr_selection, quoted(), {"sha256": VALUES["sha256"]}, (), ())[:2] == (
        "pcr_selection", "the PCR values offered are not those that the quote covers",
    )  # fmt: skip
    twice = quoted(selection=(SELECTION[0], SELECTION[0]))
    assert refused(quote.check_pcr_selection, twice, VALUES, (), ())[:2] == (
        "pcr_selection", "the quote selects the bank sha256 twice",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["sha256", "sha384"])
def test_the_digest_is_over_the_values_in_the_order_of_the_quote(name):
    digest = hashlib.new(name, bytes(32) + ONE + b"\x03" * 20).digest()
    quote.check_pcr_digest(quoted(digest), VALUES, name)
    for wrong in ({**VALUES, "sha1": {3: bytes(20)}}, {"sha256": VALUES["sha256"]}, {}):
        assert refused(quote.check_pcr_digest, quoted(digest), wrong, name) == (
            "pcr_digest", "the PCR values offered are not the quoted ones", None, f"pcrDigest {digest.hex()}",
        )  # fmt: skip


CHALLENGE = Challenge(
    ek_public=b"ek_public",
    ak_name=keys.name_of(b"ak_public"),
    credential_blob=b"credential_blob",
    encrypted_secret=b"encrypted_secret",
    secret=b"activated_secret",
)


@pytest.mark.parametrize(
    ("field", "name", "words"),
    [
        ("ek_public", "credential_keys", "the credential was made for other keys than those of the evidence"),
        ("ak_public", "credential_keys", "the credential was made for other keys than those of the evidence"),
        ("credential_blob", "credential", "the evidence answers another credential than the one made"),
        ("encrypted_secret", "credential", "the evidence answers another credential than the one made"),
        ("activated_secret", "credential",
         "the host's TPM has not opened the credential for its attestation key"),
    ],
)  # fmt: skip
def test_each_part_of_an_answered_challenge_must_be_its_own(field, name, words):
    check_activation(evidence(), CHALLENGE)
    assert refused(check_activation, evidence(**{field: b"another"}), CHALLENGE)[:2] == (name, words)


@pytest.mark.parametrize("changes", [
    {"algorithm": TPM_ALG.XOR.value}, {"algorithm": TPM_ALG.NULL.value}, {"mode": TPM_ALG.CBC.value}, {"mode": None},
    {"keyBits": 64}, {"keyBits": None}, {"keyBits": 512},
])  # fmt: skip
def test_a_credential_is_protected_with_aes_in_cfb_mode_alone(changes):
    parameters = EK_ECC.parameters
    weak = attrs.evolve(parameters, symmetric=attrs.evolve(parameters.symmetric, **changes))
    for key in (attrs.evolve(EK_ECC, parameters=weak), attrs.evolve(EK_ECC, nameAlg=SHA1)):
        assert refused(make_credential, key, b"name", b"secret", Rng(1).stream("x"))[:2] == (
            "ek_public", "the endorsement key does not protect with AES-CFB and SHA-2",
        )  # fmt: skip
