"""What a person can type for a run that does not go on by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure import convert
from perdure._replay.guard import seeds
from perdure.errors import UnfitSkip
from perdure.failures import FAIL_ON_PURPOSE, of_user
from perdure_core.history import effective
from perdure_core.workflow_engine.effects import child_workflow_id
from perdure_core.workflow_engine.waits import COMPLETED
from perdure_schemas.common import Command
from perdure_schemas.events import CommandSettled, Recorded, RunEnded, Stuck, TurnCommitted
from perdure_schemas.messages import RunChanged

_DOES = frozenset({"task", "child"})


def for_failed(workflow_id: str, history: Sequence[Recorded]) -> str:
    """Of a run that failed; empty where it cannot be resumed any more."""
    in_force = effective(history)
    ended = next((r.event for r in reversed(in_force) if isinstance(r.event, RunEnded)), None)
    if ended is None or not ended.resumable:
        return ""
    resume = f"perdure resume {workflow_id}"
    id = "" if ended.completion is None else ended.completion.command_id
    failed = next((each for each in _failures(in_force) if each.command.id == id), None)
    if failed is None:
        return f"{resume}   once its code is mended"
    command = failed.command
    if done := _done(in_force, failed.seq):
        known = ", ".join(f"{each.name} at {each.position}" for each in done)
        return f"{resume} --anyway   ({known} stays done)   or   perdure reset {workflow_id} --to POSITION --anyway"
    edited = " or ".join([failed.corrected(), *failed.elsewhere()])
    return f"{resume}   (if {command.kind} {command.name} fails again: {edited})"


def for_stuck(run: RunChanged, history: Sequence[Recorded]) -> str:
    id = run.workflow_id
    if position := _unfit_skip(history):
        again = f"--skip {position}=RESULT or --edit {position}='[ARGUMENTS]'"
        return f"perdure resume {id} {again}   or   perdure reset {id} --to POSITION"
    kind, _, message = run.last_error.partition(": ")
    match kind:
        case "WorkflowChangedError" if message.startswith(seeds.STRANGE):
            return (
                "start the worker with PYTHONHASHSEED=0 or, if the history was made under a random seed, with "
                f"PERDURE_GUARD=warn until the run has ended: it goes on by itself;   or   perdure terminate {id}"
            )
        case "WorkflowChangedError":
            return (
                "bring back code that fits what is recorded: the worker loads it, and the run goes on by itself;"
                f"   or   perdure reset {id} --to POSITION   to do anew what follows"
            )
        case "WorkerDied":
            return f"mend what ends the worker, then   perdure resume {id};   or   perdure terminate {id}"
        case _:
            mend = f"mend the code: the worker loads it again and the run goes on; or perdure terminate {id}"
            meant = [FAIL_ON_PURPOSE] if of_user(kind) else []
            return "   or   ".join([mend, *_taking_back(id, effective(history)), *meant])


def _unfit_skip(history: Sequence[Recorded]) -> str:
    """The position of the result given by skip that the run is stuck with; empty: with something else."""
    stuck = next((r.event for r in reversed(effective(history)) if isinstance(r.event, Stuck)), None)
    failure = None if stuck is None else stuck.failure
    while failure is not None and failure.name != UnfitSkip.__name__:
        failure = failure.cause
    if failure is None or failure.details is None:
        return ""
    position: str = convert.decode(failure.details)["position"]
    return position


@dataclass(frozen=True, slots=True)
class _Failed:
    """A task or child that failed, and the seq of its failure."""

    seq: int
    command: Command
    settled: CommandSettled

    def corrected(self) -> str:
        """Options of a resume of the run. A child keeps the arguments it was started with."""
        position = self.command.position
        edit = [f"--edit {position}='[ARGUMENTS]'"] if self.command.kind == "task" else []
        return " or ".join([*edit, f"--skip {position}=RESULT"])

    def elsewhere(self, anyway: str = "") -> list[str]:
        """The command that resumes the child, and this run with it; none: of a task, or of a child that cannot be."""
        failure = self.settled.failure
        began = failure is None or failure.name != "AlreadyStarted"  # else the id is that of another run
        if self.command.kind != "child" or self.settled.outcome != "failed" or not began:
            return []
        return [f"perdure resume {child_workflow_id(self.command)}{anyway} --edit POSITION='[ARGUMENTS]'"]


def _taking_back(workflow_id: str, in_force: Sequence[Recorded]) -> list[str]:
    """What takes back the last failure that the code of a stuck run caught: it may be what it got stuck with."""
    failed = next(iter(reversed(_failures(in_force))), None)
    if failed is None:
        return []
    anyway = " --anyway" if _done(in_force, failed.seq) else ""
    resume = f"perdure resume {workflow_id}{anyway} {failed.corrected()}"
    return [
        f"{resume}   (it has the failure of {failed.command.kind} {failed.command.name})",
        *failed.elsewhere(anyway),
        f"perdure reset {workflow_id} --to {failed.command.position}{anyway}",
    ]


def _failures(in_force: Sequence[Recorded]) -> list[_Failed]:
    """What has failed and was not canceled by the workflow itself, in the order of the history."""
    turns = [r.event for r in in_force if isinstance(r.event, TurnCommitted)]
    issued = [command for turn in turns for command in turn.commands]
    canceled = {command.target for command in issued if command.kind == "cancel"}
    commands = {each.id: each for each in issued if each.kind in _DOES and each.id not in canceled}
    settled = ((r.seq, r.event) for r in in_force if isinstance(r.event, CommandSettled))
    return [
        _Failed(seq, commands[event.command_id], event)
        for seq, event in settled
        if event.command_id in commands and event.outcome not in COMPLETED
    ]


def _done(in_force: Sequence[Recorded], after: int) -> list[Command]:
    """Tasks and children that were issued later and have completed: a plain resume is refused because of them."""
    settled = (r.event for r in in_force)
    completed = {each.command_id for each in settled if isinstance(each, CommandSettled) and each.outcome in COMPLETED}
    turns = (r.event for r in in_force if r.seq > after)
    issued = (command for turn in turns if isinstance(turn, TurnCommitted) for command in turn.commands)
    return [command for command in issued if command.kind in _DOES and command.id in completed]
