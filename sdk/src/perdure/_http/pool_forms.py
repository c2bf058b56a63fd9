"""Forms of the requests about builds and pools."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from perdure._duration import DEFAULT_MAX_MS
from perdure_runtime.pools import Kind

Build = Annotated[str, Meta(min_length=1, max_length=200)]
Length = Annotated[int, Meta(ge=1, le=DEFAULT_MAX_MS)]
NAMES_MAX = 100
"""Of one pool, each a topic or two."""


class DefaultsForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`RunDefaults`, as a caller may put them."""

    run_timeout_ms: Length | None = None
    retention_ms: Length | None = None


class RoutingForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`Routing`, as a caller may put it."""

    current: Build | None = None
    ramping: Build | None = None
    ramping_percent: Annotated[int, Meta(ge=0, le=100)] = 0
    defaults: DefaultsForm = DefaultsForm()


class PoolForm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A pool that is to be made."""

    kind: Kind
    names: Annotated[list[str], Meta(min_length=1, max_length=NAMES_MAX)]
    build: Build | None = None
