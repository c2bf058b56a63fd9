"""Faults: which, of whom, and for how long are drawn from the seed alone; whether one finds its victim up is luck."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from tests.chaos.processes import Member, Server
from tests.chaos.stack import Stack

QUIET_S = (1.0, 3.0)
"""Between two faults: time in which what they broke may go on, and often has not finished to."""
DOWN_S = (0.0, 2.0)
CUT_S = (1.0, 8.0)
FREEZE_S = (2.0, 10.0)
ZOMBIE_S = (32.0, 40.0)
"""Longer than Pulsar (30 s) and our leases keep a silent process: it wakes up as its own successor's rival."""
SERVER_SHARE = 0.2
"""Of faults that hit Pulsar or Cassandra itself: everything stands still until it is back."""
PAIR_SHARE = 0.3
_SERVERS = ("pulsar", "cassandra")


@dataclass(frozen=True)
class Fault:
    kind: str
    victim: str
    seconds: float
    cut_from: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The same for both replicas."""
        severed = f" from {' and '.join(self.cut_from)}" if self.cut_from else ""
        return f"{self.kind}{severed} {self.victim.rsplit('-', 1)[0]}"


class Plan:
    """An endless series of faults, one or two at a time."""

    def __init__(self, seed: int, members: Sequence[str]) -> None:
        self._random = Random(seed)
        self._members = members

    def next(self) -> tuple[list[Fault], float]:
        """What happens now, side by side, and how long nothing happens then."""
        faults = [self._fault()]
        if self._random.random() < PAIR_SHARE:
            other = self._fault()
            while other.victim == faults[0].victim:
                other = self._fault()
            faults.append(other)
        return faults, self._random.uniform(*QUIET_S)

    def _fault(self) -> Fault:
        choose, uniform = self._random.choice, self._random.uniform
        if self._random.random() < SERVER_SHARE:
            return Fault(choose(("kill", "freeze")), choose(_SERVERS), uniform(*FREEZE_S))
        victim = choose(self._members)
        match kind := choose(("kill", "freeze", "roll", "cut")):
            case "cut":
                of = choose((("pulsar",), ("cassandra",), _SERVERS))
                return Fault(kind, victim, uniform(*CUT_S), ("pulsar",) if victim.startswith("worker") else of)
            case "freeze":
                return Fault(kind, victim, uniform(*FREEZE_S))
            case _:
                return Fault(kind, victim, uniform(*DOWN_S))


class Nemesis:
    def __init__(self, stack: Stack, seed: int, tell: Callable[[str], None]) -> None:
        self._stack = stack
        self.seed = seed
        self._tell = tell
        self.faults: Counter[str] = Counter()
        self._until = 0.0

    async def run(self, seconds: float) -> None:
        """Make faults for so long, not counting until a server is up again; each is undone before this returns."""
        self._until = asyncio.get_running_loop().time() + seconds
        members = [name for name in self._stack.members if name != "api"]
        await asyncio.gather(self._mixed(members), self._zombies(members))

    def _left_s(self) -> float:
        return self._until - asyncio.get_running_loop().time()

    async def _mixed(self, members: Sequence[str]) -> None:
        plan = Plan(self.seed, members)
        while self._left_s() > 0:
            faults, quiet = plan.next()
            await asyncio.gather(*(self._make(fault) for fault in faults))
            await asyncio.sleep(quiet)

    async def _zombies(self, members: Sequence[str]) -> None:
        """Beside the other faults: of all of them they need the longest."""
        random = Random(f"zombies {self.seed}")
        while self._left_s() > ZOMBIE_S[1]:
            await self._make(Fault("zombie", random.choice(members), random.uniform(*ZOMBIE_S)))
            await asyncio.sleep(random.uniform(*QUIET_S))

    async def _make(self, fault: Fault) -> None:
        if fault.victim in self._stack.servers:
            self._note(fault)
            await self._hit_server(self._stack.servers[fault.victim], fault)
            return
        member = self._stack.members[fault.victim]
        if member.stopped or not member.alive:
            return
        self._note(fault)
        await self._hit(member, fault)

    def _note(self, fault: Fault) -> None:
        self.faults[fault.label] += 1
        self._tell(f"{fault.label} ({fault.victim}, {fault.seconds:.1f} s)")

    async def _hit_server(self, server: Server, fault: Fault) -> None:
        if fault.kind == "freeze":
            server.freeze()
            await asyncio.sleep(fault.seconds)
            server.thaw()
            return
        loop = asyncio.get_running_loop()
        began = loop.time()
        for verb in ("kill9", "start", "wait"):
            await server.run(verb)
        self._until += loop.time() - began  # seconds here, minutes on a machine that does much else

    @staticmethod
    async def _hit(member: Member, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                member.kill()
                await asyncio.sleep(fault.seconds)
                member.start()
            case "roll":
                await member.roll()
            case "cut":
                for name in fault.cut_from:
                    member.cuts[name].sever()
                await asyncio.sleep(fault.seconds)
                for name in fault.cut_from:
                    member.cuts[name].mend()
            case _:
                member.freeze()
                await asyncio.sleep(fault.seconds)
                member.thaw()
