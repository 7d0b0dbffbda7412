"""Checks that may be switched off unnoticed, as `ablation` names them, each with its reason.

Models: a second line of defence, or a check that saves time alone.  Whatever stands here, another check refuses too, or
it changes no outcome.
Leaves out: checks that only lack a test.
"""

__all__ = ["REDUNDANT"]

REDUNDANT: dict[str, str] = {
    "sim/attest/offline.py: _Work.run: without self.survey is not None in require_secure_boot and self.survey is not None and (not self.survey.authorities)": (
        "without a survey, the refusal before it ends the appraisal; the types need the words"
    ),
    "sim/image/der.py: elements: without not bounded in not bounded and len(found) == ELEMENTS_MAX": (
        "data so short cannot hold that many elements; the word saves counting them"
    ),
    "sim/image/payload.py: _stored_content: without end < len(_HEADER) in end < len(_HEADER) or not data.startswith(_HEADER)": (
        "a file so short ends before its first block does, which the next check finds"
    ),
    "sim/image/payload.py: _stored_content: return None #2": (
        "a head of a block that reaches into the trailer puts the end of its block behind the end of all blocks, and that is refused"
    ),
    "sim/image/payload.py: _stored_content: without at > end in last > 1 or size ^ complement != _STORED_BYTES_MAX or at > end": (
        "behind the end no head of a further block fits, and a last block that does not end there is refused"
    ),
}
