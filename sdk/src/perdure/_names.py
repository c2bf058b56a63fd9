"""Names and ids: they become parts of topics and of derived ids, so what they may contain is checked at the edge."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,199}", re.ASCII)
"""A name becomes part of a topic; 200 leaves room for the prefix within what brokers allow."""
ID_CHARS_MAX = 400
"""Of a workflow id: it is a key of tables and topics, and stands in every message of its run."""


def is_name(name: str) -> bool:
    """Whether it can name a task, workflow or channel."""
    return _NAME.fullmatch(name) is not None


def check_text(text: str, what: str) -> str:
    """The text itself. It goes into messages, which hold no other type and no half of a surrogate pair.

    Raises:
        TypeError: it is no str.
        ValueError: it has no UTF-8 form.
    """
    if not isinstance(text, str):
        raise TypeError(f"{what} must be a str, not {text!r:.80}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} must be text that has a UTF-8 form: {error}") from None
    return text


def checked_tags(tags: Iterable[str]) -> list[str]:
    """
    Raises:
        TypeError: they are no collection of str, or one str, which would be a tag per letter.
        ValueError: one has no UTF-8 form.
    """
    if isinstance(tags, str):
        raise TypeError(f"tags must be a list of str, such as [{tags!r:.80}]")
    return [check_text(tag, "a tag") for tag in tags]


def check_workflow_id(workflow_id: str) -> str:
    """The id itself.

    Raises:
        TypeError: it is no str.
        ValueError: it is empty, too long, has control characters, or would lead to another path in a URL.
    """
    check_text(workflow_id, "id")
    if not workflow_id or len(workflow_id) > ID_CHARS_MAX or not workflow_id.isprintable():
        raise ValueError(
            f"a workflow id is 1 to {ID_CHARS_MAX} printable characters; this one is {workflow_id[:80]!r}"
            f" of {len(workflow_id)}"
        )
    if workflow_id in {".", ".."}:  # clients and proxies take them out of a path, escaped or not
        raise ValueError(f"a workflow id must not be {workflow_id!r}: no URL can name it")
    return workflow_id
