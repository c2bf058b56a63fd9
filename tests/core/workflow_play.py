"""Runs made of random steps through the real core: what hypotheses about the workflow engine are tested on.

A `Play` is one workflow id with a worker, a task engine, clients and people of whom each step draws one to do
something that it could do in that state: the worker answers a turn it was asked for (also one long out of date),
a task that was dispatched ends, somebody resumes a failed run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from hypothesis import strategies as st
from msgspec.structs import replace

from perdure_core.history import effective
from perdure_schemas.common import (
    NULL,
    Address,
    ClosePolicy,
    Command,
    CommandKind,
    Completion,
    CompletionStatus,
    ContinueAsNew,
    MoveCheck,
    Outcome,
    Payload,
    Query,
    ReusePolicy,
    WaitGroup,
    WaitsFor,
)
from perdure_schemas.events import Edit, SignalReceived, TurnCommitted
from perdure_schemas.messages import (
    ChildOutcome,
    ControlAction,
    ControlRun,
    GetHistory,
    Message,
    MoveChecked,
    MoveRun,
    QueryRun,
    ResumeRun,
    RunWorkflowTask,
    SendSignal,
    TaskOutcome,
    TimerFired,
    TimerKind,
    UpdateRun,
    WaitForResult,
    WorkflowMessage,
)
from tests.core.workflow_case import FAILURE, WORKFLOW_ID, Case, Reaction, completed, failed, start

_KINDS: Sequence[CommandKind] = ("task", "task", "child", "timer", "signal", "inline", "task", "attributes")
_OUTCOMES: Sequence[Outcome] = ("completed", "completed", "failed", "canceled", "timed-out")
_CONTROLS: Sequence[ControlAction] = ("cancel", "pause", "unpause", "unpause", "terminate")
_TIMERS: Sequence[TimerKind] = ("turn", "run-timeout", "retention", "retention")
_STATUSES: Sequence[CompletionStatus] = ("completed", "failed", "failed", "canceled", "continued-as-new")
_OPS: Sequence[Literal["any", "all", "all_or_fail"]] = ("any", "all", "all_or_fail")
_POLICIES: Sequence[ClosePolicy] = ("abandon", "cancel", "terminate")
INBOX = "inbox.client"

Draws = tuple[int, int, int]
Step = tuple[str, Draws]


class Play:
    """`do` makes one step; `sent` is every message in the order of its first delivery."""

    def __init__(self) -> None:
        self.case = Case()
        self.sent: list[Message] = []
        self.asked: list[RunWorkflowTask] = []
        self.checks: list[MoveCheck] = []
        self.numbers: dict[str, int] = {}
        self.starts = 0

    def do(self, step: Step) -> Reaction | None:
        """`None`: in this state nobody would do that."""
        message = self.prepared(step)
        return None if message is None else self.deliver(message, hold=step[0].startswith("held "))

    def prepared(self, step: Step) -> Message | None:
        """The message of that step, not delivered."""
        name, draws = step
        body = STEPS[name.removeprefix("held ")](self, draws)
        return None if body is None else self.case.message(body)

    def deliver(self, message: Message, *, hold: bool = False) -> Reaction:
        reaction = self.case.deliver(message, hold=hold)
        self.sent.append(message)
        tasks = reaction.sent(RunWorkflowTask)
        self.asked += [asked for asked in tasks if not asked.queries and asked.check is None]
        self.checks += [asked.check for asked in tasks if asked.check is not None]
        return reaction


# --- client and people ---


def start_some(play: Play, draws: Draws) -> WorkflowMessage:
    play.starts += 1
    policy = ("fail", "use-existing", "terminate-existing")[draws[0] % 3]
    reuse: ReusePolicy = ("always", "always", "after-failure", "never")[draws[2] % 4]
    return start(run_id=f"r{play.starts - draws[1] % 2}", conflict_policy=policy, reuse_policy=reuse)


def signal(play: Play, draws: Draws) -> WorkflowMessage:
    sender = f"s{draws[0] % 2}"
    number = play.numbers.get(sender, 0) + 1
    play.numbers[sender] = number
    after = number - 1 if draws[1] % 2 else 0
    payload = Payload("json", str(number).encode())
    return SendSignal(
        workflow_id=WORKFLOW_ID, channel="c", payload=payload, sender=sender, number=number, after_number=after
    )


def update(play: Play, draws: Draws) -> WorkflowMessage:
    return UpdateRun(workflow_id=WORKFLOW_ID, update_id=f"u{draws[0] % 5}", name="add", args=NULL, reply_topic=INBOX)


def ask(play: Play, draws: Draws) -> WorkflowMessage:
    if draws[0] % 3 == 0:
        query = Query(query_id="q", name="total", args=NULL, reply_to=Address(INBOX, ""))
        return QueryRun(workflow_id=WORKFLOW_ID, query=query)
    if draws[0] % 3 == 1:
        return GetHistory(workflow_id=WORKFLOW_ID, run_id="", after_seq=0, up_to=0, reply_topic=INBOX)
    run_id = ("", "r1", "r2")[draws[1] % 3]
    return WaitForResult(workflow_id=WORKFLOW_ID, run_id=run_id, reply_topic=INBOX)


def control(play: Play, draws: Draws) -> WorkflowMessage:
    action = _CONTROLS[draws[0] % len(_CONTROLS)]
    return ControlRun(workflow_id=WORKFLOW_ID, action=action, reply_topic=INBOX)


def _edits(play: Play, draws: Draws) -> list[Edit]:
    edits: list[Edit] = []
    if draws[1] % 3 and play.case.state.commands:
        edits.append(Edit(position=_command(play, draws[2]).position, args=NULL))
    if draws[1] % 3 == 2:
        edits = [replace(edit, args=None, result=NULL) for edit in edits]
    return edits


def resume(play: Play, draws: Draws) -> WorkflowMessage:
    return ResumeRun(workflow_id=WORKFLOW_ID, edits=_edits(play, draws), anyway=draws[0] % 2 == 1, reply_topic=INBOX)


def reset(play: Play, draws: Draws) -> WorkflowMessage:
    position = f"{draws[0] % 3}.{draws[1] % 2}"
    edits, anyway = _edits(play, draws), draws[2] % 2 == 1
    return ResumeRun(workflow_id=WORKFLOW_ID, position=position, edits=edits, anyway=anyway, reply_topic=INBOX)


def move(play: Play, draws: Draws) -> WorkflowMessage:
    return MoveRun(workflow_id=WORKFLOW_ID, build=f"b{draws[0] % 2}", reply_topic=INBOX)


# --- worker ---


def checked(play: Play, draws: Draws) -> WorkflowMessage | None:
    """The answer to any check ever asked for."""
    if not play.checks:
        return None
    check = play.checks[draws[0] % len(play.checks)]
    failure = FAILURE if draws[1] % 4 == 0 else None
    return MoveChecked(workflow_id=WORKFLOW_ID, run_id=play.case.state.run_id, check=check, failure=failure)


def turn(play: Play, draws: Draws) -> WorkflowMessage | None:
    """The last turn asked for. Positions count up; what a dropped turn issued there is adopted."""
    if not play.asked or play.case.state.started is None:
        return None
    asked = play.case.asked()
    turns = sum(isinstance(recorded.event, TurnCommitted) for recorded in effective(play.case.history))
    adoptable = {command.position: command for command in asked.adoptable}
    commands = [_issue(play, f"{turns}.{index}", adoptable, draws) for index in range(draws[0] % 4)]
    commands += _side_commands(play, f"{turns}.cancel", draws)
    return _answer(play, asked, commands, draws)


def _issue(play: Play, position: str, adoptable: dict[str, Command], draws: Draws) -> Command:
    old = adoptable.get(position)
    if old is not None and draws[1] % 3:
        return old
    kind = _KINDS[(int(position[-1]) + draws[2]) % len(_KINDS)]
    extra: dict[str, object] = {"target": "order-2"} if kind == "signal" else {}
    if kind == "timer":
        extra = {"due_at": play.case.now + 10_000}
    if kind == "child":
        extra = {"close_policy": _POLICIES[draws[1] % 3], "child_id": "kid" if draws[0] % 2 else ""}
    return play.case.command(position, kind, **extra)


def _side_commands(play: Play, position: str, draws: Draws) -> list[Command]:
    state = play.case.state
    commands = []
    still_open = [id for id, command in state.commands.items() if command.settled is None]
    if still_open and draws[1] % 5 == 0:
        commands.append(play.case.command(position, "cancel", target=still_open[draws[2] % len(still_open)]))
    for update_id, topic in state.updates.items():
        if draws[1] % 2:
            commands.append(
                play.case.command(f"u.{update_id}", "update-result", target=update_id, name=topic, args=NULL)
            )
    return commands


def _answer(play: Play, asked: RunWorkflowTask, commands: list[Command], draws: Draws) -> WorkflowMessage:
    known = {id for id, command in play.case.state.commands.items() if command.settled is None}
    open_ids = sorted(known | {command.id for command in commands if command.kind in ("task", "child", "timer")})
    op = _OPS[draws[1] % 3]
    waits = WaitsFor(groups=[WaitGroup(op=op, ids=open_ids)] if open_ids else [])
    return completed(asked, commands, waits=waits)


def end(play: Play, draws: Draws) -> WorkflowMessage | None:
    if not play.asked or play.case.state.started is None:
        return None
    asked = play.case.asked()
    command_id = _command(play, draws[1]).id if play.case.state.commands else ""
    status = _STATUSES[draws[0] % 5]
    completion = Completion(status="failed", failure=FAILURE, command_id=command_id)
    if status == "continued-as-new":
        signals = [r.seq for r in play.case.history if isinstance(r.event, SignalReceived)]
        following = ContinueAsNew(name="order", args=NULL, unreceived=signals[draws[1] % 2 :])
        completion = Completion(status="continued-as-new", next_run=following)
    elif status != "failed":
        completion = Completion(status=status, result=NULL)
    return completed(asked, completion=completion)


def stale_turn(play: Play, draws: Draws) -> WorkflowMessage | None:
    """The answer to any turn ever asked for."""
    if not play.asked:
        return None
    asked = play.asked[draws[0] % len(play.asked)]
    return completed(asked, [play.case.command(f"stale{play.starts}")]) if draws[1] % 2 else failed(asked)


def fail_turn(play: Play, draws: Draws) -> WorkflowMessage | None:
    if not play.asked or play.case.state.started is None:
        return None
    failure = replace(FAILURE, message=f"bug {draws[0] % 2}")
    return failed(play.case.asked(), failure, attempt=1 + draws[1] % 3)


# --- outcomes and timers ---


def _command(play: Play, draw: int) -> Command:
    """A command in force, or one of a dropped turn."""
    state = play.case.state
    known = [c.command for c in state.commands.values()] + [o.command for o in state.orphans.values()]
    return known[draw % len(known)] if known else Command(id="none", position="none", kind="task")


def outcome(play: Play, draws: Draws) -> WorkflowMessage:
    state, command = play.case.state, _command(play, draws[0])
    outcome = _OUTCOMES[draws[1] % len(_OUTCOMES)]
    run_id = state.run_id
    if command.kind == "timer":
        return TimerFired(workflow_id=WORKFLOW_ID, run_id=run_id, kind="command", command_id=command.id)
    result = Payload("json", str(draws[2] % 3).encode()) if outcome == "completed" else None
    failure = None if outcome == "completed" else FAILURE
    generation = max(0, state.generation - draws[2] % 2)
    if command.kind == "child":
        return ChildOutcome(
            workflow_id=WORKFLOW_ID,
            run_id=run_id,
            command_id=command.id,
            generation=generation,
            outcome=outcome,
            result=result,
            failure=failure,
        )
    return TaskOutcome(
        workflow_id=WORKFLOW_ID,
        run_id=run_id,
        command_id=command.id,
        generation=generation,
        attempt=1,
        outcome=outcome,
        result=result,
        failure=failure,
    )


def timer(play: Play, draws: Draws) -> WorkflowMessage:
    kind = _TIMERS[draws[0] % len(_TIMERS)]
    state = play.case.state
    due_at = state.ended_at + 8 * 24 * 3_600_000 if kind == "retention" else play.case.now
    return TimerFired(
        workflow_id=WORKFLOW_ID,
        run_id=state.run_id,
        kind=kind,
        generation=max(0, state.generation - draws[1] % 2),
        attempt=2,
        due_at=due_at,
    )


STEPS: dict[str, Callable[[Play, Draws], WorkflowMessage | None]] = {
    "start": start_some,
    "turn": turn,
    "end": end,
    "stale turn": stale_turn,
    "fail turn": fail_turn,
    "outcome": outcome,
    "timer": timer,
    "signal": signal,
    "update": update,
    "ask": ask,
    "control": control,
    "resume": resume,
    "reset": reset,
    "move": move,
    "checked": checked,
}

_WEIGHTED: Sequence[str] = [
    *["turn"] * 6,
    *["outcome", "held outcome"] * 3,
    *["signal", "held signal", "update", "held update", "end", "end", "resume", "resume"],
    *["start", "stale turn", "fail turn", "timer", "ask", "control", "reset", "move", "checked", "start"],
]


def steps(*, max_size: int = 25) -> st.SearchStrategy[list[Step]]:
    """Steps of a play; most plays begin with a run that has had a turn, or that has failed and was resumed."""
    draws = st.tuples(*[st.integers(0, 59)] * 3)
    step = st.tuples(st.sampled_from(_WEIGHTED), draws)
    return st.builds(
        lambda opening, rest: [*opening, *rest], st.sampled_from(_OPENINGS), st.lists(step, max_size=max_size)
    )


_BEGUN: list[Step] = [("start", (0, 0, 0)), ("turn", (3, 1, 0))]
_FAILED: list[Step] = [*_BEGUN, ("outcome", (0, 2, 0)), ("turn", (3, 1, 0)), ("end", (1, 0, 0))]
_OPENINGS: Sequence[list[Step]] = [[], _BEGUN, _FAILED, [*_FAILED, ("resume", (0, 0, 0))]]


def played(made: Sequence[Step]) -> Play:
    """The play after these steps."""
    play = Play()
    for step in made:
        play.do(step)
    return play
