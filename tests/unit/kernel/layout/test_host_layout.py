"""The layout of a booted host: guards that fault through the MMU, new addresses at every boot and reload, profiles."""

import pytest
from attrs import evolve

from sim.hw.mmu import Access, Kind, PageFault
from sim.kernel.layout import RELEASES
from sim.kernel.layout.spec import KernelSpec, LayoutSpec
from sim.scenario.build import build
from sim.scenario.spec import ImageSpec, Scenario


def spaces_of(machinery):
    kernel = machinery.host.kernel
    yield kernel.layout, kernel.memory
    for world in kernel.user_worlds.running.values():
        yield world.layout, world.memory


def test_the_guards_of_every_region_of_kernel_and_agents_fault(machinery):
    regions = 0
    for layout, memory in spaces_of(machinery):
        for region in layout.regions():
            for outside in (region.base - 1, region.base - region.guard_bytes, region.end):
                for kind, code in ((Kind.READ, 0), (Kind.WRITE, 2), (Kind.FETCH, 16)):
                    fault = memory.space.translate(outside, Access(kind))
                    assert isinstance(fault, PageFault)
                    assert (fault.error_code, fault.cr2) == (code, outside)
            regions += 1
    assert regions > 10


def test_nothing_is_mapped_outside_the_regions_of_its_layout(machinery):
    for layout, memory in spaces_of(machinery):
        for segment in memory.segments():
            assert any(
                region.base <= segment.base and segment.end <= region.end for region in layout.regions()
            )


def test_kernel_and_agents_never_use_the_same_addresses(machinery):
    (kernel, _), *others = spaces_of(machinery)
    for layout, _memory in others:
        for region in layout.regions():
            assert all(region.end <= one.base or one.end <= region.base for one in kernel.regions())


def test_an_agent_has_its_arguments_on_the_stack_above_a_stack_pointer_with_an_offset_of_its_own(machinery):
    offsets = set()
    for name, world in machinery.host.kernel.user_worlds.running.items():
        _, pointer, arguments = world.places
        (stack,) = [region for region in world.layout.regions() if region.kind == "stack"]
        assert stack.base < pointer.address < arguments.address < stack.end
        assert pointer.address % 16 == 0
        assert pointer.spread.min_entropy_bits == 30.0
        path = f"bin/{name}".encode() + b"\0"
        assert world.memory.space.load(arguments.address, len(path), Access(Kind.READ, user=True)) == path
        offsets.add(stack.end - pointer.address)
    assert len(offsets) == len(machinery.host.kernel.user_worlds.running)


def test_an_agents_vdso_executes_and_its_stacks_do_not(machinery):
    for world in machinery.host.kernel.user_worlds.running.values():
        rights = {
            region.kind: world.memory.space.mapping_at(region.base).rights
            for region in world.layout.regions()
            if region.kind in ("vdso", "stack", "thread-stack", "heap")
        }
        assert {kind: str(each) for kind, each in rights.items()} == {
            "vdso": "r-xu",
            "stack": "rw-u",
            "thread-stack": "rw-u",
            "heap": "rw-u",
        }


def addresses(machinery):
    return [region.base for layout, _ in spaces_of(machinery) for region in layout.regions()]


def test_a_reboot_places_everything_anew(machinery):
    before = addresses(machinery)
    machinery.host.reboot()
    machinery.sim.engine.run()
    after = addresses(machinery)
    assert len(after) == len(before)
    assert sum(one == two for one, two in zip(before, after, strict=True)) == 0


def boot(profile, seed, **bits):
    scenario = Scenario(
        image=ImageSpec(modules=2, module_size_bytes=2048),
        kernel=KernelSpec(layout=LayoutSpec(profile=profile, **bits)),
    )
    host = evolve(scenario.host, memory_bytes=4 << 30, cpu=evolve(scenario.host.cpu, cores_per_node=1))
    machinery = build(evolve(scenario, host=host), seed)
    machinery.host.power_on()
    machinery.sim.engine.run()
    machinery.host.check_invariants()
    return machinery


@pytest.mark.parametrize("profile", RELEASES)
def test_a_host_boots_under_every_profile(profile):
    machinery = boot(profile, 3)
    base = RELEASES[profile].kernel.window("kernel").base
    assert base <= machinery.host.kernel.loader.get("vmkernel").base < base + (1 << 30)
    world = machinery.host.kernel.user_worlds.running["hostd"]
    window = RELEASES[profile].user.window("exe")
    (program,) = [region for region in world.layout.regions() if region.kind == "exe"]
    assert window.base <= program.base < window.end


def test_without_randomness_two_seeds_give_one_layout_and_with_it_two():
    assert addresses(boot("none", 1)) == addresses(boot("none", 2))
    one, two = addresses(boot("esxi-8.x", 1)), addresses(boot("esxi-8.x", 2))
    assert all(low != high for low, high in zip(one, two, strict=True))


def test_the_bits_of_a_scenario_reach_the_agents():
    machinery = boot("esxi-8.x", 1, exe_bits=0, mmap_bits=0, stack_bits=3)
    world = machinery.host.kernel.user_worlds.running["hostd"]
    kinds = {region.kind: region for region in world.layout.regions()}
    assert kinds["exe"].base == RELEASES["esxi-8.x"].user.window("exe").base
    assert kinds["library"].places == 1
    assert kinds["stack"].places == 8


def test_the_layout_is_part_of_a_scenarios_id():
    plain = Scenario()
    other = Scenario(kernel=KernelSpec(layout=LayoutSpec(profile="esxi-7.x")))
    assert plain.id != other.id
