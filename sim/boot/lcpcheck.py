"""The launch control policy as SINIT judges it: whether this code may be launched here, in the platform's present state.

Models: which policy counts (the owner's, else the supplier's, else none, which allows anything), the version of SINIT,
the data file against the policy's digest, signatures and revocation counters of lists, the MLE element, the PCONF
element against the TPM's PCRs, and what of all that is measured: control word, matching elements (details) and the
lists that they came from (authorities).

Leaves out: the merging of both policies' elements, the elements of STM, SBIOS and custom kind, auto-promotion.

Sources: Intel TXT MLE Developer's Guide, appendix D (evaluation, NPW); tboot 1.10.5, lcptools-v2.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from sim.boot.acm import FLAG_DEBUG, FLAG_PREPRODUCTION, Acm
from sim.boot.acm_key import EXPONENT
from sim.boot.launchpolicy import (
    ELEMENT_MLE,
    ELEMENT_PCONF,
    LcpElement,
    LcpList,
    LcpPolicy,
    PolicyType,
    decode_policy,
    decode_policy_data,
    list_digest,
    lists_digest,
    mle_hashes,
    pconf_digests,
    signed_part,
)
from sim.boot.txt_errors import SinitError
from sim.errors import FormatError, VmksimError

__all__ = ["CONTROL_NPW", "NOTHING", "LaunchRefused", "PolicyMatch", "evaluate_policy"]

CONTROL_NPW = 1 << 1
"""The bit of PolicyControl that lets a module run that is not meant for production."""

NOTHING = b"\0"
"""What is measured where a policy says nothing: one zero byte."""

ReadPcrs = Callable[[tuple[int, ...]], Sequence[bytes]]
"""Returns the values of PCRs of the SHA-256 bank."""


class LaunchRefused(VmksimError):  # noqa: N818 - a refusal is the normal answer here, not an error of ours
    """SINIT does not launch; `error` is what it leaves in TXT.ERRORCODE."""

    def __init__(self, error: SinitError, message: str) -> None:
        self.error = error
        self.message = message
        super().__init__(error, message)

    def __str__(self) -> str:
        return self.message


@frozen(kw_only=True)
class PolicyMatch:
    """What of the policy is measured."""

    control: int = 0
    details: bytes = field(default=NOTHING, repr=False)
    """The elements that matched, one after the other."""
    authorities: bytes = field(default=NOTHING, repr=False)
    """The digests of the lists that they came from."""
    digest: bytes = field(default=bytes(20), repr=False)
    """The policy's own digest of its lists; zeros without one, and under a policy that allows anything."""


def evaluate_policy(
    *, owner: bytes, supplier: bytes, data: bytes, acm: Acm, mle_digest: bytes, read_pcrs: ReadPcrs
) -> PolicyMatch:
    """Judge a launch under the policies in NV (empty where there is none) and the data file; return what is measured.

    Errors: `LaunchRefused`.
    """
    content = owner or supplier
    try:
        policy = decode_policy(content) if content else None
    except FormatError as error:
        raise LaunchRefused(SinitError.POLICY_FORMAT, str(error)) from error
    if acm.flags & (FLAG_DEBUG | FLAG_PREPRODUCTION) and not (policy and policy.control & CONTROL_NPW):
        raise LaunchRefused(SinitError.NOT_PRODUCTION, "no policy allows a module that is not for production")
    if policy is None:
        return PolicyMatch()
    _check_version(policy.sinit_version_min, acm)
    if policy.policy_type == PolicyType.ANY:
        return PolicyMatch(control=policy.control)  # its digest field means nothing, and pins nothing
    lists = _read_lists(policy, data)
    chosen = [
        _matching(lists, ELEMENT_MLE, lambda element: _allows_mle(element, acm, mle_digest)),
        _matching(lists, ELEMENT_PCONF, lambda element: _allows_state(element, read_pcrs)),
    ]
    for match, code, text in zip(chosen, _ERRORS, _TEXTS, strict=True):
        if match is not None and not match:
            raise LaunchRefused(code, text)
    matched = [one for match in chosen if match for one in match]
    sources = dict.fromkeys(number for number, _ in matched)
    return PolicyMatch(
        control=policy.control,
        details=b"".join(element.to_bytes() for _, element in matched) or NOTHING,
        authorities=b"".join(list_digest(lists[number]) for number in sources) or NOTHING,
        digest=policy.digest,
    )


_ERRORS = (SinitError.MLE_MISMATCH, SinitError.PCONF_MISMATCH)
_TEXTS = (
    "the digest of the launched code is in no MLE element of the policy",
    "the PCRs match no PCONF element of the policy",
)


def _check_version(wanted: int, acm: Acm) -> None:
    if acm.version < wanted:
        raise LaunchRefused(
            SinitError.SINIT_TOO_OLD, f"the policy wants version {wanted} of SINIT, this is {acm.version}"
        )


def _read_lists(policy: LcpPolicy, data: bytes) -> tuple[LcpList, ...]:
    """Return the lists of the data file, proven by the policy's digest and by their own signatures."""
    try:
        lists = decode_policy_data(data)
    except FormatError as error:
        raise LaunchRefused(SinitError.POLICY_FORMAT, str(error)) from error
    if lists_digest(lists) != policy.digest:
        raise LaunchRefused(
            SinitError.POLICY_DATA, "the policy data file is not the one that the policy pins"
        )
    for number, one in enumerate(lists):
        if not one.signed:
            continue
        if not _is_signature_good(one):
            raise LaunchRefused(
                SinitError.POLICY_SIGNATURE, f"the signature of list {number} does not verify"
            )
        if one.revocation < policy.revocation[number]:
            raise LaunchRefused(
                SinitError.POLICY_REVOKED,
                f"list {number} has revocation counter {one.revocation}, {policy.revocation[number]} is the least",
            )
    return lists


def _is_signature_good(one: LcpList) -> bool:
    try:
        key = rsa.RSAPublicNumbers(EXPONENT, int.from_bytes(one.public_key, "little")).public_key()
        key.verify(one.signature[::-1], signed_part(one), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, ValueError):  # ValueError: the number is no modulus
        return False
    return True


def _matching(
    lists: Sequence[LcpList], kind: int, allows: Callable[[LcpElement], bool]
) -> list[tuple[int, LcpElement]] | None:
    """Return the first element of a kind that allows the launch, with its list's number.

    Returns an empty list if none allows it, and None if no list has any of that kind.
    """
    found = False
    for number, one in enumerate(lists):
        for element in one.elements:
            if element.kind != kind:
                continue
            found = True
            try:
                if allows(element):
                    return [(number, element)]
            except FormatError as error:
                raise LaunchRefused(SinitError.POLICY_FORMAT, str(error)) from error
    return [] if found else None


def _allows_mle(element: LcpElement, acm: Acm, digest: bytes) -> bool:
    sinit_min, digests = mle_hashes(element)
    return acm.version >= sinit_min and digest in digests


def _allows_state(element: LcpElement, read_pcrs: ReadPcrs) -> bool:
    return any(
        hashlib.sha256(b"".join(read_pcrs(pcrs))).digest() == digest
        for pcrs, digest in pconf_digests(element)
    )
