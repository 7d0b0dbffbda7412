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
    "sim/kernel/module_signing.py: ImageModuleVerifier._check_payload: without checksum.algorithm == 'sha-256' in checksum.algorithm == 'sha-256' and checksum.digest == digest": (
        "a descriptor is read with digests of the length of their kind alone, so that of another kind never equals"
    ),
    "sim/image/der.py: elements: without not bounded in not bounded and len(found) == ELEMENTS_MAX": (
        "data so short cannot hold that many elements; the word saves counting them"
    ),
}
