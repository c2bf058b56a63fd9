"""What people do to a run that has failed, or gone wrong: resume, reset, skip, edit; and what must come of it."""

from __future__ import annotations

import asyncio
import random

from perdure import convert
from perdure_schemas import topics
from perdure_schemas.events import CommandSettled, Edit
from perdure_schemas.messages import CommandReply, RunResult, TaskOutcome
from tests.simulation import app
from tests.simulation.app import Stage
from tests.simulation.client import Client, Run
from tests.simulation.workloads import Script, completed, describe, expect, gave_up


async def failed(client: Client, run: Run) -> RunResult:
    """Wait until the run has failed, for want of the service that is out of order."""
    ended = await client.result(run)
    expect(ended.status, "failed")
    return ended


async def resumed(client: Client, run: Run, *allowed: object, generation: int = 1, unanswered: bool = False) -> None:
    """Repair the service and resume until the run completes; it may fail again where workers die too often.

    `unanswered`: an attempt that asked the service before the repair may have been under way at the first resume.
    """
    Stage.repaired.add("bank")
    for attempt in range(3):
        reply = await client.resume(run, reason="repaired")
        expect(reply.status, "ok")
        generation = max(generation, reply.generation)
        ended = await client.result(run, generation)
        late = unanswered and attempt == 0 and ended.status == "failed"
        if not (late or gave_up(ended.failure)) or attempt == 2:
            completed(ended, *allowed)
            return


async def reset_to(client: Client, run: Run, position: str, *, reason: str) -> CommandReply:
    """Refused where the run has no such position: it was given up before."""
    commands = client.world.ledger.runs[run.workflow_id, run.run_id].commands.values()
    issued = any(command.position == position for command in commands)
    reply = await client.resume(run, position=position, reason=reason)
    expect(reply.status, "ok" if issued else "refused")
    return reply


async def resume(client: Client, rng: random.Random) -> None:
    run = await client.start(app.repairable, "bank", id="repairable")
    await failed(client, run)
    await resumed(client, run, 2)


async def resume_stray(client: Client, rng: random.Random) -> None:
    """The failure of an attempt made before the resume is told again, late, in another message."""
    run = await client.start(app.repairable, "bank", id="stray")
    await failed(client, run)
    events = client.world.ledger.runs[run.workflow_id, run.run_id].events
    old = next(r.event for r in events if isinstance(r.event, CommandSettled) and r.event.outcome == "failed")
    Stage.repaired.add("bank")
    reply = await client.resume(run, reason="repaired")
    expect(reply.status, "ok")
    stray = TaskOutcome(
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        command_id=old.command_id,
        generation=0,
        attempt=old.attempt,
        outcome="failed",
        failure=old.failure,
    )
    await client.publish(topics.WORKFLOW_ENGINE, client.message(run.workflow_id, stray))
    completed(await client.result(run, reply.generation), 2)


async def resume_branches(client: Client, rng: random.Random) -> None:
    """One branch failed the run while others were anywhere: what they had done is not done again."""
    run = await client.start(app.repairable_branches, "bank", id="branching")
    first = await failed(client, run)
    await asyncio.sleep(rng.uniform(0.0, 2.0))
    await resumed(client, run, [4, 12, 6], unanswered=gave_up(first.failure))


async def resume_child(client: Client, rng: random.Random) -> None:
    """A child fails and with it its parent; resuming either resumes both."""
    run = await client.start(app.repairable_child, "bank", id="family")
    await failed(client, run)
    if rng.random() < 0.5:
        await resumed(client, run, 3)
        return
    Stage.repaired.add("bank")
    child = next(r for r in client.world.ledger.runs.values() if r.run_id and r.workflow_id.startswith("child-"))
    expect((await client.resume(Run(child.workflow_id, child.run_id), reason="repaired")).status, "ok")
    completed(await client.result(run, 1), 3)


async def resume_left_child(client: Client, rng: random.Random) -> None:
    """A child that failed while its parent made up for another: it goes on, and the parent stays as it ended."""
    parent = await client.start(app.undoing_parent, "bank", id="undoing")
    undone = await client.result(parent)
    completed(undone, "undone 2")
    known = [Run(run.workflow_id, run.run_id) for run in client.world.ledger.runs.values() if run.run_id]
    run = next((run for run in known if run.workflow_id == "late"), None)
    if run is None or undone.status != "completed":
        return  # workers died too often
    ended = await client.result(run)
    told = client.world.ledger.runs[parent.workflow_id, parent.run_id].events
    failures = [r for r in told if isinstance(r.event, CommandSettled) and r.event.outcome == "failed"]
    if "ConnectionError" not in describe(ended.failure) or len(failures) < 2:
        return  # or its parent's end cancels it, maybe later
    Stage.repaired.add("bank")
    expect((await client.resume(run, reason="repaired", anyway=False)).status, "ok")
    completed(await client.result(run, 1), 2)
    expect((await client.result(parent)).generation, 0)


async def resume_changed(client: Client, rng: random.Random) -> None:
    """The code was edited, and another task stands where the old one, whose outcome comes late, had stood."""
    run = await client.start(app.changing, "bank", id="changing")
    await failed(client, run)
    Stage.version = 2
    for name in ("worker-0", "worker-1"):
        client.world.kill(client.world.processes[name], "new code")
    Stage.repaired.add("bank")
    reply = await reset_to(client, run, "1", reason="the code was wrong")
    if reply.status == "ok":
        completed(await client.result(run, reply.generation), "new 21")


async def resume_signaled(client: Client, rng: random.Random) -> None:
    """Signals that came after the point are kept, in order."""
    run = await client.start(app.signaled_after, "bank", id="signaled")
    early = rng.random() < 0.5
    last = await client.signal("signaled", "votes", "first") if early else 0
    await failed(client, run)
    if not early:
        last = await client.signal("signaled", "votes", "first")
    resuming = asyncio.ensure_future(resumed(client, run, ["first", "second"]))
    await asyncio.sleep(rng.uniform(0.0, 1.0))
    await client.signal("signaled", "votes", "second", after=last)
    await resuming


async def resume_twice(client: Client, rng: random.Random) -> None:
    """The first resume comes too early: it fails again, at the same place; or two people resume at once."""
    run = await client.start(app.repairable, "bank", id="impatient")
    await failed(client, run)
    if rng.random() < 0.5:
        expect((await client.resume(run, reason="too early")).status, "ok")
        expect((await client.result(run, 1)).status, "failed")
        await resumed(client, run, 2, generation=2)
        return
    Stage.repaired.add("bank")
    replies = await asyncio.gather(client.resume(run, reason="one"), client.resume(run, reason="two"))
    for reply in replies:
        expect(reply.status, "ok", "refused")
    generation = max(reply.generation for reply in replies)
    completed(await client.result(run, generation), 2)


async def reset(client: Client, rng: random.Random) -> None:
    """A run that completed is done again from a position on: all of it anew, under ids of the new generation."""
    run = await client.start(app.sequence, 3, id="again")
    completed(await client.result(run), 6)
    reply = await reset_to(client, run, rng.choice(("0", "2")), reason="once more")
    if reply.status == "ok":
        completed(await client.result(run, reply.generation), 6)


async def reset_parent(client: Client, rng: random.Random) -> None:
    """Its child is started anew, under the same id, while the one before it cleans up, or is over."""
    run = await client.start(app.remaking_parent, rng.choice((0.0, 0.5, 3.0)), id="remaking")
    generation = 0
    for _ in range(rng.randint(1, 3)):
        await asyncio.sleep(rng.choice((0.0, 0.5, rng.uniform(0.0, 6.0))))
        reply = await client.resume(run, position=rng.choice(("0", "1")), reason="once more")
        expect(reply.status, "ok", "refused")  # it may not have come there yet
        generation = max(generation, reply.generation)
    completed(await client.result(run, generation), 2)


async def skip(client: Client, rng: random.Random) -> None:
    """A person answers instead of the task that failed."""
    run = await client.start(app.repairable, "bank", id="skipped")
    ended = await failed(client, run)
    position = "1" if "task gated" in describe(ended.failure) else "0"  # three deaths may end the first one, too
    edits = [Edit(position=position, result=convert.encode(7))]
    reply = await client.resume(run, edits=edits, reason="by hand")
    expect(reply.status, "ok")
    again = await client.result(run, reply.generation)
    if position == "1":
        completed(again, 7)
    else:
        expect(again.status, "failed", "completed")


async def edit(client: Client, rng: random.Random) -> None:
    """A person corrects the arguments of the task that failed."""
    Stage.repaired.add("other bank")
    run = await client.start(app.repairable, "bank", id="edited")
    ended = await failed(client, run)
    if "ConnectionError" not in describe(ended.failure):
        return
    edits = [Edit(position="1", args=convert.encode(["other bank", 20]))]
    reply = await client.resume(run, edits=edits, reason="another bank")
    expect(reply.status, "ok")
    completed(await client.result(run, reply.generation), 21)


async def never_resumed(client: Client, rng: random.Random) -> None:
    """What a failed run left open waits for a resume, and ends when the run is purged instead."""
    await failed(client, await client.start(app.forsaking_parent, "bank", id="forsaking"))


REWINDS: dict[str, Script] = {
    script.__name__.replace("_", "-"): script
    for script in (
        *(
            resume,
            resume_stray,
            resume_branches,
            resume_child,
            resume_left_child,
            resume_changed,
            resume_signaled,
            resume_twice,
        ),
        *(reset, reset_parent, skip, edit, never_resumed),
    )
}
