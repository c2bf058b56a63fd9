"""What a run waits for: any of some groups of its open commands.

Found from the leaves: who has put a callback on a pending Deferred? Our groups, `gather` and `wait` stand for their
members; anything unknown makes the Deferred a leaf. So an asyncio that changes its inside costs turns, never a missed
wake-up: an engine that wakes a run early is always right.

A report costs O(what changed since the last one): only Deferreds whose callbacks changed are looked at, and a group
that the engine knows is named, not listed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from perdure._replay import compat
from perdure._replay.futures import AllOf, Deferred
from perdure_schemas.common import WaitGroup, WaitsFor

Op = Literal["any", "all", "all_or_fail"]

LOOSE_MAX = 16
"""Leaves listed in each report; more of them are put in a named set. 16 ids are 0.5 kB."""
SETS_MAX = 32
"""Named sets of leaves in one report, before they are merged into one."""


class _Group:
    __slots__ = ("members", "op", "owner", "ref")

    def __init__(self, op: Op, owner: asyncio.Future[Any], members: list[Deferred[Any]]) -> None:
        self.op = op
        self.owner = owner
        self.members = members
        self.ref = ""


class _LeafSet:
    """Leaves sent once under a name; the engine strikes out those that end."""

    __slots__ = ("ids", "ref")

    def __init__(self, ids: set[str], ref: str) -> None:
        self.ids = ids
        self.ref = ref


_Kind = tuple[int, Op, asyncio.Future[Any], list[asyncio.Future[Any]] | None]
"""Key, operator, owner and members of a group that a callback belongs to. `None`: those that carry the callback."""


class Waits:
    """Follows what the open commands of one run are waited for by."""

    def __init__(self) -> None:
        self.touched: list[Deferred[Any]] = []
        """Deferreds whose callbacks changed since the last report."""
        self._loose: dict[str, None] = {}
        self._sets: list[_LeafSet] = []
        self._set_of: dict[str, _LeafSet] = {}
        self._groups: dict[int, _Group] = {}
        self._refs = 0
        self._resend = True

    def add_leaf(self, id: str) -> None:
        """A timer: nobody but its owner can wait for it."""
        self._loose[id] = None

    def remove(self, id: str) -> None:
        """It has ended."""
        self._loose.pop(id, None)
        leaves = self._set_of.pop(id, None)
        if leaves is not None:
            leaves.ids.discard(id)

    def resend(self) -> None:
        """The next report lists everything: the engine may hold other groups, or a member was canceled by us."""
        self._resend = True

    def close(self) -> None:
        self.touched.clear()
        self._groups.clear()

    def report(self) -> WaitsFor:
        self._look_again()
        groups: list[WaitGroup] = []
        for key, group in list(self._groups.items()):
            if group.owner.done():
                del self._groups[key]
                continue
            if group.ref and not self._resend:
                groups.append(WaitGroup(group.op, [], group.ref))
                continue
            group.members = [member for member in group.members if not member.done()]
            group.ref = group.ref or self._next_ref()
            groups.append(WaitGroup(group.op, [member.id for member in group.members], group.ref))
        self._report_leaves(groups)
        self._resend = False
        return WaitsFor(groups)

    # --- leaves -------------------------------------------------------------------------------------

    def _report_leaves(self, groups: list[WaitGroup]) -> None:
        self._sets = [leaves for leaves in self._sets if leaves.ids]
        if self._resend or len(self._sets) > SETS_MAX:
            for leaves in self._sets:
                self._loose.update(dict.fromkeys(sorted(leaves.ids)))
            self._sets.clear()
            self._set_of.clear()
        groups.extend(WaitGroup("any", [], leaves.ref) for leaves in self._sets)
        if not self._loose:
            return
        ids = list(self._loose)
        if len(ids) <= LOOSE_MAX:
            groups.append(WaitGroup("any", ids))
            return
        named = _LeafSet(set(ids), self._next_ref())
        self._sets.append(named)
        self._set_of.update(dict.fromkeys(ids, named))
        self._loose.clear()
        groups.append(WaitGroup("any", ids, named.ref))

    def _next_ref(self) -> str:
        self._refs += 1
        return f"g{self._refs}"

    # --- who waits for a Deferred -------------------------------------------------------------------

    def _look_again(self) -> None:
        touched, self.touched = self.touched, []
        refused: set[int] = set()
        for deferred in touched:
            deferred._touched = False
            if deferred.done():
                self.remove(deferred.id)
                self._resend = self._resend or deferred.cancelled()
            elif self._is_leaf(deferred, touched, refused):
                if deferred.id not in self._set_of:
                    self._loose[deferred.id] = None
            else:
                self.remove(deferred.id)

    def _is_leaf(self, deferred: Deferred[Any], touched: list[Deferred[Any]], refused: set[int]) -> bool:
        leaf = deferred._polled
        for callback, _ in compat.callbacks(deferred):
            kind = _group_of(callback)
            leaf = kind is None or not self._accept(kind, callback, touched, refused) or leaf
        return leaf

    def _accept(self, kind: _Kind, callback: Any, touched: list[Deferred[Any]], refused: set[int]) -> bool:
        """Whether the group may stand for its members; looked into once per group."""
        key, op, owner, members = kind
        if key in self._groups:
            return True
        if key in refused:
            return False
        if members is None:
            carriers = [d for d in touched if not d.done() and any(c is callback for c, _ in compat.callbacks(d))]
            count = compat.closure(callback)[1]["counter"].cell_contents
            valid, waiting = len(carriers) == count, carriers
        else:
            waiting = [member for member in members if isinstance(member, Deferred) and not member.done()]
            valid = all(isinstance(member, Deferred) or member.done() for member in members)
        if not valid:
            refused.add(key)
            return False
        self._groups[key] = _Group(op, owner, waiting)
        return True


def _group_of(callback: Any) -> _Kind | None:
    """The group that a callback on a member belongs to; `None` if it is none, or one whose first member wakes it."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, AllOf):
        return id(owner), "all_or_fail", owner, list(owner.members)
    name, cells = compat.closure(callback)
    try:
        if name == "gather.<locals>._done_callback":
            outer: asyncio.Future[Any] = cells["outer"].cell_contents
            op: Op = "all" if cells["return_exceptions"].cell_contents else "all_or_fail"
            return id(outer), op, outer, cells["children"].cell_contents
        if name == "_wait.<locals>._on_completion":
            waiter: asyncio.Future[Any] = cells["waiter"].cell_contents
            return_when = cells["return_when"].cell_contents
            if return_when == asyncio.FIRST_COMPLETED:
                return None
            return id(waiter), "all" if return_when == asyncio.ALL_COMPLETED else "all_or_fail", waiter, None
    except (KeyError, ValueError):  # another inside than we know: a leaf
        return None
    return None
