"""Moving a run to another build, which has to replay its history first."""

from __future__ import annotations

from msgspec import Struct

from perdure_schemas.common import Failure, MoveCheck


class MoveRun(Struct, frozen=True, kw_only=True):
    workflow_id: str
    build: str | None
    reason: str = ""
    actor: str = ""
    run_id: str = ""
    reply_topic: str = ""
    rescue: bool = False
    """Only if the run is stuck."""


class MoveChecked(Struct, frozen=True, kw_only=True):
    """A worker of the build tells whether it can replay the history. All answers to one question have one id."""

    workflow_id: str
    run_id: str
    check: MoveCheck
    failure: Failure | None = None
    """Why it cannot."""
