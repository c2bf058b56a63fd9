"""What holds for every object that the chart makes, whatever the values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.charts import rendered
from tests.charts.rendered import Chart
from tests.cluster import images
from tests.cluster.provision import run

pytestmark = pytest.mark.timeout(600)  # Helm may have to be built
VALUES = pytest.mark.parametrize("values", rendered.VALUES, ids=lambda path: path.name.removesuffix("-values.yaml"))


def test_suites_of_the_chart_pass(chart: Chart) -> None:
    run(chart.tools / "helm-unittest", chart.folder)


@VALUES
def test_every_pod_is_admitted_where_security_is_restricted(chart: Chart, values: Path) -> None:
    for name, pod in rendered.pods(chart.objects(values)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in (*pod["containers"], *pod.get("initContainers", [])):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


@VALUES
def test_only_the_operator_has_a_token_of_kubernetes(chart: Chart, values: Path) -> None:
    pods = rendered.pods(chart.objects(values))
    assert {name for name, pod in pods if pod["automountServiceAccountToken"]} <= {"perdure-operator"}


def test_the_operator_may_do_what_it_asks_of_kubernetes_and_no_more(chart: Chart) -> None:
    said = yaml.safe_load((images.ROOT / "operator/rbac.yaml").read_text("utf-8"))
    usual = [rule for rule in said["namespaced"] if rule["resources"] != ["secrets"]]
    (own,) = (values for values in rendered.VALUES if values.name == "own-servers-values.yaml")
    for settings, rules in (((), usual), (("operator.keda.enabled=true",), [*usual, *said["keda"]])):
        (role,) = (each for each in chart.objects(own, *settings) if each["kind"] == "ClusterRole")
        assert role["rules"] == rules


@VALUES
def test_no_pod_takes_variables_of_services_for_settings(chart: Chart, values: Path) -> None:
    pods = list(rendered.pods(chart.objects(values)))
    assert pods
    assert [name for name, pod in pods if pod["enableServiceLinks"] is not False] == []


@VALUES
def test_every_container_says_what_it_needs_and_how_it_is(chart: Chart, values: Path) -> None:
    found = chart.objects(values)
    lasting = {each["metadata"]["name"] for each in found if each["kind"] in {"Deployment", "StatefulSet"}}
    for name, pod in rendered.pods(found):
        for container in pod["containers"]:
            assert {"requests", "limits"} <= set(container["resources"]), name
            if name in lasting:
                assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container), name


@VALUES
def test_objects_are_named_once_and_labeled(chart: Chart, values: Path) -> None:
    found = chart.objects(values)
    ours = [
        each for each in found if "as-" not in each["metadata"]["name"] and each["kind"] != "CustomResourceDefinition"
    ]
    assert [each["metadata"]["name"] for each in ours if "helm.sh/chart" not in each["metadata"]["labels"]] == []
    names = [(each["kind"], each["metadata"].get("namespace"), each["metadata"]["name"]) for each in found]
    assert len(names) == len(set(names))
