"""A scenario is played on swtpm and on the device by one client; what each step answers must be the same.

With VMKSIM_RECORD=1 what swtpm answers is also written down, for `test_tpm_recorded` to compare without swtpm.
"""

import json
import os
from pathlib import Path

from sim.core.rng import Stream
from sim.tpm.client import TpmError
from sim.tpm.client_sessions import SessionClient
from sim.tpm.constants import TPM_CC, TPM_RH, TPMA_SESSION
from sim.tpm.wire import TPMS_SENSITIVE_CREATE

from .swtpm_peer import Ours, Peer, command

OWNER, ENDORSEMENT = TPM_RH.OWNER.value, TPM_RH.ENDORSEMENT.value
PLATFORM, LOCKOUT, NULL = TPM_RH.PLATFORM.value, TPM_RH.LOCKOUT.value, TPM_RH.NULL.value
CONTINUE = TPMA_SESSION.continueSession.value
DECRYPT = TPMA_SESSION.decrypt.value
ENCRYPT = TPMA_SESSION.encrypt.value
AUDIT = TPMA_SESSION.audit.value
EXCLUSIVE = TPMA_SESSION.auditExclusive.value
RESET = TPMA_SESSION.auditReset.value
RECORDS = Path(__file__).with_name("recorded")
NO_SECRETS = TPMS_SENSITIVE_CREATE(userAuth=b"", data=b"")


class Play:
    """One run of a scenario: each step is noted as (label, response code, what the step shows)."""

    def __init__(self, tpm):
        self.tpm = tpm
        self.client = SessionClient(self._transmit, Stream(b"client"))
        self.steps = []
        self.last_response = b""
        tpm.execute(command(TPM_CC.Startup, (), bytes(2)))

    def _transmit(self, sent, locality=0):
        self.last_response = self.tpm.execute(sent)
        return self.last_response

    def do(self, label, action, *arguments, show=None, **named):
        """Run a step; return its result, None if it was refused."""
        try:
            result = action(*arguments, **named)
        except TpmError as refused:
            self.steps.append((label, hex(refused.rc), None))
            return None
        self.steps.append((label, "0x0", show(result) if show is not None else None))
        return result

    def call(self, label, code, *arguments, **named):
        """Run a command as a step."""
        return self.do(f"{label} {code.name}", self.client.call, code, *arguments, **named)

    def raw(self, label, sent):
        """Send bytes as a step; the whole response is compared."""
        self.steps.append((label, self.tpm.execute(sent).hex(), None))

    def start(self, label="start", *arguments, **named):
        """Begin a session as a step; its handle is compared."""
        return self.do(label, self.client.start, *arguments, show=lambda made: hex(made.handle), **named)

    def flush(self, *sessions):
        """End sessions."""
        for session in sessions:
            if session is not None:
                self.call("end", TPM_CC.FlushContext, (), session.handle)

    def digest(self, session):
        """Show the policy digest of a session."""
        self.call("digest", TPM_CC.PolicyGetDigest, (session.handle,), show=lambda result: result[0].hex())


def compare(program, folder, scenario, name):
    """Play a scenario on both and return the steps that differ, and how many there were."""
    peer, ours = Peer(program("swtpm"), folder), Ours()
    try:
        plays = [Play(peer), Play(ours)]
        for play in plays:
            scenario(play)
    finally:
        peer.close()
    theirs, mine = (play.steps for play in plays)
    if os.environ.get("VMKSIM_RECORD") == "1":
        (RECORDS / f"{name}.txt").write_text("".join(map(_line, theirs)), encoding="ascii")
    differing = [
        (number, one, other)
        for number, (one, other) in enumerate(zip(theirs, mine, strict=False))
        if one != other
    ]
    assert len(theirs) == len(mine), differing[:3]
    return differing, len(theirs)


def _line(step):
    """What was answered in one step: the code or the response, and what it shows, if it does."""
    _, answered, shown = step
    return f"{answered}\n" if shown is None else f"{answered} {json.dumps(shown)}\n"


def compare_with_record(scenario, name):
    """Play a scenario on the device alone; return the steps that differ from those written down, and their number."""
    lines = (RECORDS / f"{name}.txt").read_text(encoding="ascii").splitlines(keepends=True)
    play = Play(Ours())
    scenario(play)
    assert len(lines) == len(play.steps)
    differing = [pair for pair in zip(lines, play.steps, strict=True) if pair[0] != _line(pair[1])]
    return differing, len(lines)


def response_attributes(play):
    """Return the session attributes of the last response, which had one session and a digest of 32 bytes."""
    return hex(play.last_response[-35])
