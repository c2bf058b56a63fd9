"""The dispatcher: which function decides which message.

Order of tests (protocol rules 1, 6, 8): a message already recorded is published again, also after the run
ended for good; one whose event is still buffered is held with it; then the message is applied.
"""

from __future__ import annotations

from typing import assert_never

from perdure_core.workflow_engine.control import decide_control, decide_resume, decide_wait
from perdure_core.workflow_engine.decisions import (
    AlreadyRecorded,
    Attached,
    Context,
    Decision,
    SendHistory,
)
from perdure_core.workflow_engine.moves import decide_checked, decide_move
from perdure_core.workflow_engine.outcomes import decide_outcome
from perdure_core.workflow_engine.signals import decide_query, decide_signal, decide_update
from perdure_core.workflow_engine.start import decide_start
from perdure_core.workflow_engine.state import RunState
from perdure_core.workflow_engine.timers import decide_timer
from perdure_core.workflow_engine.turns import decide_completed, decide_failed
from perdure_schemas.messages import (
    ChildOutcome,
    ControlRun,
    GetHistory,
    Message,
    MoveChecked,
    MoveRun,
    QueryRun,
    ResumeRun,
    SendSignal,
    StartWorkflow,
    TaskOutcome,
    TimerFired,
    UpdateRun,
    WaitForResult,
    WorkflowMessage,
    WorkflowTaskCompleted,
    WorkflowTaskFailed,
)


def decide(  # noqa: C901, PLR0912 - one branch per member of a closed union
    state: RunState, message: Message, body: WorkflowMessage, context: Context
) -> Decision:
    """What `message` does to the run. Total and pure: any message in any state has an answer.

    `body` is `message.body`, known to be of this engine's family.
    """
    seq = state.causes.get(message.id)
    if seq is not None:
        return AlreadyRecorded(seq) if seq <= context.committed else Attached()
    match body:
        case WorkflowTaskCompleted():
            return decide_completed(state, message, body, context)
        case TaskOutcome() | ChildOutcome():
            return decide_outcome(state, message, body, context)
        case StartWorkflow():
            return decide_start(state, message, body, context)
        case TimerFired():
            return decide_timer(state, message, body)
        case SendSignal():
            return decide_signal(state, message, body, context)
        case WorkflowTaskFailed():
            return decide_failed(state, message, body, context)
        case UpdateRun():
            return decide_update(state, message, body, context)
        case QueryRun():
            return decide_query(state, message, body)
        case ControlRun():
            return decide_control(state, message, body, context)
        case ResumeRun():
            return decide_resume(state, message, body)
        case MoveRun():
            return decide_move(state, message, body, context)
        case MoveChecked():
            return decide_checked(state, message, body, context)
        case WaitForResult():
            return decide_wait(state, message, body, context)
        case GetHistory():
            return SendHistory()
        case _:
            assert_never(body)
