"""Every workload, by name."""

from __future__ import annotations

from tests.simulation.rewinds import REWINDS
from tests.simulation.workloads import RUNS

WORKLOADS = {**RUNS, **REWINDS}
