"""tpm2-pytss, another stack's Python bindings, drives the TPM through both protocols."""

import pytest

from sim.core.rng import Rng
from sim.tpm.device import Tpm
from sim.tpm.server.listener import TpmServer
from sim.tpm.server.platform import Platform

pytestmark = pytest.mark.client


@pytest.fixture(params=["swtpm", "mssim"])
def esapi(request, package):
    """An ESAPI context on a new TPM, and the bindings' module."""
    tpm2_pytss = package("tpm2_pytss")
    server = TpmServer(Platform(Tpm(Rng(3).stream("tpm"))))
    server.start()
    loader = tpm2_pytss.TCTILdr(request.param, f"host=127.0.0.1,port={server.port}")
    context = tpm2_pytss.ESAPI(loader)
    context.startup(tpm2_pytss.TPM2_SU.CLEAR)
    yield context, tpm2_pytss
    context.close()
    loader.close()
    server.stop()


def primary(context, pytss, kind="ecc256"):
    template = pytss.TPM2B_PUBLIC.parse(
        alg=kind,
        objectAttributes=pytss.TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATEPRIMARY_ATTRS,
    )
    handle, public, *_ = context.create_primary(None, template)
    return handle, public


def test_random_numbers_and_pcrs(esapi):
    context, pytss = esapi
    assert len(context.get_random(16).buffer) == 16
    digest = pytss.TPMT_HA(hashAlg=pytss.TPM2_ALG.SHA256, digest=pytss.TPMU_HA(sha256=b"x" * 32))
    context.pcr_extend(pytss.ESYS_TR.PCR7, pytss.TPML_DIGEST_VALUES([digest]))
    _, _, digests = context.pcr_read("sha256:7")
    assert bytes(digests[0]) != bytes(32)


def test_a_key_signs_and_the_signature_is_verified_outside(esapi):
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    context, pytss = esapi
    parent, _ = primary(context, pytss)
    template = pytss.TPM2B_PUBLIC.parse(
        alg="ecc256:ecdsa-sha256",
        objectAttributes=pytss.TPMA_OBJECT.USERWITHAUTH
        | pytss.TPMA_OBJECT.SIGN_ENCRYPT
        | pytss.TPMA_OBJECT.FIXEDTPM
        | pytss.TPMA_OBJECT.FIXEDPARENT
        | pytss.TPMA_OBJECT.SENSITIVEDATAORIGIN,
    )
    private, public, *_ = context.create(parent, pytss.TPM2B_SENSITIVE_CREATE(), template)
    key = context.load(parent, private, public)
    digest, ticket = context.hash(b"message", pytss.TPM2_ALG.SHA256, pytss.ESYS_TR.OWNER)
    signature = context.sign(key, digest, pytss.TPMT_SIG_SCHEME(scheme=pytss.TPM2_ALG.NULL), ticket)
    outside = serialization.load_pem_public_key(public.to_pem())
    outside.verify(bytes(signature), b"message", ec.ECDSA(hashes.SHA256()))


def test_an_encrypted_salted_session_unseals(esapi):
    context, pytss = esapi
    parent, _ = primary(context, pytss)
    session = context.start_auth_session(
        tpm_key=parent,
        bind=pytss.ESYS_TR.NONE,
        session_type=pytss.TPM2_SE.HMAC,
        symmetric=pytss.TPMT_SYM_DEF(
            algorithm=pytss.TPM2_ALG.AES,
            keyBits=pytss.TPMU_SYM_KEY_BITS(sym=128),
            mode=pytss.TPMU_SYM_MODE(sym=pytss.TPM2_ALG.CFB),
        ),
        auth_hash=pytss.TPM2_ALG.SHA256,
    )
    attributes = pytss.TPMA_SESSION.CONTINUESESSION | pytss.TPMA_SESSION.ENCRYPT | pytss.TPMA_SESSION.DECRYPT
    context.trsess_set_attributes(session, attributes)
    template = pytss.TPM2B_PUBLIC.parse(
        alg="keyedhash", objectAttributes=pytss.TPMA_OBJECT.USERWITHAUTH | pytss.TPMA_OBJECT.NODA
    )
    secret = pytss.TPM2B_SENSITIVE_CREATE(pytss.TPMS_SENSITIVE_CREATE(userAuth=b"pin", data=b"a secret"))
    private, public, *_ = context.create(parent, secret, template, session1=session)
    sealed = context.load(parent, private, public)
    context.tr_set_auth(sealed, b"pin")
    assert bytes(context.unseal(sealed, session1=session)) == b"a secret"


def test_a_wrong_authorisation_is_told_with_its_code(esapi):
    context, pytss = esapi
    context.hierarchy_change_auth(pytss.ESYS_TR.OWNER, b"right")
    context.tr_set_auth(pytss.ESYS_TR.OWNER, b"wrong")
    with pytest.raises(pytss.TSS2_Exception) as refused:
        primary(context, pytss)
    assert refused.value.rc == 0x9A2


def test_a_quote_carries_the_nonce(esapi):
    context, pytss = esapi
    template = pytss.TPM2B_PUBLIC.parse(
        alg="ecc256:ecdsa-sha256:null",
        objectAttributes=pytss.TPMA_OBJECT.DEFAULT_TPM2_TOOLS_CREATE_ATTRS & ~pytss.TPMA_OBJECT.DECRYPT
        | pytss.TPMA_OBJECT.RESTRICTED,
    )
    key, *_ = context.create_primary(None, template)
    quoted, _ = context.quote(key, "sha256:0,7", qualifying_data=b"nonce")
    attest, _ = pytss.TPMS_ATTEST.unmarshal(bytes(quoted))
    assert bytes(attest.extraData) == b"nonce"
