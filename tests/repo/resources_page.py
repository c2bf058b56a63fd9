"""docs/reference/resources.md, as the definitions in charts/ say. `python -m tests.repo.resources_page` writes it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.repo import tree

PAGE = tree.ROOT / "docs/reference/resources.md"
_TEMPLATES = tree.ROOT / "charts/perdure-crds/templates"
_KINDS = ("connections", "workers", "workflows")
_HEAD = """# Resources

What Perdure adds to Kubernetes: group `perdure.dev`, version `v1alpha1`, all in a namespace.
How to use them: [run on Kubernetes](../howto/run-on-kubernetes.md).
What becomes of them: [the operator](../../operator/README.md).
This page is made from [their definitions](../../charts/perdure-crds/README.md); a test compares.
`kubectl explain worker.spec` tells the same.

`v1alpha1` may change between minor versions; the changelog says how.
"""
_COLUMNS = {
    "spec": ["| Field | Type | Default | Meaning |", "| --- | --- | --- | --- |"],
    "status": ["| Field | Type | Meaning |", "| --- | --- | --- |"],
}

CONDITIONS = {
    "Accepted": (
        "Whether the spec is followed. While it is not, the last one that was still is, and the other conditions are of"
        " it; an operator that has started since leaves the number of pods as it is.",
        {
            "Accepted": "`True`: it is.",
            "InvalidSpec": "The spec says what cannot be done; the message says what to change.",
            "ConnectionNotFound": "There is no Connection of that name in the namespace.",
            "ConnectionInvalid": "The Connection names no API that can be asked, or the token has more than one line;"
            " the message says what to change.",
            "SecretNotFound": "The Secret with the API's token is not there, or lacks the key.",
            "SecretForbidden": "The operator may not read that Secret; the message says which right it lacks.",
            "WorkflowTaken": "An older Workflow, which the message names, has the same `workflow` in the same namespace"
            " of the same API. Within two minutes of its end this one takes over.",
            "RejectedByKubernetes": "Kubernetes does not take what the operator makes of the spec; the message is its"
            " answer.",
            "KedaNotInstalled": "`scaling.provider` is keda, and there is no KEDA in the cluster. `spec.replicas` is"
            " followed as it is.",
            "KedaForbidden": "`scaling.provider` is keda, and the operator lacks the rights of `operator.keda.enabled`."
            " `spec.replicas` is followed as it is.",
        },
    ),
    "Available": (
        "Whether the current build can work.",
        {
            "PodsAvailable": "`True`: a pod of it is available.",
            "ScaledToZero": "`True`: it has no pod, since there is nothing to do; pods come with work.",
            "Starting": "Nothing has been made for it yet.",
            "NoPodAvailable": "It should have pods and none is available; the message says what is wrong with one.",
        },
    ),
    "Progressing": (
        "Whether something is under way.",
        {
            "Complete": "`False`: the current build is that of the spec, and has the pods that it needs.",
            "NewBuildNotAvailable": "The build of the spec waits for its first pod; the message says what keeps it.",
            "Scaling": "Pods come or go.",
            "NeedUnknown": "`Unknown`: the API did not answer. Pods come back if they die, and none is taken away.",
            "TopicsNotMade": "The API did not make the topics of the names, so that nothing is kept for pods to come;"
            " the message is its answer.",
            "NotRouted": "The API did not take the routing record, or it is left while the spec cannot be followed: new"
            " runs begin as before. The message says which.",
        },
    ),
    "Drained": (
        "Whether all older builds are done with.",
        {
            "NoOldBuilds": "`True`: no older build has anything left.",
            "OldBuildsServeRuns": "An older build has open runs.",
            "OldBuildsStop": "Older builds have no open runs, and end what they have in hand.",
        },
    ),
}
"""Meaning of each condition, and of each of its reasons."""

_LABELS = """## Labels and annotations

| On | Name | Value |
| --- | --- | --- |
| all that the operator makes | `app.kubernetes.io/managed-by` | `perdure-operator` |
| all that it makes, and pods | `perdure.dev/worker` or `perdure.dev/workflow` | name of the resource |
| Deployments and pods | `perdure.dev/build` | the build |
| pods that may go | `controller.kubernetes.io/pod-deletion-cost` | -2147483648 |

Annotations named `perdure.dev/…` are the operator's own notes, and no part of this API.
"""


def definition(plural: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_TEMPLATES / f"{plural}.yaml").read_text("utf-8"))
    return found


def rows(schema: dict[str, Any], path: str = "", required: bool = False) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """(path, schema, whether it must be given) of every field below, those of lists with `[]`."""
    if path:
        yield path, schema, required
    inner = schema.get("items", schema)
    below = path + ("[]" if "items" in schema else "")
    for name, each in inner.get("properties", {}).items():
        yield from rows(each, f"{below}.{name}" if below else name, name in inner.get("required", []))


def page() -> str:
    return "\n".join([_HEAD, *(_kind(definition(plural)) for plural in _KINDS), _conditions(), _LABELS])


def _kind(crd: dict[str, Any]) -> str:
    names, (version,) = crd["spec"]["names"], crd["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]
    parts = [
        f"## {names['kind']}\n\n{schema['description']} `kubectl get {names['shortNames'][0]}`, or"
        f" `{names['plural']}.perdure.dev`.\n"
    ]
    for section in ("spec", "status"):
        if section in schema["properties"]:
            parts.append(
                "\n".join([f"### {names['kind']} {section}", "", *_COLUMNS[section], *_section(schema, section), ""])
            )
            parts.append(_rules(schema, section))
    return "\n".join(part for part in parts if part)


def _section(schema: dict[str, Any], section: str) -> Iterator[str]:
    for path, field, required in rows(schema["properties"][section]):
        meaning = _escaped(field["description"])
        default = f" {'required' if required else _default(field)} |" if section == "spec" else ""
        yield f"| `{path}` | {_type(field)} |{default} {meaning} |"


def _rules(schema: dict[str, Any], section: str) -> str:
    """What the API server refuses beside wrong types."""
    found = [(section, rule) for rule in schema["properties"][section].get("x-kubernetes-validations", [])]
    found += [("", rule) for rule in schema.get("x-kubernetes-validations", []) if section == "spec"]
    for path, field, _ in rows(schema["properties"][section]):
        found += [(path, rule) for rule in field.get("x-kubernetes-validations", [])]
    if not found:
        return ""
    lines = [f"- {f'`{path}`: ' if path else ''}{_escaped(rule['message'])}" for path, rule in found]
    return "\n".join(["The API server also refuses what breaks one of these:", "", *lines, ""])


def _type(field: dict[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    told = field.get("format") if field["type"] == "string" else None
    match field["type"]:
        case "array":
            kind = f"list of {_plural(field['items']['type'])}"
        case "object" if "additionalProperties" in field:
            kind = "map"
        case other:
            kind = told or other
    return ", ".join([kind, *_limits(field)])


def _plural(kind: str) -> str:
    return {"string": "strings", "object": "objects"}[kind]


def _limits(field: dict[str, Any]) -> Iterator[str]:
    low, high = field.get("minimum"), field.get("maximum")
    if high is not None:
        yield f"{low} to {high}"
    elif low is not None:
        yield f"from {low}"
    if most := field.get("maxItems"):
        yield f"{field['minItems']} to {most}" if "minItems" in field else f"at most {most}"
    if pattern := field.get("pattern"):
        yield f"`{_escaped(pattern)}`"


def _default(field: dict[str, Any]) -> str:
    return (
        f"`{json.dumps(field['default']) if field['type'] == 'object' else field['default']}`"
        if "default" in field
        else ""
    )


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _conditions() -> str:
    parts = [
        "## Conditions\n\nOf Workers and Workflows. Their types and the reasons below are part of the API.\n"
        "Where nothing else is said, the status is `False`; of `Progressing` it is `True`.\n"
    ]
    for name, (meaning, reasons) in CONDITIONS.items():
        lines = [f"| `{reason}` | {text} |" for reason, text in reasons.items()]
        parts.append("\n".join([f"### {name}", "", meaning, "", "| Reason | Meaning |", "| --- | --- |", *lines, ""]))
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
