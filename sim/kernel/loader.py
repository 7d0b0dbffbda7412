"""The module loader: verifies, places, relocates and maps ELF modules, and keeps the table of what is loaded.

Models: verification of exactly the bytes that are then loaded; placement at a random base; relocations; one mapping
for each segment with that segment's rights, never writable and executable; module ids; refusals with a reason, after
which nothing of the module stays behind; unloading.

A relocatable object (ET_REL) is placed in parts: code, constants and data each at a random base of their own.  A shared
object (ET_DYN) holds references from one of its segments to another that are relative to the instruction pointer, so it
is placed as a whole at one random base: its segments keep their distances, each page has the rights of its own
segment, and unmapped guard pages lie on both sides of the whole.

A symbol that nobody defines is a refusal unless it is weak; a loader made with `strict=False` binds it to address 0,
where nothing is mapped, and lists it.

Leaves out: lazy binding; thread-local storage and programs, which are refused; running the module's code.  Bytes of a
page that belong to no segment are zero.

Sources: System V ABI AMD64 supplement, section 4.4.1 (relocations); vmkernel.log lines of public hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256

from attrs import field, frozen

from sim.core.context import Sim
from sim.core.trace import record
from sim.errors import FormatError, SimBug, VerificationError, VmksimError
from sim.image.acceptance import AcceptanceLevel
from sim.kernel.layout import Layout
from sim.kernel.memory import KernelMemory
from sim.kernel.module_placing import ModuleImage, PlacedModule, place_module, read_kernel_module
from sim.kernel.module_signing import ModuleIdentity, ModuleOrigin, ModuleVerifier
from sim.kernel.segment_buffers import RelocatedSegment, RelocationError

__all__ = ["KERNEL_MODULE_ID", "LoadRefused", "LoadedModule", "LoadedSegment", "ModuleLoader"]

MODULE_LOADED = record(
    "module.loaded",
    module_id=int,
    name=str,
    version=str,
    base=int,
    size_bytes=int,
    provider=str,
    level=str,
    signed=str,
    digest=bytes,
)
MODULE_SEGMENT = record("module.segment", module_id=int, segment=str, base=int, size_bytes=int, rights=str)
MODULE_REFUSED = record("module.refused", name=str, check=str, reason=str)
MODULE_UNLOADED = record("module.unloaded", module_id=int, name=str)

KERNEL_MODULE_ID = 0
MODULES_MAX = 1_024


class LoadRefused(VerificationError):  # noqa: N818 - a refusal is the normal answer here, not an error of ours
    """The loader refused a module; `check` names the rule, the text says why."""


@frozen(kw_only=True)
class LoadedSegment:
    """One mapped segment of a module."""

    name: str
    base: int
    size_bytes: int
    rights: str


@frozen(kw_only=True)
class LoadedModule:
    """A row of the module table; `regions` are the bases that its parts were given, `base` the first of them.

    `digest` is the SHA-256 of the payload that was verified, as its descriptor and the event log have it; that of the
    module's own bytes where nothing was verified.
    """

    module_id: int
    name: str
    version: str
    license: str
    provider: str
    level: str
    signed_status: str
    issuer: str
    fingerprint: str
    vib_id: str
    digest: bytes = field(repr=False)
    base: int
    size_bytes: int
    entry: int
    exit_entry: int = 0
    type: str
    regions: tuple[int, ...]
    segments: tuple[LoadedSegment, ...]
    exports: Mapping[str, int] = field(repr=False)
    uses: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = field(default=(), repr=False)


class ModuleLoader:
    """Loads modules into the kernel's memory.

    With `enforce`, a module that `verifier` refuses is not loaded; without it the refusal is logged and stands in the
    module table as its signed status.  With `strict`, every symbol that is not weak must be defined.
    """

    def __init__(
        self,
        sim: Sim,
        memory: KernelMemory,
        layout: Layout,
        verifier: ModuleVerifier,
        *,
        enforce: bool = True,
        strict: bool = True,
    ) -> None:
        self.enforce = enforce
        self.strict = strict
        self._sim = sim
        self._memory = memory
        self._layout = layout
        self._verifier = verifier
        self._modules: dict[str, LoadedModule] = {}
        self._exports: dict[str, tuple[str, int]] = {}
        """By symbol, the module that exports it, the earliest loaded first, and its address."""
        self._next_id = KERNEL_MODULE_ID + 1

    def load_kernel(self, name: str, data: bytes, *, vib: ModuleOrigin | None) -> LoadedModule:
        """Place and map the kernel image itself as module 0; raises `LoadRefused` when it cannot be mapped.

        An image that does not verify runs all the same and is marked so: to refuse it was up to whoever loaded it.
        """
        identity, status = self._verify(name, data, vib, enforce=False)
        image = self._read(name, data)
        return self._place(name, data, image, identity, status, kind="kernel", module_id=KERNEL_MODULE_ID)

    def load(self, name: str, data: bytes, *, vib: ModuleOrigin | None) -> LoadedModule:
        """Verify and load module `name` from `data`, which came from `vib`; raises `LoadRefused`."""
        data = bytes(data)
        self._log(f"Loading module {name} ...")
        try:
            return self._load(name, data, vib)
        except LoadRefused as refused:
            self._sim.trace.emit(MODULE_REFUSED, name, refused.check, refused.message)
            self._log(f"Mod: Loading module {name} failed: {refused.message}")
            raise

    def unload(self, name: str) -> None:
        """Unmap a module; raises `LoadRefused` while another module uses its symbols.

        Its frames and its addresses are free for others when every processor has forgotten the translations.
        """
        module = self.get(name)
        users = [other.name for other in self._modules.values() if name in other.uses]
        if users or module.module_id == KERNEL_MODULE_ID:
            raise LoadRefused("module.in-use", f"module {name} is in use by {', '.join(users) or 'the host'}")
        del self._modules[name]
        self._exports.clear()
        for each in self._modules.values():
            self._enter_exports(each)
        self._memory.unmap_segments(
            [segment.base for segment in module.segments], done=partial(self._release, module.regions)
        )
        self._sim.trace.emit(MODULE_UNLOADED, module.module_id, name)
        self._log(f"Mod: module {name} with module ID {module.module_id} unloaded.")

    def get(self, name: str) -> LoadedModule:
        """Return the loaded module of that name."""
        if name not in self._modules:
            raise LoadRefused("module.unknown", f"no module {name} is loaded")
        return self._modules[name]

    def modules(self) -> tuple[LoadedModule, ...]:
        """Return the module table in order of module ids."""
        return tuple(self._modules.values())

    def check_invariants(self) -> None:
        """Raise `SimBug` unless the table, the layout and the memory agree."""
        mapped = {segment.base: segment for segment in self._memory.segments()}
        placed = {region.base: region for region in self._layout.regions()}
        for module in self._modules.values():
            sizes = [placed[base].size_bytes for base in module.regions if base in placed]
            if len(sizes) != len(module.regions) or not 0 <= sum(sizes) - module.size_bytes < 4096 * len(
                sizes
            ):
                raise SimBug(f"module {module.name} is not where the layout has it")
            for segment in module.segments:
                if segment.base not in mapped or str(mapped[segment.base].rights) != segment.rights:
                    raise SimBug(
                        f"segment {segment.name} of module {module.name} is not mapped as it should be"
                    )

    # ------------------------------------------------------------------ loading

    def _load(self, name: str, data: bytes, vib: ModuleOrigin | None) -> LoadedModule:
        if name in self._modules:
            raise LoadRefused("module.loaded", f"module {name} is loaded already")
        if len(self._modules) >= MODULES_MAX:
            raise LoadRefused("module.limit", f"more than {MODULES_MAX} modules")
        identity, status = self._verify(name, data, vib, enforce=self.enforce)
        image = self._read(name, data)
        module = self._place(name, data, image, identity, status, kind="module", module_id=self._next_id)
        self._next_id += 1
        self._log(f"Elf: module {name} has license {module.license}")
        if module.unresolved:
            self._log(f"Elf: module {name}: {len(module.unresolved)} symbols are not defined by any module")
        self._log(f"Mod: Initialization of {name} succeeded with module ID {module.module_id}.")
        self._log(f"{name} loaded successfully.")
        return module

    def _verify(
        self, name: str, data: bytes, vib: ModuleOrigin | None, *, enforce: bool
    ) -> tuple[ModuleIdentity, str]:
        """Return who the module is from and its signed status; a refusal counts only if it is enforced."""
        try:
            identity = self._verifier.verify(name, data, vib)
        except (VerificationError, FormatError) as error:
            check = error.check if isinstance(error, VerificationError) else "module.format"
            if enforce:
                raise LoadRefused(check, str(error)) from error
            self._log(f"Mod: module {name} is not verified, loaded all the same: {error}")
            claimed = vib.vib_id if vib is not None else ""
            unproven = ModuleIdentity(
                provider=None, level=AcceptanceLevel.COMMUNITY_SUPPORTED, certified=False, vib_id=claimed
            )
            return unproven, f"Not verified ({check})"
        return identity, identity.signed_status

    @staticmethod
    def _read(name: str, data: bytes) -> ModuleImage:
        try:
            return read_kernel_module(data)
        except FormatError as error:
            raise LoadRefused("module.format", f"{name}: {error}") from error
        except RelocationError as error:
            raise LoadRefused(error.check, f"{name}: {error}") from error

    def _place(
        self,
        name: str,
        data: bytes,
        image: ModuleImage,
        identity: ModuleIdentity,
        status: str,
        *,
        kind: str,
        module_id: int,
    ) -> LoadedModule:
        placed, segments = self._place_and_map(name, image, kind)
        module = LoadedModule(
            module_id=module_id,
            name=name,
            version=image.info("version") or identity.vib_version,
            license=image.info("license") or "unspecified",
            provider=identity.provider or image.info("provider"),
            level=identity.level.title,
            signed_status=status,
            issuer=identity.issuer,
            fingerprint=identity.fingerprint,
            vib_id=identity.vib_id,
            digest=identity.digest or sha256(data).digest(),
            base=placed.base,
            size_bytes=placed.size_bytes,
            entry=placed.entry,
            exit_entry=placed.exit_entry,
            type=image.type,
            regions=placed.regions,
            segments=segments,
            exports=placed.exports,
            uses=placed.providers,
            unresolved=placed.unresolved,
        )
        self._enter(module)
        return module

    def _place_and_map(
        self, name: str, image: ModuleImage, kind: str
    ) -> tuple[PlacedModule, tuple[LoadedSegment, ...]]:
        """Place, relocate and map a module, or refuse it and leave nothing behind."""
        try:
            placed = place_module(self._layout, name, image, self._symbol, kind=kind, strict=self.strict)
            try:
                return placed, self._map(name, placed.segments)
            except VmksimError:
                self._release(placed.regions)
                raise
        except SimBug:
            raise
        except VmksimError as error:
            check = error.check if isinstance(error, RelocationError) else "module.memory"
            raise LoadRefused(check, f"{name}: {error}") from error

    def _release(self, regions: tuple[int, ...]) -> None:
        """Give addresses back, which no processor translates any more."""
        for base in regions:
            self._layout.release(base)

    def _map(self, name: str, segments: tuple[RelocatedSegment, ...]) -> tuple[LoadedSegment, ...]:
        """Map all segments, or none."""
        pieces = [(one.base, one.data, one.rights, one.size_bytes) for one in segments]
        mapped = self._memory.map_segments(pieces, owner=f"module:{name}")
        return tuple(
            [
                LoadedSegment(
                    name=segment.name, base=made.base, size_bytes=made.size_bytes, rights=str(made.rights)
                )
                for segment, made in zip(segments, mapped, strict=True)
            ]
        )

    def _enter(self, module: LoadedModule) -> None:
        self._modules[module.name] = module
        self._enter_exports(module)
        emit = self._sim.trace.emit
        emit(
            MODULE_LOADED,
            module.module_id,
            module.name,
            module.version,
            module.base,
            module.size_bytes,
            module.provider,
            module.level,
            module.signed_status,
            module.digest,
        )
        for segment in module.segments:
            emit(
                MODULE_SEGMENT,
                module.module_id,
                segment.name,
                segment.base,
                segment.size_bytes,
                segment.rights,
            )

    def _symbol(self, name: str) -> tuple[str, int] | None:
        """Return the module that exports `name`, the earliest loaded first, and the symbol's address."""
        return self._exports.get(name)

    def _enter_exports(self, module: LoadedModule) -> None:
        for name, address in module.exports.items():
            self._exports.setdefault(name, (module.name, address))

    def _log(self, text: str) -> None:
        self._sim.log("vmkernel", text)
