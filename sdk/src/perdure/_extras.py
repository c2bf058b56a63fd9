"""What is installed only when asked for: the extras of the package `perdure`, imported where they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from perdure.errors import NotInstalled

Extra = Literal["api", "cluster", "payloads"]
"""As pyproject.toml has them: the HTTP API and its client; Pulsar and Cassandra; compression and encryption."""


@contextmanager
def needed(extra: Extra, purpose: str) -> Iterator[None]:
    """Around the imports of what this extra brings.

    Args:
        purpose: what needs it, as the subject of the error's sentence.

    Raises:
        NotInstalled: a package of others is missing. One of ours is a defect, and told as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package.startswith("perdure"):
            raise
        raise NotInstalled(f"{purpose} needs the package {package}: pip install 'perdure[{extra}]'") from None
