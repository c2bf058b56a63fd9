"""From an empty cluster to the result of a run: what docs/howto tells a user to do."""

from __future__ import annotations

import io
import json
import time
import urllib.request
from datetime import datetime
from typing import Any

import pytest
from PIL import Image

from tests.cluster import images
from tests.e2e import objects, pools
from tests.e2e.release import LONG, NAME, NAMESPACE, Release, Steps, until

pytestmark = pytest.mark.timeout(1_800)

PICTURES_PORT = 8000
PUBLISHED = 23
"""Pictures that the example makes of one photograph."""
TASKS = ("crop", "download", "resize", "save", "upload")
_TIMER = "app.kubernetes.io/component=timer"
WAKE_MAX_S = 15 if LONG else 30
"""From a start to the first pod that is ready; 15 s are promised, on a machine that is not busy otherwise."""


@pytest.mark.parametrize("service", images.SERVICES)
def test_a_pod_runs_the_service_that_it_is_named_for(installed: Release, service: str) -> None:
    first, *_ = installed.kubectl("logs", f"deployment/{NAME}-{service}").splitlines()
    assert json.loads(first)["service"] == service


def test_a_run_started_from_outside_wakes_workers_that_do_it(installed: Release, steps: Steps) -> None:
    _start_pictures(installed)
    # The example's tasks hand each other files: one pod at a time, which has them in its /tmp.
    example: dict[str, Any] = {"image": images.EXAMPLE.name, "scaling": {"min": 0, "max": 1}}
    folder = [{"name": "IMAGE_CROP_FOLDER", "value": "/tmp"}]
    with steps.step("Workflow and Worker declared, and accepted at zero pods"):
        installed.apply(
            pools.workflow("publish_photograph", **example), pools.worker("image-crop", TASKS, env=folder, **example)
        )
        declared = ("workflow/publish-photograph", "worker/image-crop")
        installed.kubectl("wait", "--for=condition=Available", "--timeout=60s", *declared)
    place = f"http://pictures.{NAMESPACE}.svc:{PICTURES_PORT}"
    arguments = [json.dumps(value) for value in (f"{place}/7.jpg", f"{place}/uploads", "noon")]
    with installed.forwarded(f"{NAME}-api", 8420) as url:
        with steps.step("run started with the CLI and its result read"):
            began = time.time()
            started = installed.perdure(
                url, "start", "publish_photograph", *arguments, "--id", "noon", "--unchecked", "--wait"
            )
        album = json.loads(started)
        (listed,) = json.loads(installed.perdure(url, "list", "--output", "json"))
    assert (listed["id"], listed["status"]) == ("noon", "completed")
    woken = [_ready_at(installed, f"perdure.dev/{each.replace('/', '=')}") for each in declared]
    for each, since, at in zip(declared, (began, woken[0]), woken, strict=True):
        steps.say(f"           {each}: ready {at - since:.0f} s after what it has to do")
        assert at - since <= WAKE_MAX_S
    with steps.step("pictures looked at"):
        _look_at(installed, [*album["large"], *album["thumbnails"]])
    installed.kubectl("delete", "--timeout=60s", *declared)


def test_the_test_of_the_chart_runs_a_workflow(installed: Release, steps: Steps) -> None:
    with steps.step("helm test"):
        told = installed.cluster.helm("test", NAME, "--namespace", NAMESPACE, "--timeout", "3m")
    assert "Succeeded" in told


def test_an_upgrade_and_a_rollback_keep_what_is_there_and_migrate_nothing_again(
    installed: Release, steps: Steps
) -> None:
    token, jobs = installed.read_token(), installed.kubectl("get", "jobs", "-o", "jsonpath={.items[*].metadata.uid}")
    connection = installed.get("connection", "default")["metadata"]["uid"]

    def check_is_as_before() -> None:
        assert installed.read_token() == token
        assert installed.kubectl("get", "jobs", "-o", "jsonpath={.items[*].metadata.uid}") == jobs

    with steps.step("helm upgrade to two timers"):
        installed.upgrade("timer.replicas=2")
        until("there are two", lambda: len(installed.pods(_TIMER)) == 2)
    check_is_as_before()
    assert installed.get("connection", "default")["metadata"]["uid"] == connection
    with steps.step("helm rollback to one"):
        installed.roll_back()
        until("there is one", lambda: len(installed.pods(_TIMER)) == 1)
    check_is_as_before()
    assert installed.get("connection", "default")["spec"]["namespace"], "a hook makes it again"
    with installed.forwarded(f"{NAME}-api", 8420) as url:
        assert "noon" in [each["id"] for each in json.loads(installed.perdure(url, "list", "--output", "json"))]


def _ready_at(installed: Release, labels: str) -> float:
    """Epoch seconds."""
    (pod,) = installed.pods(labels)
    (ready,) = (each for each in pod["status"]["conditions"] if each["type"] == "Ready")
    assert ready["status"] == "True"
    return datetime.fromisoformat(ready["lastTransitionTime"]).timestamp()


def _start_pictures(installed: Release) -> None:
    here = images.ROOT / "tests/e2e/pictures.py"
    command = ["python", "/pictures/pictures.py", str(PICTURES_PORT)]
    folders = {"/pictures": {"configMap": {"name": "pictures"}}}
    installed.apply(
        objects.files("pictures", here, images.ROOT / "examples/image_crop/photographs.py"),
        objects.service("pictures", PICTURES_PORT),
        objects.deployment(
            "pictures", images.EXAMPLE.name, command=command, port=PICTURES_PORT, ready="/1.jpg", folders=folders
        ),
    )
    installed.kubectl("rollout", "status", "deployment/pictures", "--timeout=180s")


def _look_at(installed: Release, urls: list[str]) -> None:
    assert len(set(urls)) == PUBLISHED
    with installed.forwarded("pictures", PICTURES_PORT) as here:
        for url in urls:
            path = url.partition(".svc:")[2].partition("/")[2]
            with urllib.request.urlopen(f"{here}/{path}", timeout=10) as answer:
                picture = Image.open(io.BytesIO(answer.read()))
            size = int(path.rpartition("-")[2].removesuffix(".jpg"))
            assert (picture.format, picture.size) == ("JPEG", (size, size))
