"""What the rows about images share: archives made for attacks, and how a refusal is demanded and measured."""

import gzip
import time
import tracemalloc
from datetime import timedelta
from hashlib import sha256

import pytest

from sim.errors import FormatError, VerificationError
from sim.image.acceptance import AcceptanceLevel
from sim.image.ar import ArMember, read_ar, write_ar
from sim.image.descriptor_writer import write_descriptor
from sim.image.metadata import Checksum, Descriptor, PayloadEntry

COMMUNITY, PARTNER, ACCEPTED, CERTIFIED = AcceptanceLevel
DAY = timedelta(days=1)


def refused(check, call, *arguments, **options):
    """Call, demand a refusal by that check (a format error where it is None), and return its text."""
    kind = FormatError if check is None else VerificationError
    with pytest.raises(kind) as caught:
        call(*arguments, **options)
    if check is not None:
        assert caught.value.check == check, str(caught.value)
    return str(caught.value)


def measured(call):
    """Return what a call returns, with the seconds of CPU that it took and the most memory that it held."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        result = call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return result, time.process_time() - begun, peak


def cheap(check, call, *arguments):
    """Like `refused`, and it must cost less than a second and 64 MiB."""
    text, seconds, peak = measured(lambda: refused(check, call, *arguments))
    assert seconds < 1
    assert peak < 64 << 20
    return text


def packed(content):
    return gzip.compress(content, mtime=0)


def members(data):
    return {member.name: member.data for member in read_ar(data)}


def archive_of(parts):
    return write_ar([ArMember(name=name, data=data) for name, data in parts.items()])


def as_vib(payloads):
    """An archive with these packed payloads; size and checksum of each stored file are right, of the content not."""
    entries = []
    for name, data in payloads.items():
        stored = Checksum(algorithm="sha-256", digest=sha256(data).digest())
        content = Checksum(algorithm="sha-256", digest=bytes(32), process="gunzip")
        entries.append(PayloadEntry(name=name, kind="vgz", size=len(data), checksums=(stored, content)))
    spec = Descriptor(name="bomb", version="1-1", vendor="E", level=COMMUNITY, payloads=tuple(entries))
    return archive_of({"descriptor.xml": write_descriptor(spec), "sig.pkcs7": b"", **payloads})
