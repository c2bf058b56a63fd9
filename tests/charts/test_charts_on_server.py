"""What a real API server says of the chart's objects, without making any."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charts import openapi, rendered
from tests.charts.rendered import Chart
from tests.cluster.provision import Cluster, Failed, run
from tests.servers import provision

pytestmark = pytest.mark.timeout(900)
VALUES = pytest.mark.parametrize("values", rendered.VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))
_NAMESPACES = (rendered.NAMESPACE, "one")
"""Of the release, and the one which an operator of charts/perdure/ci looks after."""


@pytest.fixture(scope="module")
def server(cluster: Cluster, chart: Chart, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One that knows every kind of the charts, and warns of pods that are not restricted."""
    made = tmp_path_factory.mktemp("made") / "objects.yaml"
    own = cluster.helm("template", chart.folder.parent / "perdure-crds", "--kube-version", rendered.KUBERNETES)
    labels = {"pod-security.kubernetes.io/warn": "restricted"}
    namespaces = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}} for name in _NAMESPACES
    ]
    made.write_text("\n---\n".join([own, *map(json.dumps, namespaces)]))
    given = ("--filename", cluster.bin / "definitions", "--filename", made)
    with provision.alone():  # what measures is not measured beside this
        cluster.kubectl("apply", "--server-side", *given)
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
        yield cluster
        cluster.kubectl("delete", "--ignore-not-found", *given)


@pytest.fixture(scope="module")
def schemas(server: Cluster, tmp_path_factory: pytest.TempPathFactory) -> str:
    told = json.loads(server.kubectl("get", "--raw", "/openapi/v2"))
    return openapi.write(told, tmp_path_factory.mktemp("schemas"))


@VALUES
def test_objects_fit_the_schemas(chart: Chart, schemas: str, values: Path, tmp_path: Path) -> None:
    (tmp_path / "objects.yaml").write_text(chart.text(values, "crds.install=false"))
    told = run(chart.tools / "kubeconform", "-summary", "-schema-location", schemas, tmp_path / "objects.yaml")
    assert "Invalid: 0, Errors: 0, Skipped: 0" in told


def test_a_field_that_is_none_is_found(chart: Chart, schemas: str, tmp_path: Path) -> None:
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"porst": []}}
    (tmp_path / "objects.yaml").write_text(json.dumps(wrong))
    with pytest.raises(Failed, match="porst"):
        run(chart.tools / "kubeconform", "-schema-location", schemas, tmp_path / "objects.yaml")


@VALUES
def test_the_server_would_take_them_and_warns_of_nothing(chart: Chart, server: Cluster, values: Path) -> None:
    given = chart.text(values, "crds.install=false")
    command = ("kubectl", "apply", "--server-side", "--dry-run=server", "--warnings-as-errors", "-f", "-")
    server.run(*command, input=given)
