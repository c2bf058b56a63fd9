"""What holds for every test of the tree."""

from __future__ import annotations

import os

from hypothesis import settings

# A test run is the same for everybody, on machines of any speed; HYPOTHESIS_PROFILE=explore looks for new examples.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
