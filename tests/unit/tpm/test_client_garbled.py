"""Claims about the client when a TPM answers well-formed nonsense: one error, and it ends."""

import pytest

from sim.errors import FormatError
from sim.tpm.client import TpmClient
from sim.tpm.constants import TPM_ALG
from sim.tpm.device import Tpm
from sim.tpm.nv import factory_index

INDEX = 0x01C90000


class Liar:
    """A TPM whose answers to one command are replaced."""

    def __init__(self, code, answer):
        self.tpm = Tpm(b"a TPM that lies")
        self.tpm.provision_nv(factory_index(INDEX, b"x" * 1500))
        self.code = code
        self.answer = answer
        self.asked = 0

    def transmit(self, command, *, locality=0):
        if int.from_bytes(command[6:10], "big") == self.code:
            self.asked += 1
            assert self.asked < 20, "the client asks for ever"
            return self.answer
        return self.tpm.execute(command, locality)


def started(code, answer):
    liar = Liar(code, answer)
    client = TpmClient(liar.transmit)
    client.startup()
    return client


def response(body, tag=0x8001):
    return tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + bytes(4) + body


@pytest.mark.parametrize("chunk", [b"", b"y" * 1030])
def test_an_nv_read_of_too_little_or_too_much_is_refused(chunk):
    parameters = len(chunk).to_bytes(2, "big") + chunk
    body = len(parameters).to_bytes(4, "big") + parameters + b"\0\0\1\0\0"
    with pytest.raises(FormatError):
        started(0x14E, response(body, 0x8002)).nv_read(INDEX)


@pytest.mark.parametrize(
    "body",
    [
        # update counter, one selection of SHA-256 with PCR 0, and no value
        "00000014" + "00000001" + "000b03010000" + "00000000",
        # PCR 5, which nobody asked for, with a value
        "00000014" + "00000001" + "000b03200000" + "00000001" + "0020" + "00" * 32,
        # a bank that nobody asked for
        "00000014" + "00000001" + "000403010000" + "00000001" + "0014" + "00" * 20,
        # no selection but a value
        "00000014" + "00000000" + "00000001" + "0020" + "00" * 32,
    ],
)
def test_pcr_values_that_were_not_asked_for_are_refused(body):
    with pytest.raises(FormatError, match="other PCRs"):
        started(0x17E, response(bytes.fromhex(body))).pcr_read({TPM_ALG.SHA256: (0,)})
