"""Keys from outside for the tests of commands that use keys, and a caller that loads and uses them."""

import pytest
from attrs import evolve

from sim.tpm.client import TpmError
from sim.tpm.client_sessions import SessionClient, password
from sim.tpm.constants import TPM_ALG, TPM_CC, TPM_RH, TPM_ST, TPMA_OBJECT
from sim.tpm.crypto import ecc, rsa
from sim.tpm.hashing import hash_bytes
from sim.tpm.tables import COMMANDS
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_ECDAA,
    TPMS_SCHEME_HASH,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_RSA_SCHEME,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF_OBJECT,
)
from sim.tpm.wire.private import TPMT_SENSITIVE
from sim.tpm.wire.tickets import TPMT_TK_HASHCHECK

NULL = TPM_ALG.NULL.value
SIGN, DECRYPT = int(TPMA_OBJECT.sign), int(TPMA_OBJECT.decrypt)
OPEN = int(TPMA_OBJECT.userWithAuth | TPMA_OBJECT.noDA)
SECRET, SEED = b"k" * 32, b"s" * 32
P256 = ecc.CURVES[3]
SCALAR = 0x1234567890ABCDEF << 128 | 0xFEDCBA
POINT = ecc.public_point(P256, SCALAR)
RSA_P, RSA_Q = rsa.generate_primes(b"a key of the tests", 1024)
RSA_N = RSA_P * RSA_Q
NO_SYMMETRIC = TPMT_SYM_DEF_OBJECT(algorithm=NULL, keyBits=None, mode=None)
NO_TICKET = TPMT_TK_HASHCHECK(tag=TPM_ST.HASHCHECK.value, hierarchy=TPM_RH.NULL.value, digest=b"")
NO_SCHEME = TPMT_SIG_SCHEME(scheme=NULL, details=None)


def details(hash_alg, count=None):
    if hash_alg is None:
        return None
    if count is not None:
        return TPMS_SCHEME_ECDAA(hashAlg=int(hash_alg), count=count)
    return TPMS_SCHEME_HASH(hashAlg=int(hash_alg))


def sig_scheme(scheme, hash_alg=TPM_ALG.SHA256, count=None):
    return TPMT_SIG_SCHEME(scheme=int(scheme), details=details(hash_alg, count))


def public(kind, attributes, parameters, unique):
    return TPMT_PUBLIC(
        type=int(kind),
        nameAlg=TPM_ALG.SHA256.value,
        objectAttributes=attributes | OPEN,
        authPolicy=b"",
        parameters=parameters,
        unique=unique,
    )


def sensitive(kind, content, seed=b""):
    return TPMT_SENSITIVE(sensitiveType=int(kind), authValue=b"", seedValue=seed, sensitive=content)


def rsa_key(attributes, scheme=NULL, hash_alg=None):
    parameters = TPMS_RSA_PARMS(
        symmetric=NO_SYMMETRIC,
        scheme=TPMT_RSA_SCHEME(scheme=int(scheme), details=details(hash_alg)),
        keyBits=1024,
        exponent=0,
    )
    return sensitive(TPM_ALG.RSA, RSA_P.to_bytes(64, "big")), public(
        TPM_ALG.RSA, attributes, parameters, RSA_N.to_bytes(128, "big")
    )


def ecc_key(attributes, scheme=NULL, hash_alg=None, scalar=SCALAR, curve=P256):
    point = ecc.public_point(curve, scalar)
    parameters = TPMS_ECC_PARMS(
        symmetric=NO_SYMMETRIC,
        scheme=TPMT_ECC_SCHEME(
            scheme=int(scheme), details=details(hash_alg, 0 if scheme == TPM_ALG.ECDAA else None)
        ),
        curveID=curve.curve_id,
        kdf=TPMT_KDF_SCHEME(scheme=NULL, details=None),
    )
    unique = TPMS_ECC_POINT(x=curve.encode(point[0]), y=curve.encode(point[1]))
    return sensitive(TPM_ALG.ECC, curve.encode(scalar)), public(TPM_ALG.ECC, attributes, parameters, unique)


def hmac_key(attributes=SIGN, hash_alg=TPM_ALG.SHA256):
    scheme = NULL if hash_alg is None else TPM_ALG.HMAC.value
    parameters = TPMT_KEYEDHASH_SCHEME(scheme=scheme, details=details(hash_alg))
    unique = hash_bytes(TPM_ALG.SHA256, SEED + SECRET)
    return sensitive(TPM_ALG.KEYEDHASH, SECRET, SEED), public(
        TPM_ALG.KEYEDHASH, attributes, parameters, unique
    )


def cipher_key(attributes=SIGN | DECRYPT, mode=NULL):
    parameters = TPMT_SYM_DEF_OBJECT(algorithm=TPM_ALG.AES.value, keyBits=256, mode=int(mode))
    unique = hash_bytes(TPM_ALG.SHA256, SEED + SECRET)
    return sensitive(TPM_ALG.SYMCIPHER, SECRET, SEED), public(
        TPM_ALG.SYMCIPHER, attributes, parameters, unique
    )


def without_private(key):
    return None, evolve(key[1])


class Keyring:
    """Loads keys and runs commands with empty passwords."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.client = SessionClient(tpm.execute, tpm.random)

    def load(self, key):
        return self.client.call(TPM_CC.LoadExternal, (), *key, TPM_RH.NULL.value)[0]

    def call(self, code, handles, *parameters):
        auths = (password(),) * COMMANDS[code].authorised_count
        return self.client.call(code, handles, *parameters, auths=auths)

    def refused(self, code, handles, *parameters):
        with pytest.raises(TpmError) as refusal:
            self.call(code, handles, *parameters)
        return refusal.value.rc
