"""Mutations of valid TPM commands: no exception, an answer in form, and no change by what was refused.

`python tests/campaigns/tpm_mutations.py --count N --seed S` prints how many commands ended how, and each finding with
its bytes; exit status 1 if there is one.  Commands come from `tpm_commands.Maker`, which lives with one TPM; between
them their mutations run on the same TPM.
"""

import argparse
import pickle
import random
import sys
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tpm_commands import Maker, results_of

from sim.tpm.codec import WireError
from sim.tpm.constants import TPM_CC, TPM_RC
from sim.tpm.device import Tpm
from sim.tpm.profile import TpmProfile
from sim.tpm.tables import COMMANDS

STARTUP = bytes.fromhex("80010000000c000001440000")
MUTATIONS_PER_COMMAND = 5
LIFE_COMMANDS = 200
ANSWER_BYTES_MAX = 4096
MAY_CHANGE = ("locality", "last_latency_ns", "da", "sessions")
"""What a refused command may change: the failure counter, and the nonces of sessions."""
UNLIMITED_TRIES = 2**32 - 1
COMMAND_NAMES = {code.value: code.name for code in TPM_CC}
INTERESTING = (0, 1, 0x7F, 0x80, 0xFF)


def main(arguments=None):
    options = argparse.ArgumentParser(description="mutate valid TPM commands")
    options.add_argument("--count", type=int, default=100_000)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args(arguments)
    campaign = Campaign(chosen.seed)
    campaign.run(chosen.count)
    return campaign.report()


class Campaign:
    """Runs mutations and keeps count."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.maker = Maker(seed)
        self.codes = Counter()
        self.succeeded = set()
        self.findings = {}
        self.mutations = 0
        self.tpm = None

    def run(self, count):
        commands = 0
        while self.mutations < count:
            if commands % LIFE_COMMANDS == 0:
                self.begin()
            command, _ = self.maker.command()
            for _ in range(min(MUTATIONS_PER_COMMAND, count - self.mutations)):
                self.mutations += 1
                self.check(mutated(self.random, command))
            answer = self.check(command)
            if answer is not None:
                self.maker.learn(command, (answer, answer))
            commands += 1

    def begin(self):
        """Give the next commands a new TPM."""
        self.tpm = Tpm(self.random.randbytes(8), TpmProfile(transient_slots=8))
        self.tpm.init()
        self.tpm.execute(STARTUP)
        self.maker.tpm = self.tpm
        self.tpm.da.max_tries = UNLIMITED_TRIES

    def check(self, command):
        """Run a command; note what must not be."""
        before = state(self.tpm)
        locality = self.random.choice((0, 0, 0, 1, 2, 3, 4))
        try:
            answer = self.tpm.execute(command, locality)
            self.tpm.check_invariants()
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno} {where.name}"
            self.find(f"EXCEPTION {type(error).__name__} in {place}", command)
            self.begin()
            return None
        rc = int.from_bytes(answer[6:10], "big")
        well_formed = 10 <= len(answer) <= ANSWER_BYTES_MAX and int.from_bytes(answer[2:6], "big") == len(
            answer
        )
        if not well_formed or (rc and (answer[:2] != b"\x80\x01" or len(answer) != 10)):
            self.find("MALFORMED ANSWER", command)
        if rc and state(self.tpm) != before:
            self.find(f"CHANGED BY A REFUSAL 0x{rc:x} {changes(before, state(self.tpm))}", command)
        if not rc and not readable(command, answer):
            self.find("UNREADABLE RESULTS", command)
            return None
        if not rc:
            self.succeeded.add(int.from_bytes(command[6:10], "big"))
        self.codes[rc] += 1
        return answer

    def find(self, what, command):
        """Keep a finding with the first command that led to it."""
        name = COMMAND_NAMES.get(int.from_bytes(command[6:10], "big"), "no command")
        self.findings.setdefault(f"{name}: {what}", command)

    def report(self):
        for finding, command in self.findings.items():
            print(f"{finding}\n  by {command.hex()}")
        names = ", ".join(sorted(COMMAND_NAMES[code] for code in self.succeeded))
        print(f"commands that succeeded ({len(self.succeeded)}): {names}")
        good = self.codes[TPM_RC.SUCCESS]
        print(
            f"{len(self.codes)} response codes, {good} commands done, {sum(self.codes.values()) - good} refused"
        )
        print(f"{self.mutations} mutations: {len(self.findings)} findings")
        return 1 if self.findings else 0


def mutated(chance, command):
    """Change, cut, add or repeat bytes of a command; mostly its size field is right again."""
    data = bytearray(command)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(data)) if data else 0
        match chance.randrange(5):
            case 0 if data:
                data[at] = chance.choice(INTERESTING)
            case 1 if data:
                data[at] ^= 1 << chance.randrange(8)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = chance.randbytes(chance.randrange(1, 5))
            case 4:
                end = at + chance.randrange(8)
                data[at:at] = data[at:end]
    if chance.random() < 0.9 and len(data) >= 6:
        data[2:6] = len(data).to_bytes(4, "big")
    return bytes(data)


def state(tpm):
    """Everything that a refused command must leave alone, by attribute."""
    return {name: pickle.dumps(value) for name, value in vars(tpm).items() if name not in MAY_CHANGE}


def readable(command, answer):
    """Whether the results of a good answer are what the tables say."""
    try:
        results_of(COMMANDS[int.from_bytes(command[6:10], "big")], answer)
    except WireError:
        return False
    return True


def changes(before, after):
    return ", ".join(name for name in before if before[name] != after[name])


if __name__ == "__main__":
    sys.exit(main())
