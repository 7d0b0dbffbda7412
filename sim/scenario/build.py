"""The composition root: from a `Scenario` to a machine that is ready to be powered on.

This is the only place that knows all layers: it makes keys and makers, the image, the TPM, the board with its disk and
firmware settings, the host that boots on it, its agent and vCenter.  Faults without a time strike here.

Models nothing by itself.  Leaves out running (`sim.scenario.run`).
"""

from __future__ import annotations

import difflib
import hashlib

from attrs import define, evolve

from sim.attest.policy import AppraisalPolicy, LaunchRule
from sim.boot.bootinfo import BootInfo, TpmFailureRule
from sim.boot.context import BootPolicy
from sim.boot.sequence import BootOutcome, BootSequence
from sim.core.context import Sim
from sim.errors import FormatError, ScenarioError, VerificationError
from sim.hw.board import Board
from sim.image.acceptance import AcceptanceLevel
from sim.image.bitflips import flip_bit
from sim.image.bootcfg import TEXT_CHARS_MAX
from sim.image.catalog import Image, standard_image
from sim.image.efi_lists import encode_signature_lists
from sim.image.install import install
from sim.image.manifest import ReferenceManifest
from sim.image.pathrules import ANYWHERE
from sim.image.pki import Pki
from sim.image.vib import read_vib
from sim.kernel.host import Host
from sim.kernel.options import BOOT_OPTIONS, OPTIONS_MAX, format_kernelopt
from sim.kernel.sched.own_policy import install as install_policy
from sim.scenario.launchwork import install_launcher, provision_policy
from sim.scenario.policies import engagements
from sim.scenario.spec import ExpectSpec, Scenario, VCenterSpec
from sim.scenario.strike import TpmFaultWatch, check_target
from sim.scenario.strike_launch import strike_board
from sim.scenario.strike_revoke import check_signer, strike_revoke
from sim.scenario.world import world_pki, world_tpm_vendor
from sim.tpm.constants import TPM_ALG
from sim.tpm.damaged import DamagedTpm, wake
from sim.tpm.device import Tpm
from sim.tpm.faults import FaultyTpm
from sim.tpm.manufacture import TpmVendor
from sim.tpm.state import snapshot
from sim.vsphere.hostd import HostAgent
from sim.vsphere.vcenter import VCenter

__all__ = ["Machinery", "build"]

_NEAR = 0.8

OPTIONS_CHARS_MAX = TEXT_CHARS_MAX - len("kernelopt=")
"""What fits on the one line of boot.cfg."""


@define(kw_only=True)
class Machinery:
    """Everything that runs in one simulation."""

    sim: Sim
    pki: Pki
    tpm_vendor: TpmVendor
    tpm: Tpm | None
    image: Image
    manifest: ReferenceManifest
    host: Host
    agent: HostAgent
    vcenter: VCenter | None


def build(scenario: Scenario, seed: int) -> Machinery:
    """Put the machine of a scenario together, powered off.

    Errors: `ScenarioError` for what only shows now: a VIB that cannot be installed, a fault whose target is missing.
    """
    if scenario.policy_file is not None:
        install_policy(scenario.policy_file.data, scenario.policy_file.name)
    sim = Sim(seed=seed, epoch=scenario.epoch, categories=scenario.trace.categories)
    pki = world_pki(sim.rng, scenario.epoch)
    vendor = world_tpm_vendor(sim.rng)
    image, manifest = _image(scenario, sim, pki)
    tpm = _tpm(scenario, sim, vendor)
    board = Board(sim, scenario.board_spec, _device(scenario, sim, tpm))
    _install(board, image)
    _set_secure_boot_keys(board, pki)
    manifest = _launch(scenario, seed, board, tpm, manifest)
    for number, fault in enumerate(scenario.faults):
        check_target(fault, number, board)
        check_signer(fault, number, pki)
        if fault.at_ns is None and fault.kind != "revoke":
            strike_board(fault, number, board, scenario.launch)
    host = Host(
        board,
        pki.trust,
        policy=BootPolicy(launch=scenario.launch, tpm_failure=TpmFailureRule(scenario.tpm.on_failure)),
        layout=scenario.kernel.layout.release(),
        sched=scenario.sched,
        mem=scenario.mem,
        sample_every_ns=scenario.trace.sample_every_ns,
        shootdowns=scenario.kernel.shootdowns,
        strict_symbols=scenario.kernel.strict_symbols,
        guests={spec.name: spec for spec in scenario.virtual_machines() if spec.names_code},
    )
    for number, fault in enumerate(scenario.faults):
        if fault.at_ns is None and fault.kind == "revoke":
            strike_revoke(fault, number, host, pki)
    agent = HostAgent(sim, scenario.host.name, host, board.meter)
    vcenter = None
    if scenario.vcenter is not None:
        vcenter = VCenter(
            sim,
            vendor_roots=(vendor.root_certificate_der,),
            manifest=manifest,
            policy=_appraisal(scenario, scenario.vcenter, sim),
            engagements=engagements(scenario.vcenter.engines, sim, manifest, pki.trust, pki.uefi_db),
            verdict_age_ns_max=scenario.vcenter.verdict_age_max_ns,
        )
    return Machinery(
        sim=sim,
        pki=pki,
        tpm_vendor=vendor,
        tpm=None if scenario.tpm_state == "damaged" else tpm,
        image=image,
        manifest=manifest,
        host=host,
        agent=agent,
        vcenter=vcenter,
    )


def _appraisal(scenario: Scenario, spec: VCenterSpec, sim: Sim) -> AppraisalPolicy:
    """Return what vCenter demands; roots and software it puts in itself."""
    return AppraisalPolicy(
        vendor_roots=(),
        manifest=ReferenceManifest(),
        now=sim.epoch,
        launch=LaunchRule(spec.launch),
        launch_generation=scenario.launch.generation,
        require_launch_policy=spec.require_launch_policy,
        allow_resume=spec.allow_resume,
    )


def _launch(
    scenario: Scenario, seed: int, board: Board, tpm: Tpm | None, manifest: ReferenceManifest
) -> ReferenceManifest:
    """Prepare the late launch as the owner would; return what is published, the launcher with it."""
    spec = scenario.launch
    if spec.own_launcher:
        manifest = manifest.merged(install_launcher(board, board.sim.rng))
    if tpm is not None and spec.policy != "none":
        states = ((spec.state_pcrs, golden_digest(scenario, seed)),) if spec.state_pcrs else ()
        provision_policy(board, tpm, spec, states)
    return manifest


def golden_digest(scenario: Scenario, seed: int) -> bytes:
    """Return the digest over the PCRs of the launch policy as a clean boot of the same host leaves them."""
    pcrs = scenario.launch.state_pcrs
    clean = evolve(
        scenario,
        faults=(),
        tpm=evolve(scenario.tpm, faults=()),
        launch=evolve(
            scenario.launch,
            policy="none",
            state_pcrs=(),
            signed=False,
            sinit_version_min=0,
            allow_debug=False,
        ),
        vcenter=None,
        vms=(),
        expect=ExpectSpec(),
    )
    machinery = build(clean, seed)
    board = machinery.host.board
    outcome: list[BootOutcome] = []
    BootSequence(board, machinery.pki.trust, on_done=outcome.append, policy=machinery.host.policy).start()
    machinery.sim.engine.run()
    if machinery.tpm is None or not isinstance(outcome[0], BootInfo):
        raise ScenarioError(
            "launch.state_pcrs", "the host does not boot clean, so that there are no values to pin"
        )
    values = machinery.tpm.pcrs.values[TPM_ALG.SHA256]
    return hashlib.sha256(b"".join(values[pcr] for pcr in pcrs)).digest()


def _image(scenario: Scenario, sim: Sim, pki: Pki) -> tuple[Image, ReferenceManifest]:
    """Return the installed image, and what its makers publish: nobody publishes anything about a community VIB."""
    spec = scenario.image
    level = AcceptanceLevel.from_title(spec.acceptance)
    image = standard_image(
        sim.rng,
        pki,
        epoch=scenario.epoch,
        modules=spec.modules,
        module_bytes=spec.module_size_bytes,
        module_type=spec.module_type,
        kernelopt=kernelopt(scenario),
        host_level=level,
    )
    manifest = image.manifest
    for number, file in enumerate(spec.vibs):
        where = f"image.vibs[{number}]"
        try:
            vib = read_vib(file.data)
            bank = install(image.bank, vib, level, pki.trust, scenario.epoch, paths=ANYWHERE).bank
        except (FormatError, VerificationError) as error:
            raise ScenarioError(where, f"{file.name} is refused: {_one_line(str(error))}") from None
        image = image.with_bank(bank)
        if vib.descriptor.level is not AcceptanceLevel.COMMUNITY_SUPPORTED:
            manifest = manifest.merged(image.manifest)
    return image, manifest


def kernelopt(scenario: Scenario) -> str:
    """Return the kernel options as boot.cfg spells them.

    Errors: `ScenarioError` for a name that is nearly one of those that the simulator acts on, or too many options.
    """
    pairs = []
    lower = {name.lower(): name for name in BOOT_OPTIONS}
    for name, value in scenario.options.items():
        near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=_NEAR)
        if name not in BOOT_OPTIONS and near:
            raise ScenarioError(f"options.{name}", "unknown option", nearest=lower[near[0]])
        pairs.append((name, str(value).upper() if isinstance(value, bool) else str(value)))
    text = format_kernelopt(pairs)
    if len(pairs) > OPTIONS_MAX or len(text) > OPTIONS_CHARS_MAX:
        wanted = f"at most {OPTIONS_MAX} options, in boot.cfg at most {OPTIONS_CHARS_MAX} characters together"
        raise ScenarioError(
            "options", "too many", got=f"{len(pairs)} of {len(text)} characters", wanted=wanted
        )
    return text


def _tpm(scenario: Scenario, sim: Sim, vendor: TpmVendor) -> Tpm | None:
    if scenario.tpm_state == "absent":
        return None
    name = scenario.host.name
    return vendor.make(f"{name}-tpm", sim.rng.child(name).child("tpm0"), clock=sim)


def _device(scenario: Scenario, sim: Sim, tpm: Tpm | None) -> Tpm | FaultyTpm | DamagedTpm | None:
    """Return what goes into the slot: the TPM, behind its faults if the scenario declares any, or what damage left."""
    if tpm is not None and scenario.tpm_state == "damaged":
        stored = snapshot(tpm)
        return wake(flip_bit(stored, sim.rng.stream("tpm0/damage").below(8 * len(stored))), tpm.profile)
    if tpm is None or not scenario.tpm.faults:
        return tpm
    return FaultyTpm(tpm, scenario.tpm.faults, on_fault=TpmFaultWatch(sim).note)


def _install(board: Board, image: Image) -> None:
    """Put the image on the disk, as an installer would."""
    board.disk.volume("esp").copy_from(image.esp.items())
    board.disk.volume("bootbank").copy_from(image.bank.files.items())
    board.disk.volume("store").copy_from(image.archives.items())


def _set_secure_boot_keys(board: Board, pki: Pki) -> None:
    """Enter the platform's keys, as its maker does at the factory."""
    firmware = board.firmware
    firmware.set_variable("PK", encode_signature_lists([pki.platform.certificate_der]))
    firmware.set_variable("KEK", encode_signature_lists([pki.key_exchange.certificate_der]))
    firmware.set_variable("db", encode_signature_lists(pki.uefi_db))
    firmware.set_variable("dbx", b"")


def _one_line(text: str) -> str:
    return " ".join(text.split())
