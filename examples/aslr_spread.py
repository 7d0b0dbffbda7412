"""Does one boot tell an attacker where the kernel and its modules lie in the next?  16 boots say."""

from attrs import evolve

from sim import Scenario, simulate
from sim.scenario.run import boot_only
from sim.scenario.spec import ImageSpec

BOOTS = 16
scenario = boot_only(Scenario(name="aslr", image=ImageSpec(modules=4, module_size_bytes=2048)))
places: dict[str, list[int]] = {}
for seed in range(BOOTS):
    for module in simulate(evolve(scenario, seed=seed)).modules:
        places.setdefault(module.name, []).append(module.base)

print(f"{BOOTS} boots        distinct places     lowest            highest           same as first boot")
for name, bases in places.items():
    again = bases[1:].count(bases[0])
    print(f"{name:<15} {len(set(bases)):>15}     {min(bases):#016x}    {max(bases):#016x}    {again:>18}")
