"""NV commands of every kind, sent to swtpm and to the device: the same codes, names and contents.

Commands come from a seeded generator that is mostly right, with power cycles between them.
"""

import random
import struct

import pytest

from sim.tpm.constants import TPM_CC, TPMA_NV

from .swtpm_peer import OWNER, PLATFORM, Ours, Peer, code_of, command, shutdown, sized, startup

pytestmark = pytest.mark.client

COMMAND_COUNT = 4000
INDICES = (0x01000001, 0x01000002, 0x01400003, 0x01C00004, 0x01800005)
PLAUSIBLE = (0x00020002, 0x00060006, 0x02040004, 0x0007000F, 0x06060006, 0x42060006, 0x40010001, 0x40050405)
EXTRAS = (
    TPMA_NV.WRITEALL,
    TPMA_NV.WRITEDEFINE,
    TPMA_NV.WRITE_STCLEAR,
    TPMA_NV.GLOBALLOCK,
    TPMA_NV.NO_DA,
    TPMA_NV.ORDERLY,
    TPMA_NV.CLEAR_STCLEAR,
    TPMA_NV.READ_STCLEAR,
    TPMA_NV.PLATFORMCREATE,
    TPMA_NV.POLICY_DELETE,
    TPMA_NV.WRITTEN,
    1 << 20,
)
TYPES = (0, 0, 0, 1, 2, 4, 8, 9, 3)
ON_INDEX = (
    TPM_CC.NV_Write,
    TPM_CC.NV_Write,
    TPM_CC.NV_Increment,
    TPM_CC.NV_Extend,
    TPM_CC.NV_SetBits,
    TPM_CC.NV_Read,
    TPM_CC.NV_Read,
    TPM_CC.NV_WriteLock,
    TPM_CC.NV_ReadLock,
)


class Maker:
    """Makes NV commands from a seeded generator."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def one_of(self, *values):
        return self.random.choice(values)

    def attributes(self):
        if self.random.random() < 0.05:
            return self.random.getrandbits(32)
        attributes = self.one_of(*PLAUSIBLE)
        for extra in EXTRAS:
            if self.random.random() < 0.12:
                attributes ^= extra
        return attributes | self.one_of(*TYPES) << 4

    def define(self):
        attributes = self.attributes()
        size = self.one_of(*[{0: 16, 4: 32}.get(attributes >> 4 & 15, 8)] * 12, 0, 8, 20, 2048, 2049)
        public = struct.pack(
            ">IHI", self.one_of(*INDICES, 0x40000001), self.one_of(*[11] * 9, 4, 16), attributes
        )
        public += sized(self.one_of(*[b""] * 9, b"p" * 32, b"p" * 20)) + struct.pack(">H", size)
        auth = sized(self.one_of(b"", b"", b"", b"pw", b"pw\0", b"a" * 33))
        authority = self.one_of(OWNER, OWNER, PLATFORM)
        return command(TPM_CC.NV_DefineSpace, [authority], auth + sized(public), [b""])

    def on_index(self):
        code, index = self.one_of(*ON_INDEX), self.one_of(*INDICES)
        authority = self.one_of(OWNER, PLATFORM, index, index, index, self.one_of(*INDICES))
        data = sized(self.random.randbytes(self.one_of(0, 4, 8, 8, 16, 17, 1025)))
        parameters = {
            TPM_CC.NV_Write: data + struct.pack(">H", self.one_of(0, 0, 0, 4, 16, 17)),
            TPM_CC.NV_Extend: data,
            TPM_CC.NV_SetBits: self.random.randbytes(8),
            TPM_CC.NV_Read: struct.pack(
                ">HH", self.one_of(0, 8, 8, 16, 32, 1025), self.one_of(0, 0, 0, 4, 17)
            ),
        }.get(code, b"")
        return command(code, [authority, index], parameters, [self.one_of(*[b""] * 6, b"pw", b"x")])

    def any(self):
        chance = self.random.random()
        index = self.one_of(*INDICES)
        if chance < 0.25:
            return self.define()
        if chance < 0.3:
            authority = self.one_of(OWNER, PLATFORM)
            return command(TPM_CC.NV_UndefineSpace, [authority, index], b"", [b""])
        if chance < 0.4:
            return command(TPM_CC.NV_ReadPublic, [index])
        if chance < 0.41:
            return command(TPM_CC.NV_GlobalWriteLock, [self.one_of(OWNER, PLATFORM)], b"", [b""])
        if chance < 0.43:
            return command(TPM_CC.NV_UndefineSpaceSpecial, [index, PLATFORM], b"", [b"", b""])
        if chance < 0.45:
            return command(TPM_CC.NV_ChangeAuth, [index], sized(b"pw"), [b""])
        return self.on_index()


@pytest.fixture
def both(program, tmp_path):
    peer = Peer(program("swtpm"), tmp_path)
    yield peer, Ours()
    peer.close()


def agree(both, sent, note):
    theirs, mine = (tpm.execute(sent) for tpm in both)
    assert mine == theirs, (note, TPM_CC(code_of(sent)).name, sent.hex())
    return code_of(mine)


@pytest.mark.parametrize("seed", [1, 2])
def test_random_nv_commands_get_the_same_answers(both, seed):
    maker = Maker(seed)
    agree(both, startup(), 0)
    # without this, failed authorisations would lock both after three commands
    settings = struct.pack(">III", 100_000, 1, 0)
    agree(both, command(TPM_CC.DictionaryAttackParameters, [0x4000000A], settings, [b""]), 0)
    reached = set()
    for number in range(COMMAND_COUNT):
        sent = maker.any()
        reached.add((code_of(sent), agree(both, sent, number)))
        if number % 40 == 39:
            kind = maker.one_of(None, 0, 0, 1, 1)
            if kind is not None:
                agree(both, shutdown(kind), number)
            for tpm in both:
                tpm.init()
            agree(both, startup(int(kind == 1 and maker.one_of(True, False))), number)

    assert len(reached) > 60
