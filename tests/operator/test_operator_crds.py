"""The schemas of the resources: what they let through, and that the operator obeys every field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
import yaml

from perdure import _names
from perdure._duration import DEFAULT_MAX_MS
from perdure_operator.objects import GROUP, VERSION, Key, Object
from perdure_operator.resources import API_URL, NAME, Connection, Defaults, Rejected, Scaling, connection_of, pool_of
from perdure_operator.rollout import State
from tests.repo import tree

CHART = tree.ROOT / "charts/perdure-crds"
CRDS: dict[str, Object] = {
    crd["spec"]["names"]["kind"]: crd
    for crd in (yaml.safe_load(path.read_text("utf-8")) for path in sorted(CHART.glob("templates/*.yaml")))
}
EXAMPLES: list[Object] = [
    item for path in sorted(CHART.glob("examples/*.yaml")) for item in yaml.safe_load_all(path.read_text("utf-8"))
]


def schema(kind: str) -> Object:
    (version,) = CRDS[kind]["spec"]["versions"]
    assert version["name"] == VERSION
    found: Object = version["schema"]["openAPIV3Schema"]
    return found


def fields(kind: str) -> Object:
    found: Object = schema(kind)["properties"]["spec"]["properties"]
    return found


def nodes(at: Any, path: str = "") -> Iterator[tuple[str, Object]]:
    if isinstance(at, dict):
        if "type" in at and isinstance(at["type"], str):
            yield path, at
        for name, each in at.items():
            yield from nodes(each, f"{path}.{name}")
    elif isinstance(at, list):
        for each in at:
            yield from nodes(each, path)


def test_there_are_three_kinds_with_short_names() -> None:
    assert {kind: crd["spec"]["names"]["shortNames"] for kind, crd in CRDS.items()} == {
        "Connection": ["pcn"],
        "Worker": ["pwk"],
        "Workflow": ["pwf"],
    }


@pytest.mark.parametrize("kind", CRDS)
def test_a_crd_is_kept_when_its_chart_goes_and_is_named_as_it_must(kind: str) -> None:
    crd = CRDS[kind]
    names = crd["spec"]["names"]
    assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert crd["metadata"]["name"] == f"{names['plural']}.{GROUP}"
    assert names["categories"] == ["perdure"]
    assert crd["spec"]["scope"] == "Namespaced"


@pytest.mark.parametrize("kind", CRDS)
def test_strings_and_lists_that_users_write_have_limits(kind: str) -> None:
    """Else the cost of the rules has no bound, and the API server refuses the CRD."""
    for path, node in nodes(fields(kind)):
        if node["type"] == "string" and "enum" not in node and not path.endswith((".value", ".anyOf")):
            assert "maxLength" in node or "pattern" in node, path
        if node["type"] == "array":
            assert "maxItems" in node, path


@pytest.mark.parametrize("kind", ["Worker", "Workflow"])
def test_every_field_is_obeyed(kind: str) -> None:
    known = {field.encode_name for field in msgspec.structs.fields(type(pool(kind).spec))}
    other = {"tasks", "workflow", "rollout", "defaults"} - fields(kind).keys()
    assert set(fields(kind)) == known - other
    assert set(fields(kind)["scaling"]["properties"]) == {f.encode_name for f in msgspec.structs.fields(Scaling)}


def test_defaults_of_runs_are_obeyed_and_have_the_limits_of_the_api() -> None:
    assert "defaults" not in fields("Worker")
    lengths = fields("Workflow")["defaults"]["properties"]
    assert set(lengths) == {f.encode_name for f in msgspec.structs.fields(Defaults)}
    for length in lengths.values():
        assert (length["type"], length["format"]) == ("integer", "int32")
        assert (length["minimum"], length["maximum"] * 1000) == (1, DEFAULT_MAX_MS)
        assert length["maximum"] < 2**31


def test_every_field_of_a_connection_is_obeyed() -> None:
    assert fields("Connection").keys() == {field.encode_name for field in msgspec.structs.fields(Connection)}
    connection = connection_of(next(item for item in EXAMPLES if item["kind"] == "Connection"))
    for name, part in (("pulsar", connection.pulsar), ("api", connection.api)):
        known = {field.encode_name: field.default for field in msgspec.structs.fields(type(part))}
        told = fields("Connection")[name]["properties"]
        assert told.keys() == known.keys()
        assert {each: said["default"] for each, said in told.items() if "default" in said} == {
            each: default for each, default in known.items() if default not in (None, msgspec.NODEFAULT)
        }


def connection(url: str) -> Connection:
    api = {"url": url, "tokenSecret": {"name": "s", "key": "k"}}
    return connection_of({"metadata": {"name": "d"}, "spec": {"pulsar": {"url": "pulsar://p:6650"}, "api": api}})


def test_names_are_those_of_the_api() -> None:
    theirs = f"^{_names._NAME.pattern}$"
    assert fields("Worker")["tasks"]["items"]["pattern"] == fields("Workflow")["workflow"]["pattern"] == NAME == theirs


def test_the_schema_refuses_an_address_as_the_operator_does() -> None:
    assert fields("Connection")["api"]["properties"]["url"]["pattern"] == API_URL


@pytest.mark.parametrize(
    "url",
    [
        "http://api:8420", "https://perdure-api.perdure.svc:8420/", "http://API_1.example.", "http://10.0.0.1/a/b%20c",
        "http://[fd00::1]:8420", "http://xn--bcher-kva.example", f"http://{'a' * 63}",
    ],
)  # fmt: skip
def test_an_address_of_an_api_is_taken(url: str) -> None:
    assert connection(url).api.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pw@api:8420", "http://user@api", "http://api..svc:8420", "http://.api", "http://api:8420\n",
        "http://a b", "http://api/\x00", "http://api/?x=", "http://api?x", "http://api/#a", "http://", "http:///path",
        "http://api:abc", "http://api:0", "http://api:99999", "http://[::1", "http://büch",
        f"http://{'a' * 64}", "ftp://api", "http://api\\host",
    ],
)  # fmt: skip
def test_what_is_no_address_of_an_api_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(Rejected, match=r"Connection 'd': spec\.api\.url: write http") as refused:
        connection(url)
    assert refused.value.reason == "ConnectionInvalid"
    assert "pw" not in str(refused.value)


def pool(kind: str) -> Any:
    item = next(item for item in EXAMPLES if item["kind"] == kind)
    key = Key(kind, "default", item["metadata"]["name"])  # type: ignore[arg-type]
    return pool_of(key, {**item, "metadata": {**item["metadata"], "uid": "u"}})


@pytest.mark.parametrize("kind", ["Worker", "Workflow"])
def test_defaults_are_the_operators_own(kind: str) -> None:
    spec = pool(kind).spec
    defaults = {field.encode_name: field.default for field in msgspec.structs.fields(type(spec))}
    told = {name: each["default"] for name, each in fields(kind).items() if "default" in each and name != "scaling"}
    assert told == {name: defaults[name] for name in told}
    scaling = {name: each["default"] for name, each in fields(kind)["scaling"]["properties"].items()}
    assert scaling == msgspec.to_builtins(Scaling())


@pytest.mark.parametrize("kind", ["Worker", "Workflow"])
def test_status_has_a_place_for_all_that_is_told(kind: str) -> None:
    told = {"observedGeneration", "conditions", "currentBuild", "targetBuild", "replicas", "selector", "inFlight",
            "waiting", "builds"} | ({"runs", "lastErrors"} if kind == "Workflow" else set())  # fmt: skip
    status = schema(kind)["properties"]["status"]["properties"]
    assert set(status) == told
    assert status["conditions"]["x-kubernetes-list-type"] == "map"
    assert status["builds"]["items"]["properties"]["state"]["enum"] == list(get_args(State))


def test_the_examples_are_taken_by_the_operator() -> None:
    assert {item["kind"] for item in EXAMPLES} == set(CRDS)
    for item in EXAMPLES:
        assert item["apiVersion"] == f"{GROUP}/{VERSION}"
        if item["kind"] == "Connection":
            connection_of(item)
        else:
            given = {**item, "metadata": {**item["metadata"], "uid": "u"}}
            pool_of(Key(item["kind"], "default", item["metadata"]["name"]), given)


def test_the_chart_has_the_version_of_the_packages() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert (chart["version"], chart["appVersion"]) == ("0.1.0", "0.1.0")
