"""`--edit` and `--skip` of resume and reset: checked by type before they are sent; what slips through can be healed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.dev_process import Dev, running_dev, until

APP = """
from perdure import task, workflow

@task
async def charge(customer: str, cents: int) -> str:
    return f"receipt-{customer}-{cents}"

@task
async def parse(text: str) -> int:
    return int(text)

@workflow
async def inner(text: str) -> int:
    return int(await parse(text))

@workflow
async def parsed(text: str) -> str:
    return f"{await charge('ada', 5)} {await parse(text)}"

@workflow
async def outer(text: str) -> int:
    return await inner(text)
"""


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev")
    (folder / "corrected_app.py").write_text(APP)
    with running_dev(folder / "corrected_app.py", folder / "dev.sqlite") as running:
        yield running


def failed(dev: Dev, id: str, workflow: str = "parsed") -> str:
    dev.perdure("start", workflow, '"seven"', "--id", id, "--wait", code=1)
    return id


def stuck(dev: Dev, id: str) -> str:
    dev.perdure("resume", failed(dev, id), "--skip", '1="abc"', "--unchecked")
    until(lambda: dev.perdure("show", id)["status"] == "stuck")
    return id


def test_a_skip_of_another_type_is_refused_before_it_is_sent(dev: Dev) -> None:
    id = failed(dev, "skip-typed")
    for value in ('"abc"', "null"):
        told = dev.perdure("resume", id, "--skip", f"1={value}", code=2)
        assert "error: --skip 1: the result of parse" in told
        assert "try: --skip 1=RESULT   (parse returns int)" in told
    assert dev.perdure("show", id)["generation"] == 0


def test_an_edit_of_other_types_is_refused_before_it_is_sent(dev: Dev) -> None:
    id = failed(dev, "edit-typed")
    told = dev.perdure("resume", id, "--edit", "1=[5]", code=2)
    assert "error: --edit 1: argument 'text' of parse cannot be read as str" in told
    assert "(it is parse(text: str))" in told
    assert dev.perdure("show", id)["generation"] == 0


def test_of_a_child_the_types_are_checked_too(dev: Dev) -> None:
    id = failed(dev, "child-typed", "outer")
    assert "the result of inner cannot be read as int" in dev.perdure("resume", id, "--skip", '0="abc"', code=2)
    assert "argument 'text' of inner" in dev.perdure("reset", id, "--to", "0", "--edit", "0=[5]", code=2)
    assert "keeps the arguments" in dev.perdure("resume", id, "--edit", '0=["5"]', code=4)
    dev.perdure("reset", id, "--to", "0", "--edit", '0=["5"]')
    assert dev.perdure("result", id, "--wait") == 5


def test_an_object_for_several_arguments_is_told_as_the_array_it_should_be(dev: Dev) -> None:
    id = failed(dev, "edit-object")
    told = dev.perdure("resume", id, "--edit", '0={"cents": 7, "customer": "bob"}', code=2)
    assert "try: --edit 0='[\"bob\",7]'" in told
    told = dev.perdure("resume", id, "--edit", '0={"cents": 7}', code=2)
    assert "(it is charge(customer: str, cents: int))" in told


def test_a_skip_that_slipped_through_is_told_with_what_heals_it_and_is_healed(dev: Dev) -> None:
    id = stuck(dev, "skip-unfit")
    told = dev.perdure("result", id, code=1)
    assert "what was given by skip for task parse at position 1 does not fit" in told
    shown = dev.perdure("show", id)
    assert f"perdure resume {id} --skip 1=RESULT" in shown["try"]
    dev.perdure("resume", id, "--skip", "1=7")
    assert dev.perdure("result", id, "--wait") == "receipt-ada-5 7"


def test_an_edit_heals_it_too(dev: Dev) -> None:
    id = stuck(dev, "skip-unfit-edited")
    dev.perdure("resume", id, "--edit", '1=["8"]')
    assert dev.perdure("result", id, "--wait") == "receipt-ada-5 8"


def test_a_reset_takes_edits_and_skips(dev: Dev) -> None:
    id = failed(dev, "reset-edited")
    dev.perdure("reset", id, "--to", "0", "--edit", '0=["bob", 7]', "--skip", "1=9")
    assert dev.perdure("result", id, "--wait") == "receipt-bob-7 9"
    told = dev.perdure("reset", id, "--to", "1", "--skip", '0="x"', code=4)
    assert "at position '0' has its result, which stays" in told
