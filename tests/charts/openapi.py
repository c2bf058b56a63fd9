"""Schemas for kubeconform, from what a real API server says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_KINDS = "x-kubernetes-group-version-kind"
_EITHER = {"oneOf": [{"type": "string"}, {"type": "integer"}]}


def write(openapi: dict[str, Any], folder: Path) -> str:
    """The location of the schemas, as kubeconform takes it."""
    definitions = {name: _strict(schema) for name, schema in openapi["definitions"].items()}
    (folder / "_definitions.json").write_text(json.dumps({"definitions": definitions}))
    for name, schema in openapi["definitions"].items():
        for kind in schema.get(_KINDS, []):
            group = kind["group"].partition(".")[0]
            parts = [kind["kind"], *([group] if group else []), kind["version"]]
            path = folder / f"{'-'.join(parts).lower()}.json"
            path.write_text(json.dumps({"$ref": f"_definitions.json#/definitions/{name}"}))
    return f"{folder}/{{{{ .ResourceKind }}}}{{{{ .KindSuffix }}}}.json"


def _strict(schema: Any) -> Any:
    """The schema, where a field that is not named is an error."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return {"$ref": schema["$ref"].replace("#/", "_definitions.json#/")}
    if schema.get("format") == "int-or-string":
        return _EITHER
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields", False)
    strict = {key: _strict(value) for key, value in schema.items() if not key.startswith("x-") and key != "properties"}
    if "properties" in schema:
        strict["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        strict.setdefault("additionalProperties", open_ended)
    return strict
