"""Random commands of every kind, made from the command tables, get the same codes from swtpm and from the device.

Where an answer's bytes are fixed by the specification they must be the same too; what may differ is listed with its
reason in `tpm_differences.py`.
"""

import importlib.util
import struct
from pathlib import Path

import pytest

from sim.tpm.constants import TPM_CC, TPM_RC, rc_name
from sim.tpm.profile import TpmProfile

from .swtpm_peer import Ours, Peer, code_of
from .tpm_differences import CODES, OWN_BYTES, OWN_LENGTHS

pytestmark = pytest.mark.client

LIVES = 60
LIFE_COMMANDS = 150
REACHED_MIN = 500
SUCCEEDED_MIN = 70
COMMANDS_MIN = 8000
STARTUP = bytes.fromhex("80010000000c000001440000")
NO_LOCKOUT = struct.pack(">HII", 0x8002, 39, TPM_CC.DictionaryAttackParameters) + bytes.fromhex(
    "4000000a00000009400000090000000000ffffffff0000000000000000"
)
NEVER = (TPM_CC.Startup,)


@pytest.fixture(scope="module")
def commands():
    """The generator of commands, shared with the campaign of mutations."""
    path = Path(__file__).resolve().parents[1] / "campaigns" / "tpm_commands.py"
    spec = importlib.util.spec_from_file_location("tpm_commands", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pair:
    """swtpm and the device, both started, both fed the same commands."""

    def __init__(self, program, folder, maker):
        self.peer = Peer(program, folder)
        self.ours = Ours(profile=TpmProfile())
        self.maker = maker
        self.diverged = False
        maker.tpm = self.ours.tpm
        maker.known.clear()
        for command in (STARTUP, NO_LOCKOUT):
            assert code_of(self.peer.execute(command)) == code_of(self.ours.execute(command)) == 0

    def step(self):
        """Run one command on both; return (command's code, swtpm's code, what is wrong or None)."""
        theirs, ours = self.maker.command()
        code = int.from_bytes(ours[6:10], "big")
        if code in NEVER:
            return code, 0, None
        answers = self.peer.execute(theirs), self.ours.execute(ours)
        codes = tuple(map(code_of, answers))
        if codes[0] != codes[1]:
            if (code, *codes) in CODES:
                self.diverged = True
                return code, codes[0], None
            return code, codes[0], f"swtpm {rc_name(codes[0])}, ours {rc_name(codes[1])}: {ours.hex()}"
        if codes[0] == 0 and len(answers[0]) != len(answers[1]) and code not in OWN_LENGTHS:
            return code, 0, f"lengths {len(answers[0])} and {len(answers[1])}: {ours.hex()}"
        if answers[0] != answers[1] and code not in OWN_BYTES:
            return code, 0, f"{answers[0].hex()} and {answers[1].hex()}: {ours.hex()}"
        self.maker.learn(ours, answers)
        return code, codes[0], None


def test_random_commands_of_every_kind_get_the_same_answers(program, tmp_path, commands):
    reached, wrong, count = set(), [], 0
    for life in range(LIVES):
        folder = tmp_path / str(life)
        folder.mkdir()
        pair = Pair(program("swtpm"), folder, commands.Maker(life, rsa_share=0.01))
        try:
            for number in range(LIFE_COMMANDS):
                code, rc, difference = pair.step()
                if rc == TPM_RC.FAILURE:
                    break  # swtpm has put itself into failure mode, and stays there
                count += 1
                reached.add((code, rc))
                if difference is not None:
                    wrong.append(f"life {life}, command {number}, {TPM_CC(code).name}: {difference}")
                if difference is not None or pair.diverged:
                    break
        finally:
            pair.peer.close()
    assert wrong == [], "\n".join(each[:300] for each in wrong)
    assert count > COMMANDS_MIN
    assert len(reached) > REACHED_MIN
    assert len({code for code, rc in reached if rc == 0}) > SUCCEEDED_MIN
