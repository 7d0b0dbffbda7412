"""What of a boot's log a way out of S3 extends once more."""

import pytest

from sim.boot.resume import kept_measurements
from sim.tpm.constants import TPM_ALG
from sim.tpm.eventlog import EV, event_record, spec_id_record
from sim.tpm.tagged import EsxTag, encode_tagged

CODE = encode_tagged(EsxTag.MOD, b"launcher\0")
OPTIONS = encode_tagged(EsxTag.CMD_OPT, b"a=1\0")


@pytest.mark.parametrize(
    ("pcr", "data", "kept"),
    [(17, CODE, False), (17, OPTIONS, True), (18, CODE, True), (17, b"no frame", True), (16, OPTIONS, False)],
)
def test_all_that_launched_code_measured_is_kept_but_the_code_itself(pcr, data, kept):
    banks = (TPM_ALG.SHA256.value,)
    log = spec_id_record(banks) + event_record(pcr, EV.EVENT_TAG, {banks[0]: bytes(32)}, data)
    assert [event.data for event in kept_measurements(log)] == [data] * kept
