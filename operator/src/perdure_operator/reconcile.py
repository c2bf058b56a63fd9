"""Makes the cluster be what one resource says: read everything, decide, do what is missing. Repeating is harmless."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from perdure_operator import desired, keda, rollout
from perdure_operator.builds import build_of, deployment_name
from perdure_operator.claims import Claims
from perdure_operator.connecting import Connections, Link
from perdure_operator.differences import differs
from perdure_operator.facts import BuildPods, Routing, Work, build_pods, build_served, is_running
from perdure_operator.objects import APPLIED, BUILD_LABEL, Key, Object
from perdure_operator.ports import Forbidden, Kubernetes, NotServed, Refused, Unavailable, Workers
from perdure_operator.reading import Known, read_facts
from perdure_operator.resources import Pool, Rejected, Unfollowed, pool_of, scaled_as, unread_pool
from perdure_operator.status import Undone, held, rejected, status_of
from perdure_operator.stepping import Stepping

log = logging.getLogger("perdure.operator")

RESYNC_S = 60.0
"""What is at rest is looked at so often: changes come as events, and this finds what an event was lost of."""
ACTIVE_S = 3.0
"""What has pods, or changes: its need is asked for so often."""
STEP_S = 1.0
"""Between two steps of a scale-down."""


@dataclass(slots=True)
class _Memo:
    """What is remembered of one resource while the process lives."""

    rollout: rollout.Memory = field(default_factory=rollout.Memory)
    known: Known = field(default_factory=Known)
    ensured: set[tuple[tuple[str, ...], str, str]] = field(default_factory=set)
    """Names, build and API whose topics are there."""
    left_keda: bool = False
    """Nothing is left of what KEDA was asked to do."""
    unlike: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Name: digest and generation of an object which Kubernetes stores in other words than it was applied in."""


_NOT_NOW = Undone("NotRouted", "new runs begin as before while the spec cannot be followed")
"""Another Workflow may have it by now: who has lost the right or the means to write the record leaves it."""


class Reconciler:
    """All resources of the operator's namespaces."""

    def __init__(
        self,
        kubernetes: Kubernetes,
        connections: Connections,
        claims: Claims,
        workers: Workers,
        *,
        now: Callable[[], float],
    ) -> None:
        """`now`: epoch seconds."""
        self._kubernetes = kubernetes
        self._connections = connections
        self._claims = claims
        self._workers = workers
        self._stepping = Stepping(kubernetes, workers)
        self._now = now
        self._memos: dict[Key, _Memo] = {}
        self.pools: dict[Key, tuple[Pool, Link]] = {}
        """As each could last be followed: who is to be woken by work for which names."""

    async def reconcile(self, key: Key) -> float | None:
        """Seconds until it should be done again; None: the resource is gone.

        Raises:
            Unavailable, Changed: try again.
        """
        item = await self._kubernetes.get(key.kind, key.namespace, key.name)
        if item is None or item["metadata"].get("deletionTimestamp"):
            self._memos.pop(key, None)
            self.pools.pop(key, None)
            return None
        before = item.get("status") or {}
        try:
            pool = pool_of(key, item)
            link = await self._connections.link(key.namespace, pool.spec.connection)
            if pool.kind == "Workflow":
                await self._claims.check(item, link)
        except Rejected as error:
            unfollowed = Unfollowed(error, item["metadata"].get("generation", 1))
            known = self.pools.get(key)
            if known is not None and known[0].uid == item["metadata"]["uid"]:
                return await self._pursue(scaled_as(known[0], item), known[1], before, unfollowed=unfollowed)
            return await self._hold(unread_pool(key, item), before, unfollowed)
        self.pools[key] = pool, link
        return await self._pursue(pool, link, before)

    async def _hold(self, pool: Pool, before: Object, unfollowed: Unfollowed) -> float:
        """Nobody knows any more how it was: what is there stays, and none of it is kept from working."""
        _, builds = await self._look(pool, before)
        stepped = False
        if any(each.pods for each in builds):
            try:
                link = await self._connections.link(pool.key.namespace, pool.spec.connection)
                for each in builds:
                    stepped |= await self._stepping.step(pool.key.namespace, each, each.replicas, link.token)
            except Rejected as error:
                log.warning("pods not freed", extra={"action": "free_failed", "error": str(error)})
        now_ms = int(self._now() * 1000)
        await self._tell(pool.key, before, rejected(unfollowed, held(builds, before, now_ms), now_ms))
        return STEP_S if stepped else RESYNC_S

    async def _pursue(self, pool: Pool, link: Link, before: Object, *, unfollowed: Unfollowed | None = None) -> float:
        """`unfollowed`: why the pool is not what is declared now, but what was."""
        memo = self._memos.setdefault(pool.key, _Memo())
        target = build_of(pool)
        (deployments, builds), facts = await asyncio.gather(
            self._look(pool, before), read_facts(link.perdure, pool, memo.known)
        )
        told = {each["build"]: each["state"] for each in before.get("builds") or []}
        previous = before.get("currentBuild")
        if previous is None and facts.routing is not None:
            previous = facts.routing.current
        decision = rollout.decide(
            pool, target, builds, facts,
            previous=previous,
            proven={build for build, state in told.items() if state != "Pending"}
            | {each.build for each in facts.builds or () if each.build is not None},
            memory=memo.rollout,
            now=self._now(),
        )  # fmt: skip
        memo.rollout = decision.memory
        undone = await self._ensure(pool, link, target, memo)
        refusal = await self._apply(pool, link, deployments, memo, replicas=decision.targets[target])
        if decision.route is not None and undone is None and (refusal is None or decision.current != target):
            undone = await self._route(pool, link, decision.route) if unfollowed is None else _NOT_NOW
        stepped = [
            await self._stepping.step(pool.key.namespace, each, decision.targets[each.build], link.token)
            for each in builds
        ]
        for each in builds:
            if each.build in decision.gone:
                log.info("build gone", extra={"action": "build_gone", "pool": pool.key.name, "build": each.build})
                await self._kubernetes.delete("Deployment", pool.key.namespace, each.name)
        unscaled = await self._hand_to_keda(pool, link, memo, builds=builds, decision=decision)
        now_ms = int(self._now() * 1000)
        refusal = unfollowed.error if unfollowed is not None else refusal or unscaled
        status = status_of(
            pool, target, builds, facts, decision=decision, refusal=refusal, undone=undone, before=before, now_ms=now_ms
        )
        if unfollowed is not None:
            status = rejected(unfollowed, status, now_ms)
        await self._tell(pool.key, before, status)
        return _pace(builds, decision, stepped=any(stepped))

    async def _look(self, pool: Pool, before: Object) -> tuple[Mapping[str, Object], Sequence[BuildPods]]:
        """Its Deployments by name, and what each has of pods."""
        labels, namespace = desired.selector_of(pool), pool.key.namespace
        deployments = await self._deployments(pool, before)
        at_rest = len(deployments) <= 1 and all(
            not each["spec"].get("replicas") and not (each.get("status") or {}).get("replicas") for each in deployments
        )
        pods = [] if at_rest else await self._kubernetes.list("Pod", namespace, labels)
        asked = [pod for pod in pods if is_running(pod)]
        answers = await asyncio.gather(*(self._workers.work(pod["status"]["podIP"]) for pod in asked))
        works: dict[str, Work] = {
            pod["metadata"]["name"]: work for pod, work in zip(asked, answers, strict=True) if work is not None
        }
        builds = []
        for each in deployments:
            build = build_served(each)
            builds.append(
                build_pods(each, [p for p in pods if p["metadata"]["labels"].get(BUILD_LABEL) == build], works)
            )
        return {each["metadata"]["name"]: each for each in deployments}, builds

    async def _deployments(self, pool: Pool, before: Object) -> Sequence[Object]:
        """By their labels, and by name those which should be there and which no list has, since others changed these.

        One that is there and taken for unborn would be applied with the replicas of an unborn one: busy pods would go.
        """
        namespace = pool.key.namespace
        listed = await self._kubernetes.list("Deployment", namespace, desired.selector_of(pool))
        builds = {build_of(pool), before.get("targetBuild"), *(each["build"] for each in before.get("builds") or [])}
        names = {deployment_name(pool, build) for build in builds if build is not None}
        missing = sorted(names - {each["metadata"]["name"] for each in listed})
        found = await asyncio.gather(*(self._kubernetes.get("Deployment", namespace, name) for name in missing))
        return [each for each in [*listed, *found] if each is not None and desired.is_of(each, pool)]

    async def _ensure(self, pool: Pool, link: Link, build: str, memo: _Memo) -> Undone | None:
        """Have what is sent to its names wait for it."""
        entry = (tuple(sorted(pool.names)), build, link.connection.api.url)
        if entry not in memo.ensured:
            try:
                await link.perdure.ensure(pool.served, pool.names, build)
            except Unavailable as error:
                log.warning("topics not made", extra={"action": "ensure_failed", "error": str(error)})
                return Undone("TopicsNotMade", f"what is sent is not kept for the pods yet: {error}")
            memo.ensured.add(entry)
        return None

    async def _apply(
        self, pool: Pool, link: Link, deployments: Mapping[str, Object], memo: _Memo, *, replicas: int
    ) -> Rejected | None:
        """Apply what differs. Replicas of a Deployment that is there stay as they are: `scaling` changes them."""
        namespace = pool.key.namespace
        name = desired.account_name(pool)
        there = deployments.get(deployment_name(pool, build_of(pool)))
        if there is not None:
            replicas = there["spec"].get("replicas", 1)
        account, budget = await asyncio.gather(
            self._kubernetes.get("ServiceAccount", namespace, name),
            self._kubernetes.get("PodDisruptionBudget", namespace, name),
        )
        wanted = [
            (desired.service_account(pool), account),
            (desired.disruption_budget(pool), budget),
            (desired.deployment(pool, link.connection, replicas), there),
        ]
        for item, found in wanted:
            try:
                await self._apply_one(item, found, memo)
            except Refused as error:
                return Rejected("RejectedByKubernetes", f"{item['kind']} {item['metadata']['name']}: {error}")
        return None

    async def _apply_one(self, wanted: Object, found: Object | None, memo: _Memo) -> None:
        name = f"{wanted['kind']} {wanted['metadata']['name']}"
        mark = wanted["metadata"]["annotations"][APPLIED]
        if found is not None:
            if not differs(wanted, found) or memo.unlike.get(name) == (mark, found["metadata"].get("generation", 0)):
                return
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            stored = await self._kubernetes.apply({**wanted, "metadata": {**wanted["metadata"], **version}})
        else:
            stored = await self._kubernetes.apply(wanted)
        log.info("applied", extra={"action": "applied", "object": name})
        memo.unlike.pop(name, None)
        if differs(wanted, stored):
            memo.unlike[name] = mark, stored["metadata"].get("generation", 0)

    async def _hand_to_keda(
        self, pool: Pool, link: Link, memo: _Memo, *, builds: Sequence[BuildPods], decision: rollout.Decision
    ) -> Rejected | None:
        """Have KEDA write `spec.replicas`, or no longer. Why it cannot is told, and stops nothing else."""
        if pool.spec.scaling.provider != "keda":
            if not memo.left_keda:
                await self._leave_keda(pool)
                memo.left_keda = True
            return None
        memo.left_keda = False
        current = decision.current
        slots = next((each.slots for each in builds if each.build == current), pool.spec.slots)
        authentication = keda.trigger_authentication(pool, link.connection)
        scaled = keda.scaled_object(pool, link.connection, current, slots)
        try:
            await self._ensure_object(authentication, memo)
            if pool.spec.replicas is None:  # there is no scale to be read before somebody wrote it: KEDA would give up
                await self._kubernetes.set_replicas(pool.key, decision.targets[current])
            await self._ensure_object(scaled, memo)
        except Forbidden as error:
            return Rejected("KedaForbidden", f"{keda.FORBIDDEN} ({error})")
        except NotServed as error:
            return Rejected("KedaNotInstalled", f"{keda.NOT_INSTALLED} ({error})")
        except (Refused, Unavailable) as error:
            return Rejected("RejectedByKubernetes", f"objects of KEDA: {error}")
        return None

    async def _leave_keda(self, pool: Pool) -> None:
        """First what scales, then what that needs."""
        name = keda.name_of(pool)
        for kind in keda.KINDS:
            try:
                found = await self._kubernetes.get(kind, pool.key.namespace, name)
            except Forbidden:
                return  # without the right to look it made none
            if found is not None and desired.is_owned(found, pool):
                log.info("left to KEDA no longer", extra={"action": "keda_left", "object": f"{kind} {name}"})
                await self._kubernetes.delete(kind, pool.key.namespace, name)

    async def _ensure_object(self, wanted: Object, memo: _Memo) -> None:
        """Raises what looking and applying raise."""
        metadata = wanted["metadata"]
        found = await self._kubernetes.get(wanted["kind"], metadata["namespace"], metadata["name"])
        await self._apply_one(wanted, found, memo)

    async def _route(self, pool: Pool, link: Link, route: Routing) -> Undone | None:
        try:
            await link.perdure.route(pool.spec.workflow, route)
        except Unavailable as error:
            log.warning("not routed", extra={"action": "route_failed", "error": str(error)})
            return Undone("NotRouted", f"new runs begin as before: {error}")
        log.info("routed", extra={"action": "routed", "workflow": pool.spec.workflow, "build": route.current})
        return None

    async def _tell(self, key: Key, before: Object, status: Object) -> None:
        if status != before:
            await self._kubernetes.apply_status(key, status)


def _pace(builds: Sequence[BuildPods], decision: rollout.Decision, *, stepped: bool) -> float:
    if stepped:
        return STEP_S
    resting = all(each.replicas == 0 and not each.pods and not each.leaving for each in builds) and len(builds) == 1
    return RESYNC_S if resting and decision.route is None else ACTIVE_S
