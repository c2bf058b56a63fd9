"""What a run waits for: any of some groups of its open commands.

Found from the leaves: who has put a callback on a pending Deferred? Our groups (`gather` gives one) and `wait` stand
for their members; anything unknown makes the Deferred a leaf. So an asyncio that changes its inside costs turns, never
a missed wake-up: an engine that wakes a run early is always right.

A report costs O(what changed since the last one): only Deferreds whose callbacks changed are looked at, and a group
that the engine knows is named, not listed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from perdure._replay import compat
from perdure._replay.futures import Combined, Deferred, Group
from perdure_schemas.common import WaitGroup, WaitsFor

Op = Literal["any", "all", "all_or_fail"]

LOOSE_MAX = 16
"""Leaves listed in each report; more of them are put in a named set. 16 ids are 0.5 kB."""
SETS_MAX = 32
"""Named sets of leaves in one report, before they are merged into one."""


class _Waiting:
    """A group that is waited for, as the engine knows it."""

    __slots__ = ("known", "members", "op", "owner")

    def __init__(self, op: Op, owner: asyncio.Future[Any], members: list[Deferred[Any]]) -> None:
        self.op: Op = op
        self.owner = owner
        self.members = members
        self.known: WaitGroup | None = None
        """What names it once the engine has its members."""


class _LeafSet:
    """Leaves sent once under a name; the engine strikes out those that end."""

    __slots__ = ("ids", "known")

    def __init__(self, ids: set[str], ref: str) -> None:
        self.ids = ids
        self.known = WaitGroup("any", [], ref)


_Kind = tuple[Op, asyncio.Future[Any], Sequence[asyncio.Future[Any]] | int]
"""Operator, owner and members of a group that a callback belongs to. A number: so many that carry the callback."""


class _Look:
    """At the Deferreds touched since the last report."""

    __slots__ = ("_carriers", "_touched", "refused")

    def __init__(self, touched: list[Deferred[Any]]) -> None:
        self._touched = touched
        self._carriers: dict[int, list[Deferred[Any]]] | None = None
        self.refused: set[int] = set()
        """Groups that cannot stand for their members."""

    def carriers(self, callback: Any) -> list[Deferred[Any]]:
        """The open ones among them that have this very callback."""
        if self._carriers is None:
            self._carriers = {}
            for deferred in self._touched:
                if not deferred.done():
                    for each, _ in compat.callbacks(deferred):
                        self._carriers.setdefault(id(each), []).append(deferred)
        return self._carriers[id(callback)]


class Waits:
    """Follows what the open commands of one run are waited for by."""

    def __init__(self) -> None:
        self.touched: list[Deferred[Any]] = []
        """Deferreds whose callbacks changed since the last report."""
        self._loose: dict[str, None] = {}
        self._sets: list[_LeafSet] = []
        self._set_of: dict[str, _LeafSet] = {}
        self._groups: dict[int, _Waiting] = {}
        self._refs = 0
        self._resend = False

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
        """The next report lists everything: the engine holds no groups, or a member was canceled by us."""
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
            if group.known is not None and not self._resend:
                groups.append(group.known)
                continue
            group.members = [member for member in group.members if not member.done()]
            ref = self._next_ref() if group.known is None else group.known.ref
            group.known = WaitGroup(group.op, [], ref)
            groups.append(WaitGroup(group.op, [member.id for member in group.members], ref))
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
        groups.extend([leaves.known for leaves in self._sets])
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
        groups.append(WaitGroup("any", ids, named.known.ref))

    def _next_ref(self) -> str:
        self._refs += 1
        return f"g{self._refs}"

    # --- who waits for a Deferred -------------------------------------------------------------------

    def _look_again(self) -> None:
        touched, self.touched = self.touched, []
        look = _Look(touched)
        for deferred in touched:
            deferred._touched = False
            if deferred.done():
                self.remove(deferred.id)
                self._resend = self._resend or deferred.cancelled()
            elif self._is_leaf(deferred, look):
                if deferred.id not in self._set_of:
                    self._loose[deferred.id] = None
            else:
                self.remove(deferred.id)

    def _is_leaf(self, deferred: Deferred[Any], look: _Look) -> bool:
        leaf = deferred._polled
        for callback, _ in compat.callbacks(deferred):
            owner = getattr(callback, "__self__", None)
            if isinstance(owner, Combined) and owner.done():  # an any_of that another member has won
                continue
            kind = _group_of(callback)
            leaf = kind is None or not self._accept(kind, callback, look) or leaf
        return leaf

    def _accept(self, kind: _Kind, callback: Any, look: _Look) -> bool:
        """Whether the group may stand for its members; looked into once per group."""
        op, owner, members = kind
        key = id(owner)
        if key in self._groups:
            return True
        if key in look.refused:
            return False
        if isinstance(members, int):
            waiting = look.carriers(callback)
            valid = len(waiting) == members
        else:
            waiting = [member for member in members if isinstance(member, Deferred) and not member.done()]
            valid = all(isinstance(member, Deferred) or member.done() for member in members)
        if not valid:
            look.refused.add(key)
            return False
        self._groups[key] = _Waiting(op, owner, waiting)
        return True


def _group_of(callback: Any) -> _Kind | None:
    """The group that a callback on a member belongs to; `None` if it is none, or one whose first member wakes it."""
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, Group):
        return owner.op, owner, owner.members
    name, cells = compat.closure(callback)
    if name != "_wait.<locals>._on_completion":
        return None
    try:
        waiter: asyncio.Future[Any] = cells["waiter"].cell_contents
        return_when = cells["return_when"].cell_contents
        count: int = cells["counter"].cell_contents
    except (KeyError, ValueError):  # another inside than we know: a leaf
        return None
    if return_when == asyncio.FIRST_COMPLETED:
        return None
    return "all" if return_when == asyncio.ALL_COMPLETED else "all_or_fail", waiter, count
