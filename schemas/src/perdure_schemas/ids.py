"""Derived ids: repeating a replay, a commit or a publish gives the same ids, so it changes nothing."""

from __future__ import annotations

from hashlib import blake2b

_SEPARATOR = "\x1f"
"""Cannot stand in an id or name (they are checked at the edge), so no two part lists join alike."""


def derive_id(*parts: str | int) -> str:
    """32 hex digits, a function of `parts` alone."""
    return blake2b(_SEPARATOR.join(map(str, parts)).encode(), digest_size=16).hexdigest()


def command_id(  # noqa: PLR0917  # the parts of an address, from the widest to the narrowest
    namespace: str, workflow_id: str, run_id: str, generation: int, position: str
) -> str:
    """The id of the command at `position`, first issued after `generation` rewinds.

    It is also the task's, the timer's, or the child command's id.
    """
    return derive_id(namespace, workflow_id, run_id, generation, position)


def attempt_id(task_id: str, generation: int, attempt: int) -> str:
    """The id of one attempt of a task; a redelivered attempt keeps it."""
    return derive_id(task_id, "attempt", generation, attempt)


def workflow_task_id(base_hash: str, generation: int) -> str:
    """The id of the decision turn on the history that ends with `base_hash`."""
    return derive_id("turn", base_hash, generation)


def chain_start(run_id: str) -> str:
    """The hash before a run's first event."""
    return derive_id("chain", run_id)


def chain_next(previous: str, kind: str, cause: str, digest: bytes) -> str:
    """The hash after one more event; its identity is its kind, its cause and a digest of its payload."""
    state = blake2b(previous.encode(), digest_size=16)
    state.update(f"\x1f{kind}\x1f{cause}\x1f".encode())
    state.update(digest)
    return state.hexdigest()
