"""One advanced option of ESXi: its default and range in every release.

Models: an option as a name, a unit, a meaning, and the settings it began with in which release.  Leaves out values of
kinds other than integers: the scheduler has none.
"""

from __future__ import annotations

import attrs

__all__ = ["RELEASES", "AdvancedOption", "Setting"]

RELEASES = (
    "6.0",
    "6.5",
    "6.7",
    "6.7U3",
    "7.0",
    "7.0U1",
    "7.0U2",
    "7.0U3",
    "8.0",
    "8.0U3",
    "9.0",
    "9.0.1",
)
"""The releases whose defaults are known: 6.0 U3, 6.5d, 6.7, 6.7 U3, 7.0, 7.0 U1, 7.0 U2, 7.0 U3r, 8.0, 8.0 U3g, 9.0.0, 9.0.1."""


@attrs.frozen
class Setting:
    """From release `since` on: default, least and greatest value; a default of None: the option is gone."""

    since: str
    default: int | None
    low: int = 0
    high: int = 0


@attrs.frozen
class AdvancedOption:
    """An option: `settings` in the order of releases; before the first it did not exist."""

    name: str
    unit: str
    meaning: str
    settings: tuple[Setting, ...]

    def at(self, release: str) -> Setting | None:
        """Return the setting in a release, or None if it does not have the option."""
        index = RELEASES.index(release)
        found = None
        for setting in self.settings:
            if RELEASES.index(setting.since) <= index:
                found = setting
        return None if found is None or found.default is None else found
