"""What workflow code must not call, and what to write instead."""

from __future__ import annotations

import asyncio
import builtins
import datetime as dt
import os
import random
import secrets
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, NamedTuple

NOW: Final = "Use perdure.now()."
SLEEP: Final = "Use `await perdure.sleep(...)`, a durable timer."
RANDOM: Final = "Use perdure.random(), a generator that gives the same numbers in every replay."
UUID: Final = "Use perdure.uuid4()."
TASK: Final = "Do it in a @task; for something quick and local, inline(fn)."
BRANCH: Final = "Use branch(...), or asyncio.create_task."
ADDRESS: Final = "It is a memory address. Number your objects yourself."


class Forbidden(NamedTuple):
    """A function of a module or class, by name."""

    owner: Any
    attribute: str
    name: str
    remedy: str
    trapped: bool = True
    """Whether it is replaced at run time by what looks at its caller. Of others the interpreter tells."""
    function: Callable[..., Any] | None = None
    """The original, whatever it is replaced by later: code may have imported it by name before."""


def _of(owner: Any, names: str, remedy: str, *, prefix: str = "", trapped: bool = True) -> list[Forbidden]:
    prefix = prefix or owner.__name__
    return [
        Forbidden(owner, name, f"{prefix}.{name}()", remedy, trapped, getattr(owner, name, None))
        for name in names.split()
    ]


_CLOCKS = "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time process_time_ns"
_RANDOM = (
    "random uniform triangular randint randrange choice choices sample shuffle seed getrandbits randbytes betavariate "
    "expovariate gammavariate gauss lognormvariate normalvariate vonmisesvariate paretovariate weibullvariate"
)

FUNCTIONS: Final[tuple[Forbidden, ...]] = (
    *_of(time, _CLOCKS, NOW),
    *_of(time, "localtime gmtime ctime", NOW, trapped=False),
    *_of(time, "sleep", SLEEP),
    *_of(random, _RANDOM, RANDOM),
    *_of(uuid, "uuid1 uuid4", UUID),
    *_of(secrets, "token_bytes token_hex token_urlsafe choice randbelow randbits", TASK),
    *_of(os, "urandom getrandom", TASK),
    *_of(os, "system popen listdir scandir walk stat mkdir makedirs remove rename unlink", TASK, trapped=False),
    *_of(threading.Thread, "start", TASK, prefix="threading.Thread"),
    *_of(threading, "Thread Timer", TASK, trapped=False),
    *_of(subprocess, "run Popen call check_call check_output", TASK, trapped=False),
    *_of(asyncio, "to_thread open_connection start_server create_subprocess_exec run", TASK, trapped=False),
    *_of(asyncio, "Task", BRANCH, trapped=False),
    Forbidden(builtins, "open", "open()", TASK, False, open),
    Forbidden(builtins, "input", "input()", TASK, False, input),
    Forbidden(builtins, "id", "id()", ADDRESS, False, id),
)

MOMENTS: Final = frozenset({"now", "utcnow", "today"})
"""Of `datetime` and `date`: types that cannot be changed, so these are found by name."""

IO_PACKAGES: Final = frozenset(
    [
        "requests",
        "httpx",
        "aiohttp",
        "urllib3",
        "boto3",
        "botocore",
        "psycopg",
        "psycopg2",
        "asyncpg",
        "pymysql",
        "sqlalchemy",
        "redis",
        "pymongo",
        "socket",
        "sqlite3",
        "smtplib",
        "ftplib",
        "multiprocessing",
        "concurrent",
    ]
)
"""Whatever is called of these reaches the outside, or other threads."""
IO_MODULES: Final = frozenset({"urllib.request", "http.client"})


def is_moment(owner: Any, attribute: str) -> bool:
    """Whether `owner.attribute()` reads the clock."""
    return attribute in MOMENTS and isinstance(owner, type) and issubclass(owner, dt.date)
