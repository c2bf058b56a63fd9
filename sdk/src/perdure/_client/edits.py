"""What a person corrects at a resume or reset: other arguments, or a result, for the task or child at a position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from perdure import convert
from perdure._given import check_kind
from perdure.errors import SerializationError
from perdure.signature import Signature, check_result
from perdure_schemas.events import Edit, Recorded, TurnCommitted

if TYPE_CHECKING:
    from perdure.registry import Registry


def edits_of(edits: Mapping[str, Sequence[Any]], skips: Mapping[str, Any]) -> list[Edit]:
    """As the engine takes them.

    Raises:
        TypeError: they are no dicts, a position is no str, or arguments are no list.
        ValueError: a position is empty.
        SerializationError: a value has no JSON form.
    """
    check_kind(edits, Mapping, "edits", "a dict of arguments by position, such as {'4': [1]}")
    check_kind(skips, Mapping, "skips", "a dict of results by position, such as {'4': 1}")
    for position, args in edits.items():
        check_position(position)
        if isinstance(args, str | bytes) or not isinstance(args, Sequence):
            raise TypeError(f"edit {position}: the arguments must be a list, all of them, not {args!r:.80}")
    for position in skips:
        check_position(position)
    changed = [Edit(position=p, args=convert.encode(list(a), what=f"edit {p}")) for p, a in edits.items()]
    return changed + [Edit(position=p, result=convert.encode(r, what=f"skip {p}")) for p, r in skips.items()]


def check_position(position: object) -> None:
    """
    Raises:
        TypeError: it is no str.
        ValueError: it is empty.
    """
    if not isinstance(position, str):
        raise TypeError(f"a position must be a str, such as '4' or '2.1', not {position!r:.80}")
    if not position:  # to an engine a reset to nowhere is a resume
        raise ValueError("a position must not be empty: it is one such as '4' or '2.1'")


def signatures_at(history: Sequence[Recorded], registry: Registry) -> dict[str, Signature]:
    """By position, of the tasks and children issued there that the registry has."""
    known = {
        "task": {name: task.signature for name, task in registry.tasks.items()},
        "child": {name: workflow.signature for name, workflow in registry.workflows.items()},
    }
    turns = (recorded.event for recorded in history if isinstance(recorded.event, TurnCommitted))
    commands = (command for turn in turns for command in turn.commands if command.kind in known)
    return {each.position: known[each.kind][each.name] for each in commands if each.name in known[each.kind]}


def check(edits: Sequence[Edit], signatures: Mapping[str, Signature]) -> None:
    """At positions that are not known here the engine, or the worker, says what is wrong.

    Raises:
        SerializationError: arguments that the task or child does not take, or a result that it does not return.
    """
    for edit in edits:
        signature = signatures.get(edit.position)
        if signature is None:
            continue
        try:
            if edit.args is not None:
                signature.check(edit.args)
            if edit.result is not None:
                check_result(signature, edit.result)
        except SerializationError as error:
            what = "skip" if edit.args is None else "edit"
            raise SerializationError(f"{what} {edit.position}: {error}") from error
