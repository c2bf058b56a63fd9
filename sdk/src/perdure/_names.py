"""Names and ids: they become parts of topics and of derived ids, so what they may contain is checked at the edge."""

from __future__ import annotations

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,199}", re.ASCII)
"""A name becomes part of a topic; 200 leaves room for the prefix within what brokers allow."""
ID_CHARS_MAX = 400
"""Of a workflow id: it is a key of tables and topics, and stands in every message of its run."""


def is_name(name: str) -> bool:
    """Whether it can name a task, workflow or channel."""
    return _NAME.fullmatch(name) is not None


def check_workflow_id(workflow_id: str) -> str:
    """The id itself.

    Raises:
        ValueError: it is empty, too long, or has control characters.
    """
    if not workflow_id or len(workflow_id) > ID_CHARS_MAX or not workflow_id.isprintable():
        raise ValueError(
            f"a workflow id is 1 to {ID_CHARS_MAX} printable characters; this one is {workflow_id[:80]!r}"
            f" of {len(workflow_id)}"
        )
    return workflow_id
