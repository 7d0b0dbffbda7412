"""The management calls on resource pools and advanced options."""

import pytest

from sim.kernel.api import ApiError

VM = {"name": "a", "memory": "64MiB"}


def refused(machinery, name, params):
    with pytest.raises(ApiError) as caught:
        machinery.host.call(name, params)
    return caught.value


def test_a_pool_is_made_changed_listed_and_removed(machinery):
    host = machinery.host
    host.call("pool.create", {"spec": {"name": "prod", "shares": "high", "reservation": "1GHz"}})
    host.call("pool.create", {"spec": {"name": "inner", "parent": "prod", "scalable": True}})
    host.call("vm.power_on", {"spec": {**VM, "pool": "inner", "cpu": {"reservation": "200MHz"}}})
    rows = {row["name"]: row for row in host.call("pool.list")}
    assert rows["prod"]["shares"] == 8000
    assert rows["prod"]["reservation_used_hz"] == rows["inner"]["reservation_used_hz"] == 200_000_000
    assert rows["inner"]["vms"] == ["a"]
    assert host.call("vm.list")[0]["pool"] == "inner"
    host.call("pool.reconfigure", {"spec": {"name": "inner", "parent": "prod", "limit": "500MHz"}})
    machinery.sim.engine.run(machinery.sim.now + 10**9)
    host.check_invariants()
    assert refused(machinery, "pool.remove", {"name": "inner"}).code == "InvalidState"
    host.call("vm.move", {"name": "a", "pool": ""})
    host.call("pool.remove", {"name": "inner"})
    host.call("pool.remove", {"name": "prod"})
    assert host.call("pool.list") == []


@pytest.mark.parametrize(
    ("name", "params", "code"),
    [
        ("pool.create", {"spec": {"name": "x", "shares": "lots"}}, "InvalidArgument"),
        ("pool.create", {"spec": {"name": "x", "parent": "none"}}, "InvalidState"),
        ("pool.create", {"spec": {"name": "x", "reservation": "500GHz"}}, "InsufficientCpuResourcesFault"),
        ("pool.reconfigure", {"spec": {"name": "none"}}, "InvalidState"),
        ("pool.remove", {"name": ""}, "InvalidState"),
        ("vm.move", {"name": "none", "pool": ""}, "InvalidState"),
        ("vm.power_on", {"spec": {**VM, "pool": "none"}}, "InvalidState"),
        ("host.set_advanced_option", {"key": "Cpu.Quantum", "value": 0}, "InvalidArgument"),
        ("host.set_advanced_option", {"key": "Cpu.Quantom", "value": 5}, "InvalidArgument"),
    ],
)
def test_a_wrong_call_is_refused_and_changes_nothing(machinery, name, params, code):
    before = machinery.host.call("pool.list"), machinery.host.call("vm.list")
    assert refused(machinery, name, params).code == code
    assert (machinery.host.call("pool.list"), machinery.host.call("vm.list")) == before


def test_an_option_acts_at_once_until_the_next_boot(machinery):
    host = machinery.host
    host.call("host.set_advanced_option", {"key": "Cpu.Quantum", "value": 20})
    assert host.kernel.scheduler.options.quantum_ns == 20_000_000
    rows = {row["key"]: row for row in host.call("host.advanced_options")}
    assert (rows["Cpu.Quantum"]["value"], rows["Cpu.Quantum"]["default"]) == (20, 200)
    assert len(rows) == 71
    host.call("host.reboot")
    machinery.sim.engine.run()
    assert host.kernel.scheduler.options.quantum_ns == 200_000_000
