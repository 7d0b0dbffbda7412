"""What a host needs for its late launch, made as its owner would: the launcher's file, the policy, its data file.

Models: the provisioning of a launch control policy: one list with the digest of the published launcher and, if wanted, the
digest of PCRs as a clean boot leaves them; the data file on the EFI partition; the policy in the TPM's NV index; and the
later exchange of all three.

Leaves out: the owner's authorisation for writing NV: it is done before the host leaves the house.

Sources: tboot 1.10.5, docs (steps of lcp2_mlehash, lcp2_crtpolelt, lcp2_crtpollist, lcp2_crtpol; index and attributes).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import rsa

from sim.boot.latelaunch import LAUNCH_VOLUME, LAUNCHER_FILE, POLICY_FILE
from sim.boot.launchpolicy import (
    OWNER_INDEX,
    LcpElement,
    LcpList,
    LcpPolicy,
    PolicyType,
    encode_policy,
    encode_policy_data,
    lists_digest,
    mle_element,
    pconf_element,
    sign_list,
)
from sim.boot.launchspec import LaunchSpec
from sim.boot.lcpcheck import CONTROL_NPW
from sim.core.facts import fact
from sim.core.keys import rsa_private_key
from sim.core.rng import Rng
from sim.hw.board import Board
from sim.image.manifest import ReferenceComponent, ReferenceManifest, measured_digests
from sim.image.payload import content_of
from sim.tpm.device import Tpm
from sim.tpm.nv import factory_index

__all__ = [
    "OWNER_LIST_REVOCATION",
    "install_launcher",
    "owner_key",
    "policy_elements",
    "provision_policy",
    "store_policy",
]

INDEX_ATTRIBUTES = fact(
    "boot.lcp_index_attributes",
    0x0204000A,
    unit="TPMA_NV",
    source="tboot 1.10.5, docs: owner and policy write, authorisation of the index reads, no dictionary attack",
    kind="vendor",
)
_WRITTEN = 1 << 29
KERNEL_FILE = "b.b00"
_LAUNCHER_BYTES = 24 * 1024
_LAUNCHER_MARK = b"TBOOT 1.10.5\0"
OWNER_LIST_REVOCATION = 1
"""The revocation counter of the owner's signed list."""

Choices = Iterable[tuple[tuple[int, ...], bytes]]


def install_launcher(board: Board, rng: Rng) -> ReferenceManifest:
    """Put tboot on the EFI partition, and return what its maker publishes about it."""
    stream = rng.child("tboot").stream("code")
    data = _LAUNCHER_MARK + stream.bytes(_LAUNCHER_BYTES - len(_LAUNCHER_MARK))
    board.disk.volume(LAUNCH_VOLUME).write(LAUNCHER_FILE, data)
    name = LAUNCHER_FILE.rpartition("/")[2]
    component = ReferenceComponent(name=name, digests=measured_digests(name, data))
    return ReferenceManifest(components=(component,))


def owner_key(rng: Rng) -> rsa.RSAPrivateKey:
    """Return the key with which the host's owner signs policy lists; takes up to a second of real time."""
    return rsa_private_key(rng.child("launch policy").stream("owner key"))


def policy_elements(board: Board, spec: LaunchSpec, states: Choices = ()) -> tuple[LcpElement, ...]:
    """Return the elements that allow what lies on the disk now, in one of `states`."""
    own = spec.own_launcher
    volume = board.disk.volume(LAUNCH_VOLUME if own else "bootbank")
    name = LAUNCHER_FILE if own else KERNEL_FILE
    launcher = content_of(volume.peek(name)) if volume.exists(name) else b""
    elements = [mle_element([hashlib.sha256(launcher).digest()])]
    choices = tuple(states)
    if choices:
        elements.append(pconf_element(choices))
    return tuple(elements)


def provision_policy(board: Board, tpm: Tpm, spec: LaunchSpec, states: Choices = ()) -> None:
    """Write the policy of a launch spec; `states` are PCRs with the digest over their values."""
    control = CONTROL_NPW if spec.allow_debug else 0
    policy = LcpPolicy(control=control, sinit_version_min=spec.sinit_version_min)
    if spec.policy == "any":
        store_policy(board, tpm, policy)
    elif spec.policy == "list":
        elements = policy_elements(board, spec, states)
        if spec.signed:
            one = sign_list(elements, owner_key(board.sim.rng), OWNER_LIST_REVOCATION)
        else:
            one = LcpList(elements=elements)
        store_policy(board, tpm, evolve(policy, policy_type=PolicyType.LIST), (one,))


def store_policy(board: Board, tpm: Tpm, policy: LcpPolicy, lists: tuple[LcpList, ...] = ()) -> None:
    """Write a policy into NV, pinned to these lists, and the lists into the data file."""
    if lists:
        policy = evolve(policy, digest=lists_digest(lists))
        board.disk.volume(LAUNCH_VOLUME).write(POLICY_FILE, encode_policy_data(lists))
    store_index(tpm, encode_policy(policy))


def store_index(tpm: Tpm, content: bytes) -> None:
    """Write these bytes into the owner's NV index."""
    attributes = INDEX_ATTRIBUTES.value | _WRITTEN
    tpm.provision_nv(factory_index(OWNER_INDEX.value, content, attributes))
