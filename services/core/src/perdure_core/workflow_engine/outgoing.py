"""The one place where the workflow engine makes a message."""

from __future__ import annotations

from perdure_schemas import ids
from perdure_schemas.messages import Body, Message


def outgoing(
    namespace: str, key: str, at: int, body: Body, *identity: str | int, causation_id: str | None = None
) -> Message:
    """`identity`: the parts its id is derived from. Made again from the same parts, it is the same message."""
    return Message(
        id=ids.derive_id(*identity),
        namespace=namespace,
        key=key,
        at=at,
        body=body,
        emitter="workflow-engine",
        causation_id=causation_id,
    )
