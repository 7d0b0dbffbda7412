"""A TPM and a small model of it side by side: slots, authorisations, NV, PCRs, counters and the guard against guessing.

The model knows no more than the specification says: what a PCR must hold, who may do what with which value, how many
slots are taken, how often a wrong value was tried.
"""

import hashlib
import struct

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sim.core.rng import Stream
from sim.tpm.client import TpmClient, TpmError
from sim.tpm.client_sessions import Auth, SessionClient
from sim.tpm.constants import TPM_CC, TPM_RC, TPM_SE, TPMA_NV
from sim.tpm.device import Tpm
from sim.tpm.eventlog import parse, replay
from sim.tpm.state import restore, snapshot

OWNER, LOCKOUT, NULL = 0x40000001, 0x4000000A, 0x40000007
SHA256, ZEROS, ONES = 0x0B, bytes(32), b"\xff" * 32
BANK_BYTES = {0x04: 20, 0x0B: 32, 0x0C: 48, 0x0D: 64}
DYNAMIC_PCRS, SAVED_PCRS = range(17, 23), range(16)
EXTENDABLE = {17: (2, 3, 4), 18: (2, 3, 4), 19: (2, 3), 20: (1, 2, 3), 21: (2,), 22: (2,)}
RESETTABLE = {16: (0, 1, 2, 3), 20: (2,), 21: (2,), 22: (2,), 23: (0, 1, 2, 3)}
"""By PCR the localities of the PC Client Platform TPM Profile; any may extend the others, none may reset them."""
RECOVERY_MS = 1_000_000
CLOCK_UPDATE_MS = 4096
POLICY_INDEX, POLICY_PCR = 0x01500009, 23
LOCKOUT_COUNTER = 0x20E
GUARDED = 0x81000002
STORAGE = bytes.fromhex("0023000b00030472000000060080004300100003001000000000")
SEALED = bytes.fromhex("0008000b00000052000000100000")
SECRET = b"the secret"
TRIES_MAX = 3
SESSIONS_MAX = 3
PASSWORDS = st.sampled_from([b"right", b"right", b"wrong", b""])
LOCALITIES = st.sampled_from([0, 0, 0, 1, 2, 3, 4])
PCRS = st.one_of(st.sampled_from([0, 7, 16, 17, 19, 20, 21, POLICY_PCR]), st.integers(0, 23))
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
        self.start_pcrs()
        self.objects = {}
        self.sessions = []
        self.nv = {}
        self.failures = 0
        self.guarded_used = False
        self.clock = self.resumes = 0
        self.resets = 1
        self.init_ns = self.healed_ms = 0
        self.private = None
        self.define_by_policy()
        self.keep_guarded()

    def start_pcrs(self, kept=()):
        """Begin the PCRs anew but for some, in every bank."""
        old = getattr(self, "pcrs", {})
        self.pcrs = {
            pcr: old[pcr] if pcr in kept else ONES if pcr in DYNAMIC_PCRS else ZEROS for pcr in range(24)
        }
        self.launched = False

    @property
    def time_ms(self):
        """Time since the last power-on, by the tester's own clock."""
        return (self.tpm.clock.now - self.init_ns) // 1_000_000

    def heal(self):
        """Take back the failures that time has healed."""
        steps = (self.time_ms - self.healed_ms) // RECOVERY_MS
        if self.failures and steps > 0:
            self.healed_ms += steps * RECOVERY_MS
            self.failures = max(0, self.failures - steps)

    def fail(self):
        """Count one wrong value."""
        self.failures = min(self.failures + 1, TRIES_MAX)
        self.healed_ms = self.time_ms

    def keep_guarded(self):
        """Make an object persistent whose value is guarded against guessing."""
        self.create_primary()
        self.load_sealed()
        parent, sealed = sorted(self.objects)
        kept = struct.pack(">I", GUARDED)
        assert self.ask(command(TPM_CC.EvictControl, (OWNER, sealed), kept, (b"",))) == 0
        for handle in (parent, sealed):
            assert self.ask(command(TPM_CC.FlushContext, (), struct.pack(">I", handle))) == 0
        self.objects.clear()

    def define_by_policy(self):
        """Define and write an index that can be read under a policy only: PCR 23 must be as it is at the start."""
        selection = struct.pack(">IHB", 1, SHA256, 3) + (1 << POLICY_PCR).to_bytes(3, "little")
        fixed = struct.pack(">I", TPM_CC.PolicyPCR) + selection + hashlib.sha256(ZEROS).digest()
        policy = hashlib.sha256(ZEROS + fixed).digest()
        attributes = TPMA_NV.POLICYREAD | TPMA_NV.OWNERWRITE | TPMA_NV.NO_DA
        public = struct.pack(">IHI", POLICY_INDEX, SHA256, attributes) + sized(policy) + struct.pack(">H", 6)
        assert self.ask(command(TPM_CC.NV_DefineSpace, (OWNER,), sized(b"") + sized(public), (b"",))) == 0
        written = command(TPM_CC.NV_Write, (OWNER, POLICY_INDEX), sized(b"secret") + b"\0\0", (b"",))
        assert self.ask(written) == 0

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
        if locality in EXTENDABLE.get(pcr, range(5)):
            assert rc == 0
            self.pcrs[pcr] = hashlib.sha256(self.pcrs[pcr] + digest).digest()
        else:
            assert rc == TPM_RC.LOCALITY

    @rule(pcr=PCRS, locality=LOCALITIES)
    def reset_pcr(self, pcr, locality):
        rc = self.ask(command(TPM_CC.PCR_Reset, (pcr,), b"", (b"",)), locality)
        if locality in RESETTABLE.get(pcr, ()):
            assert rc == 0
            self.pcrs[pcr] = ZEROS
        else:
            assert rc == TPM_RC.LOCALITY

    @rule(content=st.binary(max_size=4))
    def launch(self, content):
        """Run the hash sequence that only the processor can: 17 to 22 are cleared, 17 takes the digest."""
        self.tpm.hash_start()
        self.tpm.hash_data(content)
        self.tpm.hash_end()
        for pcr in DYNAMIC_PCRS:
            self.pcrs[pcr] = ZEROS
        self.pcrs[17] = hashlib.sha256(ZEROS + hashlib.sha256(content).digest()).digest()
        self.launched = True
        self.resumes += 1

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

    @rule(password=PASSWORDS)
    def unseal(self, password):
        self.heal()
        rc = self.ask(command(TPM_CC.Unseal, (GUARDED,), b"", (password,)))
        if not self.room:  # a persistent object takes a slot while it is used
            assert rc == TPM_RC.OBJECT_MEMORY
            return
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
            self.fail()

    @precondition(lambda self: self.room and len(self.sessions) < SESSIONS_MAX)
    @rule(password=PASSWORDS, tamper=st.booleans())
    def unseal_by_hmac(self, password, tamper):
        """Unseal under an HMAC session: the right value must have made the HMAC, over this very command."""
        client = SessionClient(self.sending(tamper), Stream(b"client"))
        session = client.start()
        self.heal()
        locked = self.failures >= TRIES_MAX
        try:
            (data,) = client.call(TPM_CC.Unseal, (GUARDED,), auths=(Auth(session=session, value=password),))
        except TpmError as refused:
            rc, data = refused.rc, None
        else:
            rc = 0
        if locked:
            assert rc == TPM_RC.LOCKOUT
        elif tamper or password != b"right":
            assert rc == 0x900 | TPM_RC.AUTH_FAIL
            self.fail()
        else:
            assert (rc, data) == (0, SECRET)
        self.guarded_used = self.guarded_used or not locked
        assert self.ask(command(TPM_CC.FlushContext, (), struct.pack(">I", session.handle))) == 0

    def sending(self, tamper):
        """Return a way to the TPM that may change one bit of the HMAC of an Unseal."""

        def transmit(sent, locality=0):
            if tamper and int.from_bytes(sent[6:10], "big") == TPM_CC.Unseal:
                sent = sent[:-1] + bytes([sent[-1] ^ 1])
            response = self.tpm.execute(sent, locality)
            self.tpm.clock.now += self.tpm.last_latency_ns
            return response

        return transmit

    @rule()
    def end_lockout(self):
        assert self.ask(command(TPM_CC.DictionaryAttackLockReset, (LOCKOUT,), b"", (b"",))) == 0
        self.failures = 0

    @rule(seconds=st.sampled_from([1, 400, 999, 1000, 2500]))
    def wait(self, seconds):
        """Let time pass, which heals."""
        self.tpm.clock.now += seconds * 1_000_000_000

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

    @precondition(lambda self: len(self.sessions) < SESSIONS_MAX)
    @rule(state=st.sampled_from(["whole", "no assertion", "other PCR"]))
    def read_by_policy(self, state):
        """Read under a policy: only if it was asserted, and the PCR is as the policy wants it."""
        client = SessionClient(self.tpm.execute, Stream(b"client"))
        session = client.start(TPM_SE.POLICY)
        pcr = 7 if state == "other PCR" else POLICY_PCR
        if state != "no assertion":
            selection = struct.pack(">IHB", 1, SHA256, 3) + (1 << pcr).to_bytes(3, "little")
            asserted = command(
                TPM_CC.PolicyPCR, (), struct.pack(">I", session.handle) + sized(b"") + selection
            )
            assert self.ask(asserted) == 0
        try:
            auth = (Auth(session=session),)
            (data,) = client.call(TPM_CC.NV_Read, (POLICY_INDEX, POLICY_INDEX), 6, 0, auths=auth)
        except TpmError as refused:
            rc, data = refused.rc, None
        else:
            rc = 0
        if state == "whole" and self.pcrs[POLICY_PCR] == ZEROS:
            assert (rc, data) == (0, b"secret")
        else:
            assert rc == 0x900 | TPM_RC.POLICY_FAIL
        assert self.ask(command(TPM_CC.FlushContext, (), struct.pack(">I", session.handle))) == 0

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

    @rule(orderly=st.booleans(), keep=st.booleans(), restart=st.booleans())
    def power_cycle(self, orderly, keep, restart):
        if orderly:
            assert self.ask(command(TPM_CC.Shutdown, parameters=struct.pack(">H", keep))) == 0
        self.tpm.init()
        self.init_ns = self.tpm.clock.now
        self.healed_ms = 0
        resumes = orderly and keep
        if not resumes:
            assert self.ask(command(TPM_CC.Startup, parameters=struct.pack(">H", 1))) == 0x1C4
        clear = resumes and restart
        assert self.ask(command(TPM_CC.Startup, parameters=struct.pack(">H", resumes and not clear))) == 0
        self.start_pcrs(SAVED_PCRS if resumes and not clear else ())
        self.objects.clear()
        self.sessions.clear()
        if not orderly and self.guarded_used:
            self.failures = min(self.failures + 1, TRIES_MAX)
        self.guarded_used = False
        if resumes:
            self.resumes += 1
        else:
            self.resets, self.resumes = self.resets + 1, 0
        if not orderly:
            self.clock -= min(self.clock, CLOCK_UPDATE_MS)

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
        self.no_pcr_has_changed_by_itself()
        assert set(self.tpm.objects) == set(self.objects)
        assert set(self.tpm.persistent) == {GUARDED}
        assert set(self.tpm.sessions.loaded) == set(self.sessions)
        assert set(self.tpm.nv) == {*self.nv, POLICY_INDEX}
        client = TpmClient(self.tpm.execute)
        self.heal()
        assert client.properties(LOCKOUT_COUNTER, 1) == {LOCKOUT_COUNTER: self.failures}
        time = client.read_clock()
        assert time.time == self.time_ms
        assert (time.clockInfo.resetCount, time.clockInfo.restartCount) == (self.resets, self.resumes)
        assert time.clockInfo.clock >= self.clock
        self.clock = time.clockInfo.clock

    def no_pcr_has_changed_by_itself(self):
        """Compare every PCR of every bank, and what the log beside them explains."""
        assert dict(enumerate(self.tpm.pcrs.values[SHA256])) == self.pcrs
        log = replay(parse(self.tpm.event_log))
        for bank, size in BANK_BYTES.items():
            for pcr, value in enumerate(self.tpm.pcrs.values[bank]):
                if pcr in log[bank]:
                    assert value == log[bank][pcr]
                elif bank != SHA256:
                    assert value in (bytes(size), b"\xff" * size)


TpmMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_the_tpm_and_its_model_agree = TpmMachine.TestCase
