"""Policy engines: what third parties make of a host's evidence, beside the verifier's own verdict.

`case.py` is the protocol: a case in, a decision out.  Three engines ship with it; a user's own needs a `name` and a
`decide`.
"""

from sim.attest.engines.allow_list import AllowListEngine
from sim.attest.engines.case import Case, Decision, Finding, PolicyEngine
from sim.attest.engines.seal import SealEngine
from sim.attest.engines.signer import SignerEngine

__all__ = [
    "AllowListEngine",
    "Case",
    "Decision",
    "Finding",
    "PolicyEngine",
    "SealEngine",
    "SignerEngine",
]
