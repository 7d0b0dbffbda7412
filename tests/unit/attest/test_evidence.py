"""The bundle of evidence and its one JSON form."""

import json
import pickle

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.attest.evidence import (
    EVENT_LOG_BYTES_MAX,
    Evidence,
    check_sizes,
    evidence_from_json,
    evidence_to_json,
)
from sim.errors import FormatError, LimitError


def evidence(**changes):
    bundle = Evidence(
        ek_public=b"key",
        ek_certificate_der=b"",
        ak_public=b"key",
        credential_blob=b"credential",
        encrypted_secret=b"seed",
        activated_secret=b"secret",
        attest=b"quote",
        signature=b"\xff",
        pcr_values={"sha256": {7: bytes(32), 0: b"\x01" * 32}, "sha1": {}},
        event_log=b"log",
    )
    return attrs.evolve(bundle, **changes)


def document(**changes):
    return json.dumps(
        json.loads(evidence_to_json(evidence())) | changes, sort_keys=True, separators=(",", ":")
    ).encode()


def test_json_and_back_is_the_same_evidence():
    assert evidence_from_json(evidence_to_json(evidence())) == evidence()
    assert pickle.loads(pickle.dumps(evidence())) == evidence()


def test_the_values_do_not_change_when_their_source_does():
    values = {"sha256": {0: bytes(32)}}
    bundle = evidence(pcr_values=values)
    values["sha256"][0] = b"\xff" * 32
    assert bundle.pcr_values == {"sha256": {0: bytes(32)}}


def test_only_the_canonical_form_is_read():
    good = evidence_to_json(evidence())
    for other in (
        good.replace(b":", b": ", 1),
        good + b"\n",
        good.replace(b"ff", b"FF"),
        json.dumps(dict(reversed(json.loads(good).items())), separators=(",", ":")).encode(),
        good.replace(b'"ek_certificate_der":"",', b'"ek_certificate_der":"","ek_certificate_der":"",'),
    ):
        assert other != good
        with pytest.raises(FormatError):
            evidence_from_json(other)


@pytest.mark.parametrize("data", [
    b"", b"{}", b"[]", b"null", b"\xff", b'{"a":' * 100_000, b"1" * 5000,
    document(extra=1), document(attest=None), document(attest="0"), document(attest="zz"), document(attest="0\u0661"),
    document(log_truncated=0), document(pcr_values=[]), document(pcr_values={"sha256": []}),
    document(pcr_values={"sha256": {"24": "00" * 32}}), document(pcr_values={"sha256": {"0": "00" * 32}}),
    document(pcr_values={"sha256": {"00": "00"}}), document(pcr_values={"md5": {"00": "00" * 16}}),
    document(pcr_values={"\ud800": {}}),
    document(attest="00" * 8193), document(event_log="00" * (EVENT_LOG_BYTES_MAX + 1)),
])  # fmt: skip
def test_what_is_no_evidence_is_refused(data):
    with pytest.raises(FormatError):
        evidence_from_json(data)


def test_oversized_parts_pass_a_limit():
    for changes in ({"attest": bytes(8193)}, {"event_log": bytes(EVENT_LOG_BYTES_MAX + 1)}):
        with pytest.raises(LimitError):
            check_sizes(evidence(**changes))
    with pytest.raises(LimitError):
        evidence_from_json(b" " * (10 << 20))


@given(st.binary(max_size=100))
def test_random_bytes_are_refused(data):
    with pytest.raises(FormatError):
        evidence_from_json(data)
