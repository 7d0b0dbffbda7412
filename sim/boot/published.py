"""What the maker of a board publishes of it when it leaves the factory, for verifiers: code, and Secure Boot keys.

Models: the digests of everything that `sim.boot.firmware` measures of its own code, with the PCRs; the entries of PK, KEK,
db and dbx as they are at that moment.

A model whose firmware writes no code into its log (a virtual machine) demands none.

Leaves out: settings, tables and boot options, which are the host's and not the model's.

Source: TCG PC Client Reference Integrity Manifest Specification 1.04.
"""

from __future__ import annotations

import hashlib

from sim.boot.firmware import CODE_VOLUMES, MICROCODE, OPTION_ROM
from sim.boot.logform import FORMS, version_data
from sim.hw.board import Board
from sim.image.efi_lists import parse_signature_lists
from sim.image.manifest import DIGESTS
from sim.image.platform import ReferenceCode, ReferencePlatform

__all__ = ["published_platform"]


def published_platform(board: Board) -> ReferencePlatform:
    """Return what the maker publishes of a board as it is now."""
    firmware = board.firmware
    spec, volumes = firmware.spec, firmware.volumes
    form = FORMS[spec.log_form]
    keys = {
        name: tuple(entry.data for entry in parse_signature_lists(firmware.variables.get(name, b"")))
        for name in ("PK", "KEK", "db", "dbx")
    }
    return ReferencePlatform(
        model=f"{spec.vendor} {spec.version}",
        code=(
            _code("version", 0, version_data(form, spec)),
            *(_code(name, 0, volumes[name], required=form.code is not None) for name in CODE_VOLUMES),
            _code(MICROCODE, 1, volumes[MICROCODE]),
            _code(OPTION_ROM, 2, volumes[OPTION_ROM], required=False),
        ),
        platform_keys=keys["PK"],
        exchange_keys=keys["KEK"],
        allowed=keys["db"],
        forbidden=keys["dbx"],
    )


def _code(name: str, pcr: int, data: bytes, *, required: bool = True) -> ReferenceCode:
    digests = tuple(hashlib.new(kind, data).digest() for kind in DIGESTS)
    return ReferenceCode(name=name, pcr=pcr, digests=digests, required=required)
