"""Is a clean host accepted by vCenter?  Five lines find out."""

from pathlib import Path

from sim import Scenario, simulate

scenario = Scenario.load(Path(__file__).with_name("demo.toml"))
result = simulate(scenario)
print(f"boot {result.boot.state}, {len(result.modules)} modules, attestation {result.attestation.status}")
