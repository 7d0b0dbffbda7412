"""Derived objects: templates with label and context, and the source of their secrets.

Models: CreateLoaded's template in both forms, and the KDFa stream of a derivation parent.
Leaves out: everything that created and derived objects have in common (`sim.tpm.creation`).
Sources: TPM 2.0 Library part 1, chapter 28 "Object Derivation"; part 3, 12.9 "CreateLoaded".
"""

from __future__ import annotations

import attrs

from sim.tpm.codec import WireError, codec_of
from sim.tpm.constants import TPM_ALG, TPM_RC, TPMA_OBJECT
from sim.tpm.creation import DerivedSource
from sim.tpm.keys import LoadedObject
from sim.tpm.refusal import RefusedError, in_parameter
from sim.tpm.wire import TPMS_ECC_POINT, TPMS_SCHEME_XOR, TPMT_KEYEDHASH_SCHEME, TPMT_PUBLIC
from sim.tpm.wire.private import TPMS_DERIVE, TPMT_TEMPLATE_DERIVED

__all__ = ["derived_source", "read_template"]

_SENSITIVE = 1


def read_template(
    data: bytes, sensitive_data: bytes, *, derived: bool, number: int
) -> tuple[TPMT_PUBLIC, TPMS_DERIVE | None]:
    """Read a template; under a derivation parent also label and context, which the sensitive data complete."""
    codec = TPMT_TEMPLATE_DERIVED if derived else codec_of(TPMT_PUBLIC)
    try:
        template, after = codec.decode(data, 0, len(data))
    except WireError as wrong:
        raise in_parameter(wrong.rc, number) from None
    if after != len(data):
        raise in_parameter(TPM_RC.SIZE, number)
    if not derived:
        return template, None
    if template.type == TPM_ALG.RSA:
        raise in_parameter(TPM_RC.TYPE, number)
    if template.objectAttributes & TPMA_OBJECT.sensitiveDataOrigin:
        raise RefusedError(TPM_RC.ATTRIBUTES)
    label = _label(template.unique, sensitive_data)
    blank = TPMS_ECC_POINT(x=b"", y=b"") if template.type == TPM_ALG.ECC else b""
    return attrs.evolve(template, unique=blank), label


def _label(given: TPMS_DERIVE, sensitive_data: bytes) -> TPMS_DERIVE:
    if not sensitive_data:
        return given
    try:
        other = TPMS_DERIVE.decode(sensitive_data)
    except WireError as wrong:
        raise in_parameter(wrong.rc, _SENSITIVE) from None
    return TPMS_DERIVE(label=given.label or other.label, context=given.context or other.context)


def derived_source(parent: LoadedObject, label: TPMS_DERIVE) -> DerivedSource:
    """Return the stream of a derivation parent under label and context."""
    scheme = parent.public.parameters
    assert isinstance(scheme, TPMT_KEYEDHASH_SCHEME)
    assert isinstance(scheme.details, TPMS_SCHEME_XOR)
    return DerivedSource(scheme.details.hashAlg, parent.private, label.label, label.context)
