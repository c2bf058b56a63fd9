"""docs/reference/settings.md, as the settings classes say. `python -m tests.repo.settings_page` writes it."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from perdure_api.__main__ import ApiSettings
from perdure_operator.settings import OperatorSettings
from perdure_runtime.service.settings import BrokerSettings, ServiceSettings, WorkerSettings
from tests.repo import tree

PAGE = tree.ROOT / "docs/reference/settings.md"
_HEAD = """# Settings of the services

Every process reads environment variables when it starts. If some are wrong, it names all of them, a line each, and ends
with status 78. This page is made from the settings classes.
"""
_PARTS: list[tuple[str, type[BaseSettings], type[BaseSettings] | None]] = [
    ("Every process, a worker too", BrokerSettings, None),
    ("perdure worker", WorkerSettings, BrokerSettings),
    ("Every service", ServiceSettings, BrokerSettings),
    ("perdure-api", ApiSettings, ServiceSettings),
    ("perdure-operator", OperatorSettings, None),
]


def page() -> str:
    parts = [_HEAD]
    for title, kind, base in _PARTS:
        known = base.model_fields if base is not None else {}
        rows = [
            _row(str(kind.model_config.get("env_prefix")) + name, field)
            for name, field in kind.model_fields.items()
            if name not in known
        ]
        parts.append(
            "\n".join([f"## {title}", "", "| Variable | Default | Meaning |", "| --- | --- | --- |", *rows, ""])
        )
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    meaning = " ".join((field.description or "").split()).replace("|", "\\|")
    assert meaning, f"{name} has no docstring"
    return f"| `{name.upper()}` | {_default(field)} | {meaning} |"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "the host's name"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, tuple):
        value = ",".join(value)
    return f"`{value}`" if value != "" else "empty"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
