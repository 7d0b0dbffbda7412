"""A TPM and a small model of it side by side: slots, authorisations, NV, PCRs, counters and the guard against guessing.

The model knows no more than the specification says: what a PCR must hold, who may do what with which value, how many
slots are taken, how often a wrong value was tried.
"""

import hashlib
import struct

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_CC, TPM_RC, TPMA_NV
from sim.tpm.device import Tpm
from sim.tpm.pcr import DYNAMIC_PCRS, EXTEND_LOCALITIES, RESET_LOCALITIES, SAVED_PCRS
from sim.tpm.state import restore, snapshot

OWNER, LOCKOUT, NULL = 0x40000001, 0x4000000A, 0x40000007
SHA256, ZEROS = 0x0B, bytes(32)
STORAGE = bytes.fromhex("0023000b00030472000000060080004300100003001000000000")
SEALED = bytes.fromhex("0008000b00000052000000100000")
SECRET = b"the secret"
TRIES_MAX = 3
SESSIONS_MAX = 3
PASSWORDS = st.sampled_from([b"right", b"right", b"wrong", b""])
LOCALITIES = st.sampled_from([0, 0, 0, 1, 2, 3, 4])
PCRS = st.sampled_from([0, 7, 16, 17, 19, 20, 21, 23])
INDICES = st.sampled_from([0x01500001, 0x01500002])


def sized(content):
    return struct.pack(">H", len(content)) + content


def command(code, handles=(), parameters=b"", passwords=()):
    body = b"".join(struct.pack(">I", handle) for handle in handles)
    if passwords:
        area = b"".join(struct.pack(">IHB", 0x40000009, 0, 1) + sized(each) for each in passwords)
        body += struct.pack(">I", len(area)) + area
    body += parameters
    return struct.pack(">HII", 0x8002 if passwords else 0x8001, 10 + len(body), code) + body


class TpmMachine(RuleBasedStateMachine):
    """Drives a TPM by commands and says before each what must come of it."""

    @initialize()
    def power_on(self):
        self.tpm = Tpm(b"machine")
        self.tpm.init()
        self.answer = self.ask(command(TPM_CC.Startup, parameters=b"\0\0"))
        self.pcrs = {pcr: b"\xff" * 32 if pcr in DYNAMIC_PCRS else ZEROS for pcr in range(24)}
        self.objects = {}
        self.sessions = []
        self.nv = {}
        self.failures = 0
        self.guarded_used = False
        self.clock = self.resets = 0
        self.private = None

    def ask(self, packet, locality=0):
        response = self.tpm.execute(packet, locality)
        self.tpm.clock.now += self.tpm.last_latency_ns
        self.answer = response
        return int.from_bytes(response[6:10], "big")

    @property
    def room(self):
        return len(self.objects) < self.tpm.profile.transient_slots

    # ------------------------------------------------------------ PCRs

    @rule(pcr=PCRS, locality=LOCALITIES, content=st.binary(min_size=1, max_size=4))
    def extend(self, pcr, locality, content):
        digest = hashlib.sha256(content).digest()
        parameters = struct.pack(">IH", 1, SHA256) + digest
        rc = self.ask(command(TPM_CC.PCR_Extend, (pcr,), parameters, (b"",)), locality)
        if EXTEND_LOCALITIES[pcr] >> locality & 1:
            assert rc == 0
            self.pcrs[pcr] = hashlib.sha256(self.pcrs[pcr] + digest).digest()
        else:
            assert rc == TPM_RC.LOCALITY

    @rule(pcr=PCRS, locality=LOCALITIES)
    def reset_pcr(self, pcr, locality):
        rc = self.ask(command(TPM_CC.PCR_Reset, (pcr,), b"", (b"",)), locality)
        if locality != 4 and RESET_LOCALITIES[pcr] >> locality & 1:
            assert rc == 0
            self.pcrs[pcr] = ZEROS
        else:
            assert rc == TPM_RC.LOCALITY

    # ------------------------------------------------------------ objects

    @rule()
    def create_primary(self):
        parameters = sized(sized(b"") + sized(b"")) + sized(STORAGE) + b"\0\0" + bytes(4)
        rc = self.ask(command(TPM_CC.CreatePrimary, (OWNER,), parameters, (b"",)))
        if not self.room:
            assert rc == TPM_RC.OBJECT_MEMORY
            return
        assert rc == 0
        handle = int.from_bytes(self.answer[10:14], "big")
        self.objects[handle] = "parent"
        if self.private is None:
            self.seal(handle)

    def seal(self, parent):
        parameters = sized(sized(b"right") + sized(SECRET)) + sized(SEALED) + b"\0\0" + bytes(4)
        assert self.ask(command(TPM_CC.Create, (parent,), parameters, (b"",))) == 0
        private_end = 16 + int.from_bytes(self.answer[14:16], "big")
        public_end = private_end + 2 + int.from_bytes(self.answer[private_end : private_end + 2], "big")
        self.private = self.answer[14:public_end]

    @precondition(lambda self: self.private is not None and "parent" in self.objects.values())
    @rule()
    def load_sealed(self):
        parent = next(handle for handle, kind in self.objects.items() if kind == "parent")
        rc = self.ask(command(TPM_CC.Load, (parent,), self.private, (b"",)))
        if not self.room:
            assert rc == TPM_RC.OBJECT_MEMORY
            return
        assert rc == 0
        self.objects[int.from_bytes(self.answer[10:14], "big")] = "sealed"

    @precondition(lambda self: "sealed" in self.objects.values())
    @rule(password=PASSWORDS)
    def unseal(self, password):
        handle = next(handle for handle, kind in self.objects.items() if kind == "sealed")
        rc = self.ask(command(TPM_CC.Unseal, (handle,), b"", (password,)))
        if self.failures >= TRIES_MAX:
            assert rc == TPM_RC.LOCKOUT
            return
        self.guarded_used = True
        if password == b"right":
            assert rc == 0
            assert SECRET in self.answer
        else:
            assert rc == 0x900 | TPM_RC.AUTH_FAIL
            assert SECRET not in self.answer
            self.failures += 1

    @rule()
    def end_lockout(self):
        assert self.ask(command(TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), b"", (b"",))) == 0
        self.failures = 0

    @precondition(lambda self: self.objects)
    @rule(data=st.data())
    def flush(self, data):
        handle = data.draw(st.sampled_from(sorted(self.objects)))
        assert self.ask(command(TPM_CC.FlushContext, (), struct.pack(">I", handle))) == 0
        del self.objects[handle]
        assert self.ask(command(TPM_CC.ReadPublic, (handle,))) == TPM_RC.REFERENCE_H0

    @precondition(lambda self: self.objects)
    @rule(data=st.data())
    def swap(self, data):
        """Save an object, flush it, and load it again: the same kind, in a slot that was free."""
        handle = data.draw(st.sampled_from(sorted(self.objects)))
        assert self.ask(command(TPM_CC.ContextSave, (handle,))) == 0
        saved = self.answer[10:]
        assert self.ask(command(TPM_CC.FlushContext, (), struct.pack(">I", handle))) == 0
        kind = self.objects.pop(handle)
        assert self.ask(command(TPM_CC.ContextLoad, (), saved)) == 0
        loaded = int.from_bytes(self.answer[10:14], "big")
        assert loaded not in self.objects
        self.objects[loaded] = kind

    # ------------------------------------------------------------ sessions

    @rule(kind=st.sampled_from([0, 1, 3]))
    def start_session(self, kind):
        parameters = sized(b"n" * 16) + sized(b"") + bytes([kind]) + b"\0\x10" + b"\0\x0b"
        rc = self.ask(command(TPM_CC.StartAuthSession, (NULL, NULL), parameters))
        if len(self.sessions) == SESSIONS_MAX:
            assert rc == TPM_RC.SESSION_MEMORY
        else:
            assert rc == 0
            self.sessions.append(int.from_bytes(self.answer[10:14], "big"))

    @precondition(lambda self: self.sessions)
    @rule()
    def end_session(self):
        assert self.ask(command(TPM_CC.FlushContext, (), struct.pack(">I", self.sessions.pop(0)))) == 0

    # ------------------------------------------------------------ NV

    @rule(index=INDICES)
    def define(self, index):
        attributes = TPMA_NV.AUTHREAD | TPMA_NV.AUTHWRITE | TPMA_NV.NO_DA
        public = struct.pack(">IHI", index, SHA256, attributes) + sized(b"") + struct.pack(">H", 4)
        rc = self.ask(command(TPM_CC.NV_DefineSpace, (OWNER,), sized(b"right") + sized(public), (b"",)))
        if index in self.nv:
            assert rc == TPM_RC.NV_DEFINED
        else:
            assert rc == 0
            self.nv[index] = None

    @rule(index=INDICES, password=PASSWORDS, content=st.binary(min_size=4, max_size=4))
    def write(self, index, password, content):
        rc = self.ask(command(TPM_CC.NV_Write, (index, index), sized(content) + b"\0\0", (password,)))
        if index not in self.nv:
            assert rc == 0x100 | TPM_RC.HANDLE
        elif password != b"right":
            assert rc == 0x900 | TPM_RC.BAD_AUTH
        else:
            assert rc == 0
            self.nv[index] = content

    @rule(index=INDICES, password=PASSWORDS)
    def read(self, index, password):
        rc = self.ask(command(TPM_CC.NV_Read, (index, index), b"\0\4\0\0", (password,)))
        if index not in self.nv:
            assert rc == 0x100 | TPM_RC.HANDLE
        elif password != b"right":
            assert rc == 0x900 | TPM_RC.BAD_AUTH
        elif self.nv[index] is None:
            assert rc == TPM_RC.NV_UNINITIALIZED
        else:
            assert rc == 0
            assert self.answer[16:20] == self.nv[index]

    @precondition(lambda self: self.nv)
    @rule()
    def undefine(self):
        index = next(iter(self.nv))
        assert self.ask(command(TPM_CC.NV_UndefineSpace, (OWNER, index), b"", (b"",))) == 0
        del self.nv[index]

    # ------------------------------------------------------------ power

    @rule(orderly=st.booleans(), keep=st.booleans())
    def power_cycle(self, orderly, keep):
        if orderly:
            assert self.ask(command(TPM_CC.Shutdown, parameters=struct.pack(">H", keep))) == 0
        self.tpm.init()
        resumes = orderly and keep
        assert self.ask(command(TPM_CC.Startup, parameters=struct.pack(">H", resumes))) == 0
        for pcr in range(24):
            if not (resumes and pcr in SAVED_PCRS):
                self.pcrs[pcr] = b"\xff" * 32 if pcr in DYNAMIC_PCRS else ZEROS
        self.objects.clear()
        self.sessions.clear()
        if not orderly and self.guarded_used:
            self.failures = min(self.failures + 1, TRIES_MAX)
        self.guarded_used = False
        resets = self.tpm.time.reset_count
        assert resets == self.resets + (0 if resumes or (orderly and keep) else 1)

    @rule()
    def replace_by_a_restored_copy(self):
        """What is saved and restored goes on as if nothing had been."""
        self.tpm = restore(snapshot(self.tpm))

    # ------------------------------------------------------------ invariants

    @invariant()
    def what_must_always_hold(self):
        if not hasattr(self, "tpm"):
            return
        self.tpm.check_invariants()
        assert dict(enumerate(self.tpm.pcrs.values[SHA256])) == self.pcrs
        assert set(self.tpm.objects) == set(self.objects)
        assert set(self.tpm.sessions.loaded) == set(self.sessions)
        assert set(self.tpm.nv) == set(self.nv)
        assert self.tpm.da.failed_tries == self.failures
        info = TpmClient(self.tpm.execute).read_clock().clockInfo
        assert info.clock >= self.clock or not info.safe
        assert info.resetCount >= self.resets
        self.clock, self.resets = info.clock, info.resetCount


TpmMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_the_tpm_and_its_model_agree = TpmMachine.TestCase
