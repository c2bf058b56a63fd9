"""A build is what a user determined of a pod: while that is the same, so is the build."""

from __future__ import annotations

import re

import msgspec

from perdure_operator.resources import Pool
from perdure_schemas.ids import derive_id

DIGITS = 10
"""40 bits: two of the few builds of one resource meet with a chance of one in a billion, and names stay short."""
NAME_MAX = 47
"""Of a Deployment: its pods' names add 17 characters, and a label has at most 63."""
_NAME_DIGITS = 6
_BUILD = re.compile(rf"[0-9a-f]{{{DIGITS}}}")


def build_of(pool: Pool) -> str:
    """The build of a pool's present spec; scaling, rollout, defaults and connection are no part of it."""
    spec = pool.spec
    said = {
        "kind": pool.kind, "names": sorted(pool.names), "app": spec.app, "image": spec.image,
        "template": spec.template, "pull": spec.image_pull_policy, "slots": spec.slots, "resources": spec.resources,
        "env": spec.env, "envFrom": spec.env_from, "drain": spec.drain_timeout_seconds,
    }  # fmt: skip
    return derive_id("build", msgspec.json.encode(said, order="deterministic").decode())[:DIGITS]


def is_build(text: str) -> bool:
    """Whether `build_of` may have said it."""
    return _BUILD.fullmatch(text) is not None


def short_name(name: str, limit: int) -> str:
    """The name, or as much of it as fits with a digest that keeps it unique."""
    if len(name) <= limit:
        return name
    return f"{name[: limit - _NAME_DIGITS - 1].rstrip('-')}-{derive_id('name', name)[:_NAME_DIGITS]}"


def deployment_name(pool: Pool, build: str) -> str:
    return f"{short_name(pool.key.name, NAME_MAX - DIGITS - 1)}-{build}"
