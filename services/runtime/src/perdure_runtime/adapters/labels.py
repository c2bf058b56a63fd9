"""What read models compare: search attributes as text, and a filter on one run."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from perdure_runtime.ports import BuildCounts, RunFilter
from perdure_schemas.messages import RunChanged


def attributes(run: RunChanged) -> dict[str, str]:
    """Search attributes, each value as a user types it in a filter: text as it is, all else as JSON."""
    if run.attributes is None or run.attributes.encoding != "json":
        return {}
    try:
        values = msgspec.json.decode(run.attributes.data)
    except msgspec.DecodeError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {
        str(name): value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in values.items()
    }


def matches(run: RunChanged, where: RunFilter) -> bool:
    """Whether all conditions hold. `waits_for` is a beginning: `task charge` finds `task charge (3)`."""
    if where.attribute is not None and attributes(run).get(where.attribute[0]) != where.attribute[1]:
        return False
    return (
        where.name in (None, "", run.name)
        and where.status in (None, "", run.status)
        and where.workflow_id in (None, "", run.workflow_id)
        and (not where.tag or where.tag in run.tags)
        and run.waits_for.startswith(where.waits_for or "")
        and (where.started_from is None or run.started_at >= where.started_from)
        and (where.started_before is None or run.started_at < where.started_before)
    )


def by_build(counted: Mapping[tuple[str, str, str], int]) -> list[BuildCounts]:
    """Of counts by name, build (empty: any) and status, those that are not 0."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for (name, build, status), runs in sorted(counted.items()):
        if runs:
            found.setdefault((name, build), {})[status] = runs
    return [BuildCounts(name=name, build=build or None, counts=counts) for (name, build), counts in found.items()]
