"""Hash, HMAC, EncryptDecrypt and EncryptDecrypt2.

Models: one-shot digests and codes (HMAC and CMAC), and block ciphers with keys in the TPM, chained by their vectors.
Leaves out: authenticated encryption, which the library has not.
Sources: TPM 2.0 Library part 3, chapter 15; codes measured on swtpm 0.7.1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sim.tpm.constants import HASH_BYTES, TPM_ALG, TPM_CC, TPM_RC, TPMA_OBJECT
from sim.tpm.crypto.symmetric import BLOCK_BYTES, crypt
from sim.tpm.entities import object_at
from sim.tpm.hashing import hash_bytes
from sim.tpm.refusal import in_handle, in_parameter
from sim.tpm.sequences import Sequence, hash_ticket, is_safe
from sim.tpm.wire import TPMT_KEYEDHASH_SCHEME, TPMT_SYM_DEF_OBJECT

if TYPE_CHECKING:
    from sim.tpm.device import Tpm

__all__ = ["ACTIONS", "mac_sequence"]

_NULL = TPM_ALG.NULL.value
_MAC_SCHEME = 2


def hash_data(tpm: Tpm, data: bytes, hash_alg: int, hierarchy: int) -> tuple[Any, ...]:
    """Return the digest of the data and a ticket for it."""
    digest = hash_bytes(hash_alg, data)
    return (digest, hash_ticket(tpm, hierarchy, hash_alg, digest, safe=is_safe(data)))


def mac_data(tpm: Tpm, handle: int, data: bytes, asked: int) -> tuple[Any, ...]:
    """Return the HMAC (or with a block cipher's key the CMAC) of the data."""
    return (mac_sequence(tpm, handle, asked).update(data).digests()[0],)


def mac_sequence(tpm: Tpm, handle: int, asked: int) -> Sequence:
    """Begin a MAC with a loaded key, by its own scheme, or by the one asked for if it leaves that open."""
    loaded = object_at(tpm, handle)
    if loaded.public.type not in (TPM_ALG.KEYEDHASH, TPM_ALG.SYMCIPHER):
        raise in_handle(TPM_RC.TYPE, 1)
    own = loaded.public.parameters
    if isinstance(own, TPMT_KEYEDHASH_SCHEME):
        default, possible = own.details.hashAlg if own.details is not None else _NULL, frozenset(HASH_BYTES)
    else:
        assert isinstance(own, TPMT_SYM_DEF_OBJECT)
        default, possible = own.mode if own.mode is not None else _NULL, frozenset({TPM_ALG.CMAC.value})
    if default != _NULL and asked not in (_NULL, default):
        raise in_parameter(TPM_RC.VALUE, _MAC_SCHEME)
    chosen = default if default != _NULL else asked
    if chosen == _NULL:
        raise in_parameter(TPM_RC.VALUE, _MAC_SCHEME)
    if chosen not in possible:
        raise in_parameter(TPM_RC.SCHEME, _MAC_SCHEME)
    if loaded.public.objectAttributes & TPMA_OBJECT.restricted:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    if not loaded.public.objectAttributes & TPMA_OBJECT.sign:
        raise in_handle(TPM_RC.KEY, 1)
    if isinstance(own, TPMT_SYM_DEF_OBJECT):
        return Sequence.of_cmac(own.algorithm, loaded.private)
    return Sequence.of_hmac(chosen, loaded.private)


def encrypt_decrypt(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm, handle: int, decrypt: int, mode: int, iv: bytes, data: bytes
) -> tuple[Any, ...]:
    """Encrypt or decrypt with a symmetric key."""
    return _crypt(tpm, handle, decrypt, mode, iv, data, (2, 3, 4))


def encrypt_decrypt_2(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm, handle: int, data: bytes, decrypt: int, mode: int, iv: bytes
) -> tuple[Any, ...]:
    """Encrypt or decrypt with a symmetric key; the data come first, so that a session can encrypt them."""
    return _crypt(tpm, handle, decrypt, mode, iv, data, (3, 4, 1))


def _crypt(  # noqa: PLR0917 - handles and parameters as the library lists them
    tpm: Tpm, handle: int, decrypt: int, mode: int, iv: bytes, data: bytes, numbers: tuple[int, int, int]
) -> tuple[Any, ...]:
    """Do the work of both commands; `numbers` are those of the parameters mode, vector and data."""
    loaded = object_at(tpm, handle)
    public = loaded.public
    if public.type != TPM_ALG.SYMCIPHER:
        raise in_handle(TPM_RC.KEY, 1)
    needed = TPMA_OBJECT.decrypt if decrypt else TPMA_OBJECT.sign
    if public.objectAttributes & TPMA_OBJECT.restricted or not public.objectAttributes & needed:
        raise in_handle(TPM_RC.ATTRIBUTES, 1)
    own = public.parameters
    assert isinstance(own, TPMT_SYM_DEF_OBJECT)
    if own.mode not in (_NULL, None) and mode not in (_NULL, own.mode):
        raise in_parameter(TPM_RC.MODE, numbers[0])
    chosen = mode if own.mode in (_NULL, None) else own.mode
    if chosen in (_NULL, None):
        raise in_parameter(TPM_RC.MODE, numbers[0])
    assert chosen is not None
    block = BLOCK_BYTES[own.algorithm]
    if len(iv) != (0 if chosen == TPM_ALG.ECB else block):
        raise in_parameter(TPM_RC.SIZE, numbers[1])
    if chosen in (TPM_ALG.CBC, TPM_ALG.ECB) and len(data) % block:
        raise in_parameter(TPM_RC.SIZE, numbers[2])
    return crypt(own.algorithm, chosen, loaded.private, iv, data, decrypt=bool(decrypt))


ACTIONS: dict[int, Callable[..., tuple[Any, ...]]] = {
    TPM_CC.EncryptDecrypt.value: encrypt_decrypt,
    TPM_CC.EncryptDecrypt2.value: encrypt_decrypt_2,
    TPM_CC.HMAC.value: mac_data,
    TPM_CC.Hash.value: hash_data,
}
"""The actions of this group, by command code."""
