"""What a run waits for, kept so that one outcome costs O(1) however many commands are waited for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from perdure_schemas.common import Outcome, WaitGroup, WaitsFor

COMPLETED: frozenset[Outcome] = frozenset({"completed", "skipped", "fired"})
"""Outcomes that are no failure."""


@dataclass(slots=True)
class _Group:
    op: str
    open_ids: set[str]


@dataclass(slots=True)
class Waits:
    """The any-of groups of the last turn, counted down by `settle`."""

    satisfied: bool = False
    at_once: bool = False
    """The turn said that it goes on, whatever happens: what it issued did not fit into one message."""
    _by_command: dict[str, list[_Group]] = field(default_factory=dict)
    _by_ref: dict[str, _Group] = field(default_factory=dict)

    def settle(self, command_id: str, outcome: Outcome) -> None:
        """A command ended."""
        for group in self._by_command.pop(command_id, ()):
            group.open_ids.discard(command_id)
            if group.op == "any" or not group.open_ids or (group.op == "all_or_fail" and outcome not in COMPLETED):
                self.satisfied = True

    def open_ids(self) -> Iterable[str]:
        """Commands waited for."""
        return self._by_command.keys()

    def replace(self, report: WaitsFor, settled: Mapping[str, Outcome]) -> Waits:
        """The waits after a turn. `settled`: outcomes recorded that the turn had not seen.

        A group sent without ids is the one the previous turn named with the same `ref`.
        """
        after = Waits()
        for wire in report.groups:
            group = self._group(wire)
            if wire.ref:
                after._by_ref[wire.ref] = group
            for command_id in group.open_ids:
                after._by_command.setdefault(command_id, []).append(group)
            if not group.open_ids:
                after.satisfied = True
                after.at_once = after.at_once or not wire.ref
        for command_id, outcome in settled.items():
            after.settle(command_id, outcome)
        return after

    def _group(self, wire: WaitGroup) -> _Group:
        known = self._by_ref.get(wire.ref) if wire.ref and not wire.ids else None
        return known if known is not None else _Group(wire.op, set(wire.ids))
