"""`perdure dev`: ready soon, its worker restarted and reloaded, one per file, gone on Ctrl-C."""

from __future__ import annotations

import os
import shutil
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.cli.dev_process import ENVIRONMENT, WAIT_SECONDS, Dev, perdure, rewrite, running_dev, until, warned

APP = Path(__file__).with_name("sample_app.py")


def test_ready_within_two_seconds(tmp_path: Path) -> None:
    """On a machine that does nothing else: of what it waits for while others have the processors nothing is its own."""
    dev = Dev(APP, tmp_path / "dev.sqlite")
    try:
        ready = dev.wait_for("ready")
        assert ready["seconds"] > 0
        assert _processor_seconds(ready["pid"]) < 2
    finally:
        dev.stop()


def _processor_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_a_killed_worker_is_started_again_and_its_task_done(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    with running_dev(APP, tmp_path / "dev.sqlite") as dev:
        dev.perdure("start", "interrupted", f'"{marker}"', "--id", "hit")
        until(lambda: marker.exists() and marker.read_text())
        victim = int(marker.read_text())
        os.kill(victim, signal.SIGKILL)
        assert dev.wait_for("worker-exited")["pid"] == victim
        assert dev.perdure("result", "hit", "--wait") != victim


def test_the_worker_reloads_when_a_file_changes(tmp_path: Path) -> None:
    app = Path(shutil.copy(APP, tmp_path / "reloaded_app.py"))
    with running_dev(app, tmp_path / "dev.sqlite") as dev:
        assert dev.perdure("start", "plus", "1", "1", "--wait") == 2
        rewrite(app, app.read_text().replace("return left + right", "return left - right"))
        dev.wait_for("worker-reloading")
        dev.wait_for("worker-ready")
        assert dev.perdure("start", "plus", "1", "1", "--wait") == 0


def test_an_app_that_cannot_be_imported_is_shown_and_tried_again_when_mended(tmp_path: Path) -> None:
    app = tmp_path / "broken_app.py"
    app.write_text("import perdure\nthis is no python\n")
    dev = Dev(app, tmp_path / "dev.sqlite")
    try:
        dev.wait_for("worker-started")
        until(lambda: "waits for a change" in dev.errors)
        assert "SyntaxError" in dev.errors
        rewrite(app, APP.read_text())
        dev.wait_for("worker-ready")
        assert dev.perdure("start", "plus", "1", "1", "--wait") == 2
    finally:
        dev.stop()


BROKEN = [
    "import perdure\nimport broken_part\n",
    "from perdure import task\n@task\ndef f(*a): ...\n",
]


@pytest.mark.parametrize("text", BROKEN)
def test_an_app_whose_part_is_mended_is_loaded_again(text: str, tmp_path: Path) -> None:
    """The part that breaks the import is no module yet; a definition that cannot work is told in one line."""
    part, app = tmp_path / "broken_part.py", tmp_path / "broken_app.py"
    part.write_text("1 = 2\n")
    app.write_text(text)
    dev = Dev(app, tmp_path / "dev.sqlite")
    try:
        until(lambda: "waits for a change" in dev.errors)
        assert "SyntaxError" in dev.errors or "error: " in dev.errors
        assert "_app.py" not in dev.errors.replace("broken_app.py", ""), "frames of ours are no news"
        rewrite(part, "from perdure import task\n@task\ndef f(): ...\n")
        if "broken_part" not in text:
            rewrite(app, "import broken_part\n")
        assert dev.wait_for("worker-ready")["event"] == "worker-ready"
    finally:
        dev.stop()


def test_a_file_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    told = perdure("dev", str(tmp_path / "nowhere.py"), code=2)
    assert "there is no file" in told
    assert not list(tmp_path.iterdir())


def test_two_on_one_file(tmp_path: Path) -> None:
    with running_dev(APP, tmp_path / "dev.sqlite") as dev:
        told = perdure("dev", str(APP), "--db", str(dev.database), code=4)
        assert "Another process holds" in told or "in use" in told
        assert "--db" in told
        assert dev.perdure("start", "plus", "1", "1", "--wait") == 2


def test_runs_survive_a_kill_of_the_engine(tmp_path: Path) -> None:
    database = tmp_path / "dev.sqlite"
    with running_dev(APP, database) as dev:
        dev.perdure("start", "Votes", "2", "--id", "votes")
        dev.perdure("signal", "votes", "names", '"Ada"')
        dev.process.kill()
    with running_dev(APP, database) as dev:
        dev.perdure("signal", "votes", "names", '"Grace"')
        assert dev.perdure("result", "votes", "--wait") == ["Ada", "Grace"]


def test_control_c_ends_it_and_its_worker(tmp_path: Path) -> None:
    dev = Dev(APP, tmp_path / "dev.sqlite")
    try:
        worker = dev.wait_for("worker-ready")["pid"]
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=WAIT_SECONDS) == 0
        assert not _runs(worker)
    finally:
        dev.stop()


def test_a_second_control_c_ends_it_at_once_though_a_task_runs(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    patient = "from perdure.cli import dev, supervisor\ndev.GRACE_SECONDS = supervisor.DRAIN_SECONDS = 3600.0"
    dev = Dev(APP, tmp_path / "dev.sqlite", patient)
    try:
        dev.wait_for("worker-ready")
        dev.perdure("start", "interrupted", f'"{marker}"')
        until(marker.exists)
        dev.process.send_signal(signal.SIGINT)
        dev.wait_for("stopping")  # a second signal before the first is taken would be one with it
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=WAIT_SECONDS) == 130, "its worker, whose task has an hour, is not waited for"
    finally:
        dev.stop()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_commands_ask_the_api_at_perdure_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dev = Dev(APP, tmp_path / "dev.sqlite")
    try:
        url = dev.wait_for("api")["url"]
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", url)
        assert perdure("start", "plus", "1", "1", "--wait", "--id", "sum") == 2
        assert perdure("result", "sum") == 2
        until(lambda: [run["id"] for run in perdure("list")] == ["sum"])
        assert perdure("show", "sum")["status"] == "completed"
        assert "no run" in perdure("show", "other", code=3)
        unknown = warned("start", "pluss", "1", "1", "--unchecked")
        assert "no worker has announced a workflow 'pluss' yet; known: plus, " in unknown
        assert warned("start", "plus", "1", "1") == ""
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", f"{url}/foo")
        assert "foo/api/v1/namespaces/default is no API of Perdure" in perdure("list", code=5)
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", url.removeprefix("http://"))
        assert f"try: PERDURE_URL={url}" in perdure("list", code=2)
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_URL", "http://127.0.0.1:9")
        assert "PERDURE_URL=http://127.0.0.1:9" in perdure("list", code=5)
        assert dev.perdure("show", "sum")["status"] == "completed", "an option wins over the environment"
        elsewhere = str(tmp_path / "other.sqlite")
        assert f"no `perdure dev` runs on {elsewhere}" in perdure("cancel", "sum", "--db", elsewhere, code=5)
        monkeypatch.setitem(ENVIRONMENT, "PERDURE_DB", elsewhere)
        assert "PERDURE_URL=http://127.0.0.1:9" in perdure("list", code=5), "of two variables the URL holds"
    finally:
        dev.stop()


def test_no_web_page_may_ask_the_api(tmp_path: Path) -> None:
    dev = Dev(APP, tmp_path / "dev.sqlite")
    try:
        runs = f"{dev.wait_for('api')['url']}/api/v1/namespaces/default/runs"
        with urllib.request.urlopen(runs) as answer:
            assert answer.status == 200
        for header in ({"Origin": "https://example.org"}, {"Host": "example.org"}):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(urllib.request.Request(runs, headers=header))
            assert refused.value.code == 403
            refused.value.close()
    finally:
        dev.stop()
