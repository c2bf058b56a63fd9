"""What the operator makes for KEDA, and KEDA's own definitions, as it publishes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from perdure_operator.keda import API_VERSION, scaled_object, trigger_authentication
from perdure_operator.objects import Object
from tests.operator.test_operator_desired import CONNECTION, pool
from tests.operator.test_operator_docs import strict

pytestmark = pytest.mark.timeout(600)  # Helm may have to be built
SCALED = scaled_object(pool(scaling={"provider": "keda", "targetUtilization": 33}), CONNECTION, "b", 1)


def check(item: Object, definitions: Path) -> None:
    """Raises ValidationError: the API server would not take it, or would drop a field."""
    found = (yaml.safe_load(path.read_text("utf-8")) for path in definitions.glob("keda.sh_*.yaml"))
    (definition,) = (each for each in found if each["spec"]["names"]["kind"] == item["kind"])
    (version,) = definition["spec"]["versions"]
    assert item["apiVersion"] == API_VERSION == f"{definition['spec']['group']}/{version['name']}"
    told = {**item, "metadata": {}}
    jsonschema.validate(told, strict(version["schema"]["openAPIV3Schema"]), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize("item", [SCALED, trigger_authentication(pool(), CONNECTION)], ids=lambda item: item["kind"])
def test_what_the_operator_makes_fits(chart_tools: Path, item: Object) -> None:
    check(item, chart_tools / "definitions")


@pytest.mark.parametrize("change", [{"cooldown": 1}, {"minReplicaCount": "1"}, {"triggers": [{"type": "metrics-api"}]}])
def test_what_does_not_fit_is_found(chart_tools: Path, change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({**SCALED, "spec": {**SCALED["spec"], **change}}, chart_tools / "definitions")
