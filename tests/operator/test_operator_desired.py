"""What is applied for a pool, which build that is, and whether what is there still is it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from perdure_operator.builds import NAME_MAX, build_of, deployment_name, short_name
from perdure_operator.desired import account_name, deployment, disruption_budget, service_account
from perdure_operator.differences import differs, holds
from perdure_operator.objects import DELETION_COST, Key, Object, PoolKind
from perdure_operator.resources import Pool, Rejected, connection_of, pool_of

CONNECTION = connection_of(
    {
        "metadata": {"name": "default"},
        "spec": {
            "namespace": "prod",
            "pulsar": {
                "url": "pulsar+ssl://broker:6651",
                "tenant": "shops",
                "oauth2Secret": {"name": "pulsar", "key": "oauth2.json"},
                "tokenSecret": {"name": "pulsar", "key": "jwt"},
                "caSecret": {"name": "ca", "key": "root.pem"},
            },
            "api": {"url": "http://api:8080", "tokenSecret": {"name": "api", "key": "token"}},
        },
    }
)


def pool(kind: PoolKind = "Worker", name: str = "crop", **spec: Any) -> Pool:
    named: Object = {"tasks": ["crop", "scale"]} if kind == "Worker" else {"workflow": "order"}
    said = {**named, "image": "shop:1", **spec}
    item = {"metadata": {"uid": "u1", "generation": 3, "name": name}, "spec": {k: v for k, v in said.items() if v}}
    return pool_of(Key(kind, "shop", name), item)


def container(item: Object) -> Object:
    found: Object = item["spec"]["template"]["spec"]["containers"][0]
    return found


def environment(item: Object) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(item)["env"]}


def test_a_worker_is_told_what_to_serve_and_where() -> None:
    wanted = deployment(pool(app="shop.app:tasks", slots=7, drainTimeoutSeconds=20), CONNECTION, 2)
    assert environment(wanted) == {
        "PERDURE_APP": "shop.app:tasks",
        "PERDURE_BUILD": wanted["metadata"]["labels"]["perdure.dev/build"],
        "PERDURE_TASKS": "crop,scale",
        "PERDURE_SLOTS": "7",
        "PERDURE_GRACE_SECONDS": "20",
        "PERDURE_NAMESPACE": "prod",
        "PERDURE_PULSAR_URL": "pulsar+ssl://broker:6651",
        "PERDURE_PULSAR_TENANT": "shops",
        "PERDURE_PULSAR_OAUTH2": {"secretKeyRef": {"name": "pulsar", "key": "oauth2.json"}},
        "PERDURE_PULSAR_TLS_CA": "/etc/perdure/pulsar-ca/ca.crt",
        "PERDURE_PULSAR_TOKEN": {"secretKeyRef": {"name": "pulsar", "key": "jwt"}},
        "PERDURE_URL": "http://api:8080",
        "PERDURE_TOKEN": {"secretKeyRef": {"name": "api", "key": "token"}},
        "PERDURE_PROBE_HOST": "0.0.0.0",
        "PERDURE_PROBE_PORT": "9464",
        "PERDURE_INSTANCE": {"fieldRef": {"fieldPath": "metadata.name"}},
        "PERDURE_DELETION_COST": {
            "fieldRef": {"fieldPath": "metadata.annotations['controller.kubernetes.io/pod-deletion-cost']"}
        },
        "PYTHONHASHSEED": "0",
    }
    assert wanted["spec"]["replicas"] == 2
    assert wanted["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 35


def test_a_workflow_serves_its_name_and_no_task() -> None:
    told = environment(deployment(pool("Workflow"), CONNECTION, 0))
    assert told["PERDURE_WORKFLOWS"] == "order"
    assert "PERDURE_TASKS" not in told


def test_pods_are_restricted_and_have_a_place_to_write() -> None:
    wanted = deployment(pool(), CONNECTION, 1)
    spec = wanted["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container(wanted)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"name": "tmp", "mountPath": "/tmp"} in container(wanted)["volumeMounts"]
    assert {each["name"] for each in spec["volumes"]} == {"tmp", "pulsar-ca"}
    assert {container(wanted)[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")} == {
        "/healthz",
        "/readyz",
    }


def test_a_pool_owns_what_is_made_for_it() -> None:
    given = pool()
    for item in (deployment(given, CONNECTION, 0), service_account(given), disruption_budget(given)):
        (owner,) = item["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"], owner["controller"]) == ("Worker", "crop", "u1", True)
    assert service_account(given)["automountServiceAccountToken"] is False
    assert disruption_budget(given)["spec"]["maxUnavailable"] == "25%"


TEMPLATE: Object = {
    "metadata": {"annotations": {"team": "images", DELETION_COST: "5"}, "labels": {"team": "images"}},
    "spec": {
        "nodeSelector": {"disk": "fast"},
        "securityContext": {"runAsUser": 1000},
        "containers": [
            {"name": "log", "image": "log:1"},
            {
                "name": "worker",
                "image": "shop:1",
                "env": [{"name": "MODE", "value": "slow"}],
                "readinessProbe": {"exec": {"command": ["true"]}},
                "securityContext": {"readOnlyRootFilesystem": False},
            },
        ],
    },
}


def test_a_template_keeps_what_it_says_but_for_what_scaling_relies_on() -> None:
    given = pool(image=None, template=TEMPLATE, env=[{"name": "MODE", "value": "fast"}])
    before = copy.deepcopy(TEMPLATE)
    template = deployment(given, CONNECTION, 1)["spec"]["template"]
    assert before == TEMPLATE
    assert template["metadata"]["annotations"] == {"team": "images"}
    assert template["metadata"]["labels"].items() >= {"team": "images", "perdure.dev/worker": "crop"}.items()
    assert template["spec"]["nodeSelector"] == {"disk": "fast"}
    assert template["spec"]["securityContext"]["runAsUser"] == 1000
    worker = template["spec"]["containers"][1]
    assert worker["securityContext"]["readOnlyRootFilesystem"] is False
    assert worker["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert [each["value"] for each in worker["env"] if each["name"] == "MODE"] == ["fast"]
    assert "env" not in template["spec"]["containers"][0]


@pytest.mark.parametrize(
    "change",
    [
        {"image": "shop:2"}, {"app": "other.py"}, {"slots": 1}, {"tasks": ["crop"]}, {"env": [{"name": "A"}]},
        {"envFrom": [{"secretRef": {"name": "s"}}]}, {"resources": {"limits": {"cpu": "1"}}},
        {"drainTimeoutSeconds": 1}, {"imagePullPolicy": "Never"}, {"image": None, "template": TEMPLATE},
    ],
)  # fmt: skip
def test_what_determines_the_pods_makes_another_build(change: Object) -> None:
    assert build_of(pool(**change)) != build_of(pool())


@pytest.mark.parametrize("change", [{"scaling": {"max": 3}}, {"connection": "b"}, {"tasks": ["scale", "crop"]}])
def test_what_does_not_determine_the_pods_makes_none(change: Object) -> None:
    assert build_of(pool(**change)) == build_of(pool())


def test_a_build_is_the_same_in_every_release() -> None:
    """Else an update of the operator would replace all workers, and runs would wait for builds that are gone."""
    assert (build_of(pool()), build_of(pool("Workflow"))) == ("d462e36759", "9e3a67b361")


def test_names_fit_and_differ() -> None:
    first, second = "a" * 60 + "-x", "a" * 60 + "-y"
    names = {deployment_name(pool(name=name), "0123456789") for name in (first, second, "crop")}
    assert len(names) == 3
    assert max(map(len, names)) == NAME_MAX
    assert "crop-0123456789" in names
    assert len(account_name(pool(name=first))) <= 63
    assert account_name(pool()) != account_name(pool("Workflow"))
    assert short_name("a" * 29 + "-" + "b" * 20, 36)[-8:-6] != "--"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"image": None}, "exactly one of image and template"),
        ({"template": TEMPLATE}, "exactly one of image and template"),
        ({"tasks": None}, "at least one task"),
        ({"tasks": ["a,b"]}, "no name of a task"),
        ({"tasks": ["pack", "größe"]}, "'größe' is no name of a task: 1 to 200 of"),
        ({"slots": "many"}, "$.slots"),
        ({"env": [{"name": "PERDURE_TOKEN", "value": "x"}]}, "PERDURE_TOKEN is set by the operator"),
        ({"image": None, "template": {"spec": {}}}, "a list of containers"),
        ({"image": None, "template": {"spec": {"containers": [{"name": "a", "image": "b"}]}}}, "named 'worker'"),
        ({"image": None, "template": {"spec": {"containers": [{"name": "worker"}]}}}, "needs an image"),
        (
            {"image": None, "template": {"spec": {**TEMPLATE["spec"], "restartPolicy": "Never"}}},
            "restarted Always",
        ),
        (
            {"image": None, "template": {**TEMPLATE, "metadata": {"labels": {"perdure.dev/build": "b"}}}},
            "given by the operator",
        ),
    ],
)
def test_what_a_schema_cannot_check_is_refused_with_what_to_change(spec: Object, said: str) -> None:
    with pytest.raises(Rejected) as refused:
        pool(**spec)
    assert refused.value.reason == "InvalidSpec"
    assert said in str(refused.value)


def test_defaults_of_kubernetes_are_no_difference() -> None:
    wanted = deployment(pool(resources={"limits": {"cpu": "1000m", "memory": "1024Mi"}}), CONNECTION, 0)
    found = copy.deepcopy(wanted)
    found["spec"]["replicas"] = 5
    found["spec"]["progressDeadlineSeconds"] = 600
    container(found)["resources"]["limits"] = {"cpu": "1", "memory": "1Gi"}
    container(found)["env"].reverse()
    found["spec"]["template"]["spec"]["containers"].append({"name": "injected"})
    assert not differs(wanted, found)


def test_drift_and_what_is_wanted_no_longer_are_differences() -> None:
    wanted = deployment(pool(), CONNECTION, 0)
    found = copy.deepcopy(wanted)
    container(found)["image"] = "else:1"
    assert differs(wanted, found)
    without_ca = connection_of(
        {
            "metadata": {"name": "d"},
            "spec": {
                "pulsar": {"url": "pulsar://b"},
                "api": {"url": "http://a", "tokenSecret": {"name": "t", "key": "k"}},
            },
        }
    )
    assert differs(deployment(pool(), without_ca, 0), wanted)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True), ({"a": 1}, {"b": 2}, False), ({"a": ""}, {}, True), ({"a": {}}, {}, True),
        ([1, 2], [1, 2], True), ([1, 2], [1, 2, 3], False), ([{"name": "a"}], [{"name": "b"}, {"name": "a"}], True),
        ([{"name": "a", "x": 1}], [{"name": "a", "x": 2}], False), ("1Gi", "1024Mi", True), ("1Gi", "1G", False),
        ("a", "b", False), ("1", 1, True), (True, None, False),
    ],
)  # fmt: skip
def test_what_holds(wanted: Any, found: Any, expected: bool) -> None:
    assert holds(wanted, found) is expected
