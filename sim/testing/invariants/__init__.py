"""The 22 invariants of memory protection and memory management, one function each.

| number | claim | function |
|---|---|---|
| 1 | a translation is what a walk gives | `check_translation_agrees` |
| 2 | no stale grant after a shootdown | `check_no_stale_grant` |
| 3 | fewer rights never grant more | `check_monotone_rights` |
| 4 | W^X, for pages and for frames | `check_write_xor_execute` |
| 5 | one owner writes a frame | `check_exclusive_writable` |
| 6 | counts are numbers of leaves | `check_reverse_map` |
| 7 | frames and pages are conserved | `check_conservation` |
| 8 | a new page reads zeros | `check_scrubbed` |
| 9 | copy on write | `check_copy_on_write` |
| 10 | only equal pages share | `check_share_only_equals` |
| 11 | reservation is a floor | `check_reservation_floor` |
| 12 | limit is a ceiling | `check_limit_ceiling` |
| 13 | shares and idle tax | `check_shares` |
| 14 | reclamation states | `check_state_machine` |
| 15 | compression and swap keep bytes | `check_compression` |
| 16 | accessed and dirty bits | `check_accessed_dirty` |
| 17 | placement | `check_layout` |
| 18 | large pages are their pieces | `check_large_page_equivalence` |
| 19 | nested translation composes | `check_ept_composition` |
| 20 | a guest is isolated | `check_isolation` |
| 21 | operations are local | `check_locality` |
| 22 | determinism | `check_determinism` |

Each raises `InvariantViolation`, whose text names the state, and is otherwise silent.  All of them take values or
functions, and none knows our implementation: hand them those of yours.
"""

from sim.testing.invariants.accounts import (
    check_compression,
    check_limit_ceiling,
    check_reservation_floor,
    check_shares,
    check_state_machine,
)
from sim.testing.invariants.frames import (
    check_conservation,
    check_copy_on_write,
    check_exclusive_writable,
    check_locality,
    check_no_stale_grant,
    check_reverse_map,
    check_scrubbed,
    check_share_only_equals,
    check_write_xor_execute,
)
from sim.testing.invariants.runs import PlacedRegion, check_determinism, check_layout
from sim.testing.invariants.steps import check_step
from sim.testing.invariants.translation import (
    NestedOutcome,
    check_accessed_dirty,
    check_ept_composition,
    check_isolation,
    check_large_page_equivalence,
    check_monotone_rights,
    check_translation_agrees,
    violation_qualification,
)
from sim.testing.invariants.violation import InvariantViolation

__all__ = [
    "InvariantViolation",
    "NestedOutcome",
    "PlacedRegion",
    "check_accessed_dirty",
    "check_compression",
    "check_conservation",
    "check_copy_on_write",
    "check_determinism",
    "check_ept_composition",
    "check_exclusive_writable",
    "check_isolation",
    "check_large_page_equivalence",
    "check_layout",
    "check_limit_ceiling",
    "check_locality",
    "check_monotone_rights",
    "check_no_stale_grant",
    "check_reservation_floor",
    "check_reverse_map",
    "check_scrubbed",
    "check_share_only_equals",
    "check_shares",
    "check_state_machine",
    "check_step",
    "check_translation_agrees",
    "check_write_xor_execute",
    "violation_qualification",
]
