"""What does one flipped bit in one driver change?  Three hosts, told one after the other."""

import subprocess
import sys
from pathlib import Path

STORY = {
    "demo.toml": "1. A clean host: signed modules, virtual machines under contention, accepted by vCenter",
    "demo_tampered.toml": "2. The same host with one flipped bit in one driver: Secure Boot refuses it",
    "demo_tampered_nosb.toml": "3. The same flipped bit, Secure Boot off: it boots, and vCenter names the driver",
}


def main():
    folder = Path(__file__).resolve().parent
    endings = []
    for name, heading in STORY.items():
        print(
            "=" * len(heading),
            heading,
            "=" * len(heading),
            f"$ vmksim run examples/{name}",
            "",
            sep="\n",
            flush=True,
        )
        command = [sys.executable, "-m", "sim", "run", str(folder / name)]
        endings.append(subprocess.run(command, check=False).returncode)  # noqa: S603 - our own program
    good = not any(endings)
    print("All three ended as expected." if good else f"Not as expected: exit statuses {endings}.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
