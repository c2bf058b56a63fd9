"""What the pages declare is what the API server takes, as far as that can be said without one, and what is followed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from perdure_operator.objects import GROUP, VERSION, Key, Object
from perdure_operator.resources import Rejected, connection_of, pool_of
from tests.operator.test_operator_crds import EXAMPLES, schema
from tests.repo import doc_blocks, tree

_KINDS_OF_KUBERNETES = {"NetworkPolicy": "networking.k8s.io/v1"}
"""What pages declare beside; a cluster test applies it."""
_METADATA = {"name", "namespace", "labels", "annotations"}


def strict(found: Any) -> Any:
    """The schema, where a field that it does not name is an error, as `kubectl apply` sees it."""
    if isinstance(found, list):
        return [strict(each) for each in found]
    if not isinstance(found, dict):
        return found
    told = {name: strict(each) for name, each in found.items()}
    named = isinstance(found.get("properties"), dict) and found.get("type") == "object"
    if named and not found.get("x-kubernetes-preserve-unknown-fields"):
        told["additionalProperties"] = False
    return told


def check(item: Object) -> None:
    """Raises ValidationError or Rejected: the API server or the operator would not take it."""
    kind = item["kind"]
    assert item["apiVersion"] == f"{GROUP}/{VERSION}"
    assert set(item["metadata"]) <= _METADATA
    told = {**item, "metadata": {}}
    jsonschema.validate(told, strict(schema(kind)), cls=jsonschema.Draft202012Validator)
    if kind == "Connection":
        connection_of(item)
        return
    _check_rules(item["spec"])
    pool_of(Key(kind, "shop", item["metadata"]["name"]), {**item, "metadata": {**item["metadata"], "uid": "u"}})


def _check_rules(spec: Object) -> None:
    """What the schema's rules in CEL say, but for what the operator refuses as well."""
    scaling = {"min": 0, "max": 10, "provider": "builtin", **spec.get("scaling", {})}
    if scaling["min"] > scaling["max"]:
        raise jsonschema.ValidationError("max must not be below min")
    if "replicas" in spec and scaling["provider"] == "builtin":
        raise jsonschema.ValidationError("replicas are followed only where scaling.provider is none or keda")
    if "template" in spec and {"imagePullPolicy", "resources"} & spec.keys():
        raise jsonschema.ValidationError("with a template, its container `worker` has imagePullPolicy and resources")


def declared(page: str) -> list[Object]:
    """Objects of the page's `yaml` blocks; values of a chart are none."""
    found = [
        item for block in doc_blocks.blocks(page) if block.language == "yaml" for item in yaml.safe_load_all(block.text)
    ]
    return [item for item in found if "kind" in item]


PAGES = [path for path in tree.markdown_files() if declared(path.read_text("utf-8"))]


@pytest.mark.parametrize("path", PAGES, ids=tree.name_of)
def test_what_a_page_declares_is_taken(path: Path) -> None:
    for item in declared(path.read_text("utf-8")):
        if item["apiVersion"].startswith(GROUP):
            check(item)
        else:
            assert _KINDS_OF_KUBERNETES[item["kind"]] == item["apiVersion"]


def test_pages_that_declare_something_are_found() -> None:
    names = {path.name for path in PAGES}
    assert {"run-on-kubernetes.md", "change-workflows-on-kubernetes.md", "scale.md", "secure.md"} <= names


@pytest.mark.parametrize("item", EXAMPLES, ids=lambda item: f"{item['kind']}-{item['metadata']['name']}")
def test_the_examples_are_taken(item: Object) -> None:
    check(item)


@pytest.mark.parametrize(
    "spec",
    [
        "{tasks: [a], imag: b}",
        "{tasks: [a, 'b c'], image: b}",
        "{tasks: [a]}",
        "{tasks: [a], image: b, slots: many}",
        "{tasks: [a], image: b, scaling: {maximum: 3}}",
        "{tasks: [a], image: b, scaling: {min: 11}}",
        "{tasks: [a], image: b, scaling: {provider: hpa}}",
        "{tasks: [a], image: b, replicas: 3}",
        "{tasks: [a], image: b, env: [{name: PERDURE_URL, value: c}]}",
        "{tasks: [a], template: {spec: {containers: [{name: other, image: b}]}}}",
        "{tasks: [a], slots: 1, resources: {}, template: {spec: {containers: [{name: worker, image: b}]}}}",
    ],
)
def test_what_would_be_refused_is_found(spec: str) -> None:
    item = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "Worker", "metadata": {"name": "a"}, "spec": yaml.safe_load(spec)
    }  # fmt: skip
    with pytest.raises((jsonschema.ValidationError, Rejected)):
        check(item)
