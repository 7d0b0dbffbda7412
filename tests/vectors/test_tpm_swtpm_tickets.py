"""A ticket with a wrong tag, hierarchy or size is refused as swtpm refuses it, for every kind of ticket."""

import pytest

from sim.tpm.client_sessions import password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_SE
from sim.tpm.templates import SIGNING_KEY
from sim.tpm.wire import TPMS_SCHEME_HASH, TPMT_SIG_SCHEME, TPMT_TK_CREATION
from sim.tpm.wire.session import TPMT_TK_AUTH, TPMT_TK_VERIFIED
from sim.tpm.wire.tickets import TPMT_TK_HASHCHECK

from .swtpm_scenario import NO_SECRETS, NULL, OWNER, compare

pytestmark = pytest.mark.client

TAGS = (0x0000, 0x00C3, 0x00C4, 0x00C5, *range(0x7FFE, 0x8040), 0xFFFF)
HIERARCHIES = (0x40000000, OWNER, NULL, 0x40000009, 0x4000000A, 0x4000000B, 0x4000000C, 0x4000000D)
ECDSA = TPMT_SIG_SCHEME(scheme=TPM_ALG.ECDSA.value, details=TPMS_SCHEME_HASH(hashAlg=TPM_ALG.SHA256.value))


def wrong_tickets(play):
    key = play.call(
        "key", TPM_CC.CreatePrimary, (OWNER,), NO_SECRETS, SIGNING_KEY, b"", (), auths=[password()]
    )[0]
    policy = play.start("policy", TPM_SE.POLICY).handle
    name = b"\0\x0b" + bytes(32)
    uses = (
        (TPM_CC.CertifyCreation, (key, key), (b"", bytes(32), ECDSA), TPMT_TK_CREATION, True),
        (TPM_CC.Sign, (key,), (bytes(32), ECDSA), TPMT_TK_HASHCHECK, True),
        (TPM_CC.PolicyTicket, (policy,), (bytes(8), b"", b"", b""), TPMT_TK_AUTH, False),
        (TPM_CC.PolicyAuthorize, (policy,), (bytes(32), b"", name), TPMT_TK_VERIFIED, False),
    )
    for code, handles, parameters, kind, authorised in uses:
        given = [(tag, NULL, b"") for tag in TAGS]
        given += [(0x8021 + step, each, b"d") for step in range(5) for each in HIERARCHIES]
        for tag, hierarchy, digest in given:
            ticket = kind(tag=tag, hierarchy=hierarchy, digest=digest)
            auths = [password()] if authorised else []
            play.call(f"{tag:x} {hierarchy:x}", code, handles, *parameters, ticket, auths=auths)


SCENARIOS = {"tickets-wrong": wrong_tickets}


@pytest.mark.parametrize("name", SCENARIOS)
def test_wrong_tickets_are_refused_as_by_swtpm(program, tmp_path, name):
    differing, steps = compare(program, tmp_path, SCENARIOS[name], name)

    assert differing == []
    assert steps > 400
