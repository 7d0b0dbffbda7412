"""Which public areas are allowed, and whether a sensitive area belongs to one: the checks in the library's order.

Models: the rules for attributes, policies, schemes and symmetric algorithms of all object types, for creation and for
loading; and the agreement of public and sensitive area.
Leaves out: who may use a parent (authorisation comes first).
Sources: TPM 2.0 Library part 1, 25 (attributes) and 27; part 2, 12.2; part 3, chapter 12; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_RC, TPMA_OBJECT
from sim.tpm.creation import HASH_BLOCK_BYTES, symmetric_unique
from sim.tpm.crypto import ecc, rsa
from sim.tpm.crypto.symmetric import is_usable_key
from sim.tpm.keys import LoadedObject, rsa_numbers
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import (
    TPMS_ECC_PARMS,
    TPMS_ECC_POINT,
    TPMS_RSA_PARMS,
    TPMS_SCHEME_XOR,
    TPMT_KEYEDHASH_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
)
from sim.tpm.wire.private import TPMT_SENSITIVE

__all__ = ["check_attributes", "check_creation", "check_pair", "check_schemes", "storage_symmetric"]

_EXPONENT_MIN = 7
_ECC_SIGN = (TPM_ALG.ECDSA, TPM_ALG.ECDAA, TPM_ALG.SM2, TPM_ALG.ECSCHNORR)
_RSA_SIGN = (TPM_ALG.RSASSA, TPM_ALG.RSAPSS)
_ECC_DECRYPT = (TPM_ALG.ECDH, TPM_ALG.ECMQV, TPM_ALG.SM2)
_RSA_DECRYPT = (TPM_ALG.RSAES, TPM_ALG.OAEP)


def check_creation(parent: LoadedObject | None, template: TPMT_PUBLIC, data_size: int, number: int) -> None:
    """Refuse, blaming parameter `number`, a template from which nothing can be created under `parent` (None: primary).

    `data_size` is the size of the caller's sensitive data.
    """
    attributes = template.objectAttributes
    origin = bool(attributes & TPMA_OBJECT.sensitiveDataOrigin)
    derived = parent is not None and parent.is_derivation_parent
    wrong = False
    if derived:
        wrong = not attributes & TPMA_OBJECT.fixedParent
    elif template.type in (TPM_ALG.KEYEDHASH, TPM_ALG.SYMCIPHER):
        fixed = attributes & (TPMA_OBJECT.fixedTPM | TPMA_OBJECT.fixedParent)
        is_key = attributes & (TPMA_OBJECT.sign | TPMA_OBJECT.decrypt)
        wrong = (
            (not origin and data_size == 0)
            or bool(attributes & TPMA_OBJECT.restricted and not origin and fixed)
            or (template.type == TPM_ALG.KEYEDHASH and origin and not is_key)
        )
    else:
        wrong = not origin
    wrong = wrong or (parent is not None and not derived and origin and data_size > 0)
    if wrong:
        raise in_parameter(TPM_RC.ATTRIBUTES, number)
    check_attributes(parent, template, number)


def check_attributes(parent: LoadedObject | None, public: TPMT_PUBLIC, number: int) -> None:
    """Refuse attributes that contradict each other or the parent's (None: a primary), and then wrong schemes."""
    attributes = public.objectAttributes
    above = parent.attributes if parent is not None else int(TPMA_OBJECT.fixedTPM)
    if public.nameAlg == TPM_ALG.NULL:
        raise in_parameter(TPM_RC.HASH, number)
    if public.authPolicy and len(public.authPolicy) != HASH_BYTES[public.nameAlg]:
        raise in_parameter(TPM_RC.SIZE, number)

    def has(flag: TPMA_OBJECT) -> bool:
        return bool(attributes & flag)

    if above & TPMA_OBJECT.fixedTPM:
        wrong = has(TPMA_OBJECT.fixedTPM) != has(TPMA_OBJECT.fixedParent)
    else:
        wrong = has(TPMA_OBJECT.fixedTPM)
        encrypted = bool(above & TPMA_OBJECT.encryptedDuplication)
        wrong = wrong or has(TPMA_OBJECT.encryptedDuplication) != encrypted
    sign, decrypt = has(TPMA_OBJECT.sign), has(TPMA_OBJECT.decrypt)
    wrong = (
        wrong
        or (has(TPMA_OBJECT.fixedTPM) and has(TPMA_OBJECT.encryptedDuplication))
        or (above & TPMA_OBJECT.stClear and not has(TPMA_OBJECT.stClear))
        or (has(TPMA_OBJECT.restricted) and sign == decrypt)
        or (public.type != TPM_ALG.KEYEDHASH and not sign and not decrypt)
    )
    if wrong:
        raise in_parameter(TPM_RC.ATTRIBUTES, number)
    check_schemes(parent, public, number)


def check_schemes(parent: LoadedObject | None, public: TPMT_PUBLIC, number: int) -> None:
    """Refuse a scheme, key derivation or symmetric algorithm that does not fit what the key is for."""
    parameters = public.parameters
    if isinstance(parameters, TPMT_KEYEDHASH_SCHEME):
        code = _keyed_hash_fault(public.objectAttributes, parameters)
    elif isinstance(parameters, TPMT_SYM_DEF_OBJECT):
        code = _cipher_fault(public.objectAttributes, parameters)
    else:
        code = _asymmetric_fault(public.objectAttributes, parameters)
    if code is None and parent is not None:
        code = _inherited_fault(parent, public)
    if code is not None:
        raise in_parameter(code, number)


def _keyed_hash_fault(attributes: int, parameters: TPMT_KEYEDHASH_SCHEME) -> TPM_RC | None:
    sign, decrypt = bool(attributes & TPMA_OBJECT.sign), bool(attributes & TPMA_OBJECT.decrypt)
    if sign == decrypt:
        return None if parameters.scheme == TPM_ALG.NULL else TPM_RC.SCHEME
    if sign:
        return None if parameters.scheme == TPM_ALG.HMAC else TPM_RC.SCHEME
    if not isinstance(parameters.details, TPMS_SCHEME_XOR):
        return TPM_RC.SCHEME
    restricted = attributes & TPMA_OBJECT.restricted
    if restricted and parameters.details.kdf != TPM_ALG.KDF1_SP800_108:
        return TPM_RC.SCHEME
    return None


def _cipher_fault(attributes: int, parameters: TPMT_SYM_DEF_OBJECT) -> TPM_RC | None:
    if parameters.mode == TPM_ALG.CMAC and attributes & TPMA_OBJECT.decrypt:
        return TPM_RC.SCHEME
    return None


def _asymmetric_fault(attributes: int, parameters: TPMS_ECC_PARMS | TPMS_RSA_PARMS) -> TPM_RC | None:
    restricted = bool(attributes & TPMA_OBJECT.restricted)
    sign, decrypt = bool(attributes & TPMA_OBJECT.sign), bool(attributes & TPMA_OBJECT.decrypt)
    is_ecc = isinstance(parameters, TPMS_ECC_PARMS)
    signing = _ECC_SIGN if is_ecc else _RSA_SIGN
    decrypting = _ECC_DECRYPT if is_ecc else _RSA_DECRYPT
    if sign == decrypt or (restricted and decrypt):
        allowed: tuple[int, ...] = (TPM_ALG.NULL,)
    elif sign:
        allowed = signing if restricted else (*signing, TPM_ALG.NULL)
    else:
        allowed = (*decrypting, TPM_ALG.NULL)
    if parameters.scheme.scheme not in allowed:
        return TPM_RC.SCHEME
    is_parent, symmetric = restricted and decrypt, parameters.symmetric
    if symmetric.algorithm != TPM_ALG.NULL and not is_parent:
        return TPM_RC.SYMMETRIC
    if isinstance(parameters, TPMS_ECC_PARMS) and parameters.kdf.scheme != TPM_ALG.NULL:
        return TPM_RC.KDF
    if is_parent and symmetric.algorithm == TPM_ALG.NULL:
        return TPM_RC.SYMMETRIC
    return None


def _inherited_fault(parent: LoadedObject, public: TPMT_PUBLIC) -> TPM_RC | None:
    """Return what is wrong with a storage key that cannot leave its parent: it must protect as the parent does."""
    bound = TPMA_OBJECT.restricted | TPMA_OBJECT.decrypt | TPMA_OBJECT.fixedParent
    if public.type == TPM_ALG.KEYEDHASH or public.objectAttributes & bound != bound:
        return None
    if public.nameAlg != parent.public.nameAlg:
        return TPM_RC.HASH
    alike = parent.is_storage_parent and storage_symmetric(public) == storage_symmetric(parent.public)
    return None if alike else TPM_RC.SYMMETRIC


def storage_symmetric(public: TPMT_PUBLIC) -> TPMT_SYM_DEF_OBJECT:
    """Return the algorithm with which a storage key protects its children."""
    parameters = public.parameters
    found = parameters.symmetric if isinstance(parameters, (TPMS_RSA_PARMS, TPMS_ECC_PARMS)) else parameters
    assert isinstance(found, TPMT_SYM_DEF_OBJECT)
    return found


def check_pair(
    public: TPMT_PUBLIC, sensitive: TPMT_SENSITIVE | None, blame_public: int, blame_sensitive: int
) -> None:
    """Refuse key values that are not well formed, and a sensitive area that does not belong to the public one."""
    if sensitive is not None:
        if sensitive.sensitiveType != public.type:
            raise in_parameter(TPM_RC.TYPE, blame_sensitive)
        if len(sensitive.authValue) > HASH_BYTES.get(public.nameAlg, len(sensitive.authValue)):
            raise in_parameter(TPM_RC.SIZE, blame_sensitive)
    if isinstance(public.parameters, TPMS_RSA_PARMS):
        _check_rsa(public, public.parameters, sensitive, blame_public, blame_sensitive)
    elif isinstance(public.parameters, TPMS_ECC_PARMS):
        _check_ecc(public, public.parameters, sensitive, blame_public, blame_sensitive)
    else:
        _check_symmetric(public, sensitive, blame_public, blame_sensitive)


def _check_rsa(
    public: TPMT_PUBLIC,
    parameters: TPMS_RSA_PARMS,
    sensitive: TPMT_SENSITIVE | None,
    blame_public: int,
    blame_sensitive: int,
) -> None:
    size = parameters.keyBits // 8
    assert isinstance(public.unique, bytes)
    if len(public.unique) != size or public.unique[0] < 0x80:
        raise in_parameter(TPM_RC.KEY, blame_public)
    if 0 < parameters.exponent < _EXPONENT_MIN:
        raise in_parameter(TPM_RC.VALUE, blame_public)
    if sensitive is None:
        return
    if len(sensitive.sensitive) * 2 != size or sensitive.sensitive[0] < 0x80:
        raise in_parameter(TPM_RC.KEY_SIZE, blame_sensitive)
    if rsa.rsa_key(*rsa_numbers(public), int.from_bytes(sensitive.sensitive, "big")) is None:
        raise RefusedError(TPM_RC.BINDING)


def _check_ecc(
    public: TPMT_PUBLIC,
    parameters: TPMS_ECC_PARMS,
    sensitive: TPMT_SENSITIVE | None,
    blame_public: int,
    blame_sensitive: int,
) -> None:
    curve = ecc.CURVES[parameters.curveID]
    assert isinstance(public.unique, TPMS_ECC_POINT)
    point = (int.from_bytes(public.unique.x, "big"), int.from_bytes(public.unique.y, "big"))
    named = public.nameAlg != TPM_ALG.NULL
    if sensitive is None:
        if len(public.unique.x) != curve.size or len(public.unique.y) != curve.size:
            raise in_parameter(TPM_RC.KEY, blame_public)
        if named and not ecc.is_on_curve(curve, point):
            raise in_parameter(TPM_RC.ECC_POINT, blame_public)
        return
    scalar = int.from_bytes(sensitive.sensitive, "big")
    if not 0 < scalar < curve.n:
        raise RefusedError(TPM_RC.KEY_SIZE)
    if named and ecc.public_point(curve, scalar) != point:
        raise RefusedError(TPM_RC.BINDING)


def _check_symmetric(
    public: TPMT_PUBLIC, sensitive: TPMT_SENSITIVE | None, blame_public: int, blame_sensitive: int
) -> None:
    assert isinstance(public.unique, bytes)
    size = HASH_BYTES.get(public.nameAlg, 0)
    if sensitive is None:
        if len(public.unique) != size:
            raise in_parameter(TPM_RC.KEY, blame_public)
        return
    _check_key(public, sensitive.sensitive, blame_sensitive)
    if not size:
        return
    if len(sensitive.seedValue) != size:
        raise in_parameter(TPM_RC.KEY_SIZE, blame_sensitive)
    if public.unique != symmetric_unique(public, sensitive.seedValue, sensitive.sensitive):
        raise RefusedError(TPM_RC.BINDING)


def _check_key(public: TPMT_PUBLIC, key: bytes, number: int) -> None:
    """Refuse a cipher key of a wrong size or a weak one, and an HMAC or XOR key that is longer than a block."""
    parameters = public.parameters
    if isinstance(parameters, TPMT_SYM_DEF_OBJECT):
        assert parameters.keyBits is not None
        if len(key) * 8 != parameters.keyBits:
            raise in_parameter(TPM_RC.KEY_SIZE, number)
        if not is_usable_key(parameters.algorithm, key):
            raise in_parameter(TPM_RC.KEY, number)
        return
    assert isinstance(parameters, TPMT_KEYEDHASH_SCHEME)
    if parameters.details is not None and len(key) > HASH_BLOCK_BYTES[parameters.details.hashAlg]:
        raise in_parameter(TPM_RC.KEY_SIZE, number)
