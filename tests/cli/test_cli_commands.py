"""The commands against a running `perdure dev`: output, exit codes, `try:` lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.dev_process import ENVIRONMENT, Dev, perdure, running_dev, until, warned

APP = Path(__file__).with_name("sample_app.py")


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    with running_dev(APP, tmp_path_factory.mktemp("dev") / "dev.sqlite") as running:
        yield running


def test_start_wait_prints_the_result(dev: Dev) -> None:
    assert dev.perdure("start", "plus", "41", "1", "--wait") == 42


def test_start_then_result(dev: Dev) -> None:
    started = dev.perdure("start", "plus", "1", "2", "--id", "sum-1")
    assert started["id"] == "sum-1"
    assert dev.perdure("result", "sum-1", "--wait") == 3


def test_who_starts_a_run_may_wait_for_so_long(dev: Dev) -> None:
    told = dev.perdure("start", "Votes", "1", "--id", "votes-long", "--timeout", "0.1", code=1)
    assert "is still open: running, waits for" in " ".join(told.split())
    assert dev.perdure("start", "plus", "1", "2", "--timeout", "60") == 3


def test_who_resumes_a_run_may_wait_for_its_end(dev: Dev) -> None:
    dev.perdure("start", "parsed", '"seven"', "--id", "waited", "--wait", code=1)
    assert "invalid literal" in dev.perdure("resume", "waited", "--wait", code=1)
    position = next(
        row["position"] for row in dev.perdure("show", "waited")["history"] if row["event"] == "task failed"
    )
    done = dev.perdure("resume", "waited", "--edit", f'{position}=["7"]', "--timeout", "60")
    assert done == {"id": "waited", "done": "completed"}


def test_a_list_that_ends_early_says_so_and_where_it_goes_on(dev: Dev) -> None:
    for number in range(3):
        dev.perdure("start", "plus", f"{number}", "--id", f"page-{number}", "--tag", "page", "--wait")
    listed = ("list", "--tag", "page", "--db", str(dev.database))
    until(lambda: len(perdure(*listed)) == 3)
    assert warned(*listed) == ""
    told = warned(*listed, "--limit", "2")
    assert "the newest 2; there are others: --limit, or --cursor " in " ".join(told.split())
    first = perdure(*listed, "--limit", "2")
    rest = perdure(*listed, "--limit", "2", "--cursor", told.split()[-1])
    assert [run["id"] for run in [*first, *rest]] == ["page-2", "page-1", "page-0"]
    assert "Traceback" not in perdure(*listed, "--cursor", "none", code=2)


def test_show_gives_programs_long_values_whole(dev: Dev) -> None:
    long = "x" * 100
    id = dev.perdure("start", "tidies", json.dumps(long))["id"]
    assert long in dev.perdure("show", id)["history"][0]["detail"]


def test_an_id_in_use_is_a_conflict(dev: Dev) -> None:
    dev.perdure("start", "Votes", "1", "--id", "votes-conflict")
    told = dev.perdure("start", "Votes", "1", "--id", "votes-conflict", code=4)
    assert "try:" in told
    assert "--conflict use-existing" in told
    again = dev.perdure("start", "Votes", "1", "--id", "votes-conflict", "--conflict", "use-existing")
    assert again["id"] == "votes-conflict"


def test_an_id_whose_run_has_ended_is_a_conflict_if_it_is_not_to_be_used_again(dev: Dev) -> None:
    first = dev.perdure("start", "plus", "1", "2", "--id", "once")
    assert dev.perdure("result", "once", "--wait") == 3
    never = ("start", "plus", "5", "5", "--id", "once", "--reuse", "never")
    told = dev.perdure(*never, code=4)
    assert 'has ended: completed, and reuse "never" lets no other begin' in " ".join(told.split())
    assert "--conflict use-existing" in told
    assert first["started"]
    there = dev.perdure(*never, "--conflict", "use-existing")
    assert (there["run_id"], there["started"]) == (first["run_id"], False)
    assert dev.perdure(*never, "--conflict", "use-existing", "--wait") == 3
    assert "always, after-failure or never" in dev.perdure("start", "plus", "1", "1", "--reuse", "once", code=2)


@pytest.mark.parametrize("command", [("start", "plus", "1", "1"), ("result", "sum"), ("list",), ("show", "sum")])
def test_a_namespace_that_is_not_served_is_told_with_those_that_are(dev: Dev, command: tuple[str, ...]) -> None:
    told = " ".join(dev.perdure(*command, "--namespace", "staging", code=3).split())
    assert "serves namespace 'default', not 'staging'" in told
    assert "try: --namespace default" in told


def test_what_is_done_to_no_run_is_told_and_does_nothing_to_a_later_one(dev: Dev) -> None:
    for command in ("cancel", "terminate", "pause", "unpause", "resume"):
        assert "there is no such run" in dev.perdure(command, "not-yet", code=3)
    assert dev.perdure("start", "plus", "1", "1", "--id", "not-yet", "--wait") == 2


def test_an_id_that_is_none_is_refused_before_anything_is_sent(dev: Dev) -> None:
    told = dev.perdure("start", "plus", "1", "2", "--id", "", code=2)
    assert "a workflow id is 1 to 400 printable characters" in told
    assert "Traceback" not in told


def test_who_waits_too_short_is_told_what_waits_longer(dev: Dev) -> None:
    dev.perdure("start", "Votes", "1", "--id", "votes-open")
    told = dev.perdure("result", "votes-open", "--wait", "--timeout", "0.1", code=1)
    assert "still open" in told
    assert "perdure result votes-open --wait   has no time limit" in told


def test_list_and_show(dev: Dev) -> None:
    dev.perdure("start", "plus", "1", "1", "--id", "listed", "--tag", "blue", "--wait")
    listed = {"id": "listed", "workflow": "plus", "status": "completed"}
    until(lambda: [listed.items() <= run.items() for run in dev.perdure("list", "--tag", "blue")] == [True])
    assert "one of running, paused, stuck" in dev.perdure("list", "--status", "ended", code=2)
    assert "has no workflow 'pluss'" in dev.perdure("list", "--workflow", "pluss", code=3)
    shown = dev.perdure("show", "listed")
    assert [row["event"] for row in shown["history"]] == ["started", "task dispatched", "task completed", "completed"]
    assert shown["history"][1]["detail"] == "add(1,1)"


def test_a_table_when_asked_for(dev: Dev) -> None:
    dev.perdure("start", "plus", "1", "1", "--id", "tabled", "--wait")
    command = [sys.executable, "-m", "perdure.cli", "show", "tabled", "-o", "table", "--db", str(dev.database)]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=60).stdout
    assert "task dispatched" in told
    assert "\x1b" not in told


def test_signal_and_query(dev: Dev) -> None:
    dev.perdure("start", "Votes", "2", "--id", "votes")
    dev.perdure("signal", "votes", "names", '"Ada"')
    assert dev.perdure("query", "votes", "so_far") == ["Ada"]
    assert "it has so_far" in dev.perdure("query", "votes", "so_fra", code=3)
    assert "it has add" in dev.perdure("update", "votes", "adds", '"Ada"', code=3)
    assert "so_far" in dev.perdure("query", "votes", "so_far", "1", code=2)
    assert "cannot be read as str" in dev.perdure("update", "votes", "add", "1", code=2)
    assert "still open" in dev.perdure("result", "votes", code=1)
    dev.perdure("signal", "votes", "names", '"Grace"')
    assert dev.perdure("result", "votes", "--wait") == ["Ada", "Grace"]


def test_a_signal_to_no_run_is_taken_and_warned_of(dev: Dev) -> None:
    command = [sys.executable, "-m", "perdure.cli", "signal", "typo", "names", '"Ada"', "--db", str(dev.database)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT, timeout=60)
    assert "there is no run of workflow id 'typo' yet" in done.stderr
    assert json.loads(done.stdout)["done"] == "signaled on names"
    dev.perdure("start", "Votes", "1", "--id", "typo")
    assert dev.perdure("result", "typo", "--wait") == ["Ada"]


def test_a_signal_of_another_type_is_refused_before_it_is_sent(dev: Dev) -> None:
    dev.perdure("start", "Votes", "1", "--id", "votes-typed")
    told = dev.perdure("signal", "votes-typed", "names", "5", code=2)
    assert "a signal of names cannot be read as str" in told
    assert "(Votes has channel names (str))" in told
    assert "a signal of names needs a value" in dev.perdure("signal", "votes-typed", "names", code=2)
    assert "Votes declares no channel 'nmes'; it has names (str)" in dev.perdure(
        "signal", "votes-typed", "nmes", "1", code=3
    )
    dev.perdure("signal", "votes-typed", "nmes", "1", "--unchecked")
    dev.perdure("signal", "votes-typed", "names", '"Ada"')
    assert dev.perdure("result", "votes-typed", "--wait") == ["Ada"]


def test_resume_after_what_made_up_for_the_failure_names_it_and_what_to_type(dev: Dev) -> None:
    dev.perdure("start", "made_up_for", '"seven"', "--id", "made-up", "--wait", code=1)
    told = dev.perdure("resume", "made-up", "--edit", '0=["7"]', code=4)
    assert "completed add (position 1)" in told
    assert "perdure resume made-up --anyway" in told
    dev.perdure("resume", "made-up", "--edit", '0=["7"]', "--anyway")
    assert dev.perdure("result", "made-up", "--wait") == 7


def test_a_reset_to_before_what_was_done_since_names_it_and_what_to_type(dev: Dev) -> None:
    dev.perdure("start", "made_up_for", '"seven"', "--id", "made-up-reset", "--wait", code=1)
    told = dev.perdure("reset", "made-up-reset", "--to", "0", code=4)
    assert "after position 0 the run completed add (position 1)" in told
    assert "perdure reset made-up-reset --to 0 --anyway" in told
    assert dev.perdure("show", "made-up-reset")["generation"] == 0
    dev.perdure("reset", "made-up-reset", "--to", "0", "--edit", '0=["7"]', "--anyway")
    assert dev.perdure("result", "made-up-reset", "--wait") == 7


def test_resume_with_edited_input_goes_on_from_the_failure(dev: Dev) -> None:
    told = dev.perdure("start", "parsed", '"seven"', "--id", "edited", "--wait", code=1)
    assert "perdure resume edited" in told
    shown = dev.perdure("show", "edited")
    assert shown["status"] == "failed"
    assert "invalid literal for int()" in shown["traceback"]
    position = _position_of("parse", shown["history"])
    dev.perdure("resume", "edited", "--edit", f'{position}=["7"]')
    assert dev.perdure("result", "edited", "--wait") == 7
    history = dev.perdure("show", "edited")["history"]
    assert sum(row["event"] == "task completed" and row["detail"].startswith("add") for row in history) == 1


def test_resume_with_a_skipped_task(dev: Dev) -> None:
    dev.perdure("start", "parsed", '"eight"', "--id", "skipped", "--wait", code=1)
    position = _position_of("parse", dev.perdure("show", "skipped")["history"])
    dev.perdure("resume", "skipped", "--skip", f"{position}=8")
    assert dev.perdure("result", "skipped", "--wait") == 8


def _position_of(task: str, history: list[dict[str, str]]) -> str:
    return next(r["position"] for r in history if r["event"] == "task dispatched" and r["detail"].startswith(task))


def test_reset_runs_an_ended_run_again_from_a_position(dev: Dev) -> None:
    assert dev.perdure("start", "plus", "1", "1", "--id", "again", "--wait") == 2
    position = dev.perdure("show", "again")["history"][1]["position"]
    dev.perdure("reset", "again", "--to", position)
    assert dev.perdure("result", "again", "--wait") == 2
    assert dev.perdure("show", "again")["generation"] == 1


def test_cancel_and_terminate(dev: Dev) -> None:
    for verb, status in (("cancel", "canceled"), ("terminate", "terminated")):
        dev.perdure("start", "Votes", "1", "--id", f"to-{verb}")
        dev.perdure(verb, f"to-{verb}", "--reason", "no longer needed")
        assert "no longer needed" in str(dev.perdure("show", f"to-{verb}")["history"])
        dev.perdure("result", f"to-{verb}", "--wait", code=1)
        assert dev.perdure("show", f"to-{verb}")["status"] == status


@pytest.mark.parametrize(("then", "ended"), [("end", "canceled"), ("complete", "completed")])
def test_a_cancel_can_be_waited_for(then: str, ended: str, dev: Dev) -> None:
    dev.perdure("start", "tidies", f'"{then}"', "--id", f"tidies-{then}")
    told = dev.perdure("cancel", f"tidies-{then}", "--wait")
    assert told == {"id": f"tidies-{then}", "done": ended}
    assert dev.perdure("show", f"tidies-{then}")["status"] == ended


def test_a_cancel_that_ends_in_a_failure_tells_it(dev: Dev) -> None:
    dev.perdure("start", "tidies", '"fail"', "--id", "tidies-fail")
    assert "it cannot be undone" in dev.perdure("cancel", "tidies-fail", "--wait", code=1)


def test_a_cancel_is_waited_for_no_longer_than_was_said_and_what_ends_it_at_once_is_told(dev: Dev) -> None:
    dev.perdure("start", "tidies", '"linger"', "--id", "lingers")
    told = " ".join(dev.perdure("cancel", "lingers", "--timeout", "0.2", code=1).split())
    assert "'lingers' is still open" in told
    assert "try: perdure terminate lingers" in told
    dev.perdure("terminate", "lingers")


def test_a_paused_run_goes_on_when_unpaused(dev: Dev) -> None:
    dev.perdure("start", "Votes", "1", "--id", "paused")
    dev.perdure("pause", "paused")
    dev.perdure("signal", "paused", "names", '"Ada"')
    assert dev.perdure("show", "paused")["status"] == "paused"
    dev.perdure("unpause", "paused")
    assert dev.perdure("result", "paused", "--wait") == ["Ada"]


def test_an_update_prints_its_answer(dev: Dev) -> None:
    dev.perdure("start", "Votes", "2", "--id", "votes-updated")
    assert dev.perdure("update", "votes-updated", "add", '"Ada"') == 1
    assert "it has add" in dev.perdure("update", "votes-updated", "ad", '"Ada"', code=3)


def test_start_wait_tells_the_id_on_stderr(dev: Dev) -> None:
    command = [sys.executable, "-m", "perdure.cli", "start", "plus", "1", "1", "--id", "told", "--wait"]
    command += ["--db", str(dev.database)]
    never = ["--reuse", "never", "--conflict", "use-existing"]
    for told, more in (("started told", []), ("told is there already: completed", never)):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=True, timeout=60)
        assert (done.stdout, done.stderr) == ("2\n", f"{told}\n")


def test_hints_name_what_works(dev: Dev) -> None:
    dev.perdure("start", "Votes", "1", "--id", "votes-ended")
    dev.perdure("cancel", "votes-ended")
    told = dev.perdure("result", "votes-ended", "--wait", code=1)
    assert "perdure show votes-ended" in told
    assert "perdure resume" not in told, "it would be refused"
    for command in (["cancel", "votes-ended"], ["signal", "votes-ended", "names", '"Ada"']):
        assert "try: perdure show votes-ended" in dev.perdure(*command, code=4)


def test_an_edit_that_is_no_array_is_a_wrong_use(dev: Dev) -> None:
    told = dev.perdure("resume", "whatever", "--edit", "0=7", code=2)
    assert "try: --edit 0='[7]'" in told


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "perdure.cli", "--version"], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.startswith(b"perdure 0.")


def test_an_app_that_cannot_be_read_is_told_from_its_own_line_on(tmp_path: Path) -> None:
    app = tmp_path / "broken_app.py"
    app.write_text("def broken(:\n")
    told = perdure("run", str(app), "broken", code=1)
    assert told.startswith(f'  File "{app}", line 1')
    assert told.endswith(f"error: {app} cannot be imported\n")


def test_after_a_kill_the_hint_is_as_after_a_stop(tmp_path: Path) -> None:
    with running_dev(APP, tmp_path / "killed.sqlite") as killed:
        killed.process.kill()
        killed.process.wait()
        told = killed.perdure("list", code=5)
    assert told.startswith("error: no `perdure dev` runs on ")
    assert told == perdure("list", "--db", str(tmp_path / "none.sqlite"), code=5).replace(
        "none.sqlite", "killed.sqlite"
    )


def test_an_unknown_run_is_not_found(dev: Dev) -> None:
    for command in (["show", "nobody"], ["result", "nobody"], ["resume", "nobody"]):
        told = dev.perdure(*command, code=3)
        assert "try: perdure list" in " ".join(told.split())


def test_an_argument_that_is_no_json_is_quoted_in_the_hint(dev: Dev) -> None:
    told = dev.perdure("start", "parsed", "seven", code=2)
    assert """'"seven"'""" in told


def test_a_negative_number_is_a_value_and_a_wrong_option_is_none(dev: Dev) -> None:
    assert dev.perdure("start", "plus", "-41", "-1", "--wait") == -42
    assert "no such option: --wiat" in dev.perdure("start", "plus", "1", "--wiat", code=2)


def test_without_a_dev_commands_say_how_to_start_one(tmp_path: Path) -> None:
    told = perdure("list", "--db", str(tmp_path / "none.sqlite"), code=5)
    assert "perdure dev app.py" in told


def test_run_in_one_process() -> None:
    assert perdure("run", str(APP), "plus", "1", "2") == 3
    assert "one of: " in perdure("run", str(APP), "minus", "1", code=3)
    assert "no application" in perdure("run", "nowhere.py", "plus", code=2)
    told = perdure("run", str(APP), "mistaken", "1", code=1)
    assert "workflow mistaken cannot go on: ValueError: 1 is wrong" in told
    assert told.count("raise ValueError") == 1


FORGETFUL = """
import time
from perdure import task, workflow

@task
async def add(left: int, right: int) -> int:
    return left + right

@workflow
async def plus(left: int, right: int) -> int:
    return await add(left, right)

@workflow
async def late() -> float:
    return time.time()
"""


def test_run_leaves_out_another_workflow_that_the_guard_refuses_and_says_so(tmp_path: Path) -> None:
    app = tmp_path / "forgetful_app.py"
    app.write_text(FORGETFUL)
    assert perdure("run", str(app), "plus", "1", "2") == 3
    assert "late is left out" in warned("run", str(app), "plus", "1", "2")
    refused = perdure("run", str(app), "late", code=2)
    assert "time.time()" in refused
    assert "left out" not in refused


def test_help_is_fast() -> None:
    """Half of a second is what a person takes for at once; in processor time, so that a loaded machine may be slow."""
    times = []
    for _ in range(3):
        before = os.times()
        subprocess.run([sys.executable, "-m", "perdure.cli", "--help"], check=True, capture_output=True, timeout=60)
        after = os.times()
        times.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(times) < 0.8
    loaded = "import perdure.cli.application, sys; print([name for name in sys.modules if name.startswith('fastavro')])"
    told = subprocess.run([sys.executable, "-c", loaded], check=True, capture_output=True, text=True, timeout=60).stdout
    assert told == "[]\n", "neither engine nor client are loaded to show help"


def test_a_worker_of_a_cluster_runs_under_the_hash_seed_of_all_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "telling_app.py"
    app.write_text("import sys\nsys.exit(40 + sys.flags.hash_randomization)\n")
    monkeypatch.setitem(ENVIRONMENT, "PYTHONHASHSEED", "random")
    perdure("worker", str(app), code=40)


_POOLS = """
from perdure import task, workflow

@task
async def pack() -> None: ...

@task
async def ship() -> None: ...

@workflow
async def order() -> None:
    await ship()
"""


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("PERDURE_TASKS=pack, fly,swim", "the app has no task fly, swim; it has: pack, ship"),
        ("PERDURE_WORKFLOWS=ship", "the app has no workflow ship; it has: order"),
    ],
)
def test_a_worker_whose_app_lacks_what_it_is_to_run_ends_and_says_what_there_is(
    given: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = tmp_path / "pools_app.py"
    app.write_text(_POOLS)
    monkeypatch.setitem(ENVIRONMENT, *given.split("="))
    lines = perdure("worker", str(app), code=78).splitlines()
    assert lines == [f"{told} (PERDURE_TASKS, PERDURE_WORKFLOWS)"]
