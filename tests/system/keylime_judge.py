"""Runs in an environment that has keylime: its verifier judges the quote and the log of a host under a measured-boot policy.

Reads a folder with the evidence, the policy in JSON and the nonce; prints what keylime has against it, one line each.
"""

import base64
import json
import sys
from pathlib import Path

from keylime.common.algorithms import Hash
from keylime.mba import mba
from keylime.mba.elchecking import policies, tests
from keylime.tpm.tpm_main import Tpm

POLICY = "simulated-host"
"""As KEYLIME_VERIFIER_MEASURED_BOOT_POLICY_NAME has it."""


class HostPolicy(policies.Policy):
    """Every firmware PCR may hold what it likes; boot loaders and boot modules must have listed digests."""

    def get_relevant_pcrs(self):
        return frozenset({*range(8), 11, 12, 13, 14})

    def refstate_to_test(self, refstate):
        listed = tests.Or(*(tests.DigestTest({"sha256": digest}) for digest in refstate["digests"]))
        dispatcher = tests.Dispatcher(("PCRIndex", "EventType"))
        for pcr, kind in refstate["free"]:
            dispatcher.set((pcr, kind), tests.AcceptAll())
        for pcr, kind in refstate["listed"]:
            dispatcher.set((pcr, kind), listed)
        return tests.FieldTest("events", tests.IterateTest(dispatcher, show_elt=True))


def main(folder):
    mba.load_imports(skip_custom_policies=True)
    policies.register(POLICY, HostPolicy())
    read = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    parts = (base64.b64encode(read[name]).decode() for name in ("quote.bin", "quote.sig", "pcrs.bin"))
    failure = Tpm().check_quote(
        None,
        read["nonce"].decode(),
        None,
        "r" + ":".join(parts),
        base64.b64encode(read["ak.pub"]).decode(),
        mb_measurement_list=read["eventlog.bin"],
        mb_policy=json.dumps(json.loads(read["policy.json"])),
        mb_policy_name=POLICY,
        hash_alg=Hash.SHA256,
        skip_clock_check=True,
        skip_data_pcr_check=True,
    )
    for event in failure.events:
        print(event.event_id, str(event.context)[:300].replace("\n", " "))
    print("refused" if failure else "accepted")


main(Path(sys.argv[1]))
