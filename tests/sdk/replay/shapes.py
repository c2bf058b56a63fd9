"""Every shape: each is replayed in every way there is."""

from __future__ import annotations

from tests.sdk.replay import shapes_corners, shapes_plain, shaping

MODULES = (shapes_plain, shapes_corners)
EVERY = shaping.EVERY
