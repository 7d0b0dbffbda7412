"""What does one flipped bit in one driver change?  Three hosts, told one after the other."""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

STORY = {
    "demo.toml": "1. A clean host: signed modules, virtual machines under contention, accepted by vCenter",
    "demo_tampered.toml": "2. The same host with one flipped bit in one driver: Secure Boot refuses it",
    "demo_tampered_nosb.toml": "3. The same flipped bit, Secure Boot off: it boots, and vCenter names the driver",
}


def headed(title, line):
    print(line * len(title), title, line * len(title), sep="\n", flush=True)


def run(name, out):
    """Run a scenario, let it print its report, and return its exit status and its result."""
    print(f"$ vmksim run examples/{name}\n", flush=True)
    scenario = Path(__file__).resolve().parent / name
    command = [sys.executable, "-m", "sim", "run", str(scenario), "--out", out]
    status = subprocess.run(command, check=False).returncode  # noqa: S603 - our own program
    return status, json.loads((Path(out) / "result.json").read_text())


def main():
    endings, rows = [], []
    for name, heading in STORY.items():
        headed(heading, "=")
        with TemporaryDirectory() as out:
            status, result = run(name, out)
        endings.append(status)
        verdict = result["attestation"]["status"] if result["boot"]["state"] == "ok" else "-"
        switch = "on" if result["boot"]["secure_boot"] else "off"
        rows.append((result["boot"]["state"], verdict, switch, result["pcrs"]["sha256"]["13"][:16]))
    headed("What to take from it: PCR 13 measures the drivers, and one bit changes it", "=")
    print("   SECURE BOOT  BOOT     VCENTER      PCR 13 (sha256)")
    for number, (boot, verdict, switch, pcr) in enumerate(rows, 1):
        print(f"{number}. {switch:<11}  {boot:<7}  {verdict:<11}  {pcr}...")
    good = not any(endings)
    print("All three ended as expected." if good else f"Not as expected: exit statuses {endings}.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
