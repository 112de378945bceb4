"""Errors become exit codes and words in one place."""

from __future__ import annotations

import json

import click
import pytest

import likewise.errors
from likewise.cli.cache import parse_age
from likewise.cli.failure import PipeClosed, as_likewise_error, exit_code, show, write_json
from likewise.cli.main import wants_json
from likewise.errors import LikewiseError, PlanError, StoreError, UsageError

LEAVES = [e for e in vars(likewise.errors).values() if isinstance(e, type) and issubclass(e, LikewiseError)]


def test_every_kind_of_error_has_an_exit_code_of_its_own() -> None:
    """No two kinds of error share an exit code, and none is 0 or what a shell uses for signals."""
    codes = [exit_code(kind("what")) for kind in LEAVES]
    assert len(set(codes)) == len(LEAVES) > 10
    assert all(0 < code < 126 for code in codes)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
        (BrokenPipeError(), 141),
        (PipeClosed(), 141),
        (click.UsageError("no"), 2),
        (UsageError("no"), 2),
        (ZeroDivisionError("no"), 1),
    ],
)
def test_other_errors_have_the_usual_exit_codes(error: BaseException, code: int) -> None:
    """Ctrl-C is 130, a closed pipe 141, wrong usage 2, whatever nobody thought of 1."""
    assert exit_code(error) == code


def test_an_error_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json an error is the value: one JSON document on stdout, with all of its fields."""
    show(StoreError("Disk full.", where="/x", todo="Make room.", details={"free": 0}), json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {
        "error": "store",
        "what": "Disk full.",
        "where": "/x",
        "todo": "Make room.",
        "details": {"free": 0},
    }
    assert err == ""


def test_an_error_is_a_sentence_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Without --json an error says what, where and what to do, on stderr, with the build back end's own words."""
    show(
        LikewiseError("It failed.", where="pkg", todo="Mend it.", details={"output": "gcc: no such file\n"}), json=False
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: pkg: It failed. Mend it.\ngcc: no such file\n"


def test_an_unexpected_error_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """An error that nobody thought of shows its traceback on stderr and is still one JSON document."""
    try:
        raise ZeroDivisionError("by hand")
    except ZeroDivisionError as error:
        show(error, json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["what"] == "ZeroDivisionError: by hand"
    assert "Traceback" in err and "test_cli_failure.py" in err


def test_a_wrong_option_names_the_command_to_ask() -> None:
    """A usage error from click says which command's --help to read."""
    context = click.Context(click.Command("plan"), info_name="likewise plan")
    error = as_likewise_error(click.NoSuchOption("--bogus", ctx=context))
    assert isinstance(error, UsageError) and "`likewise plan --help`" in error.todo


def test_names_that_are_no_text_do_not_spoil_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    """A file name with undecodable bytes is shown with escapes instead of failing."""
    write_json(PlanError("x", where="a\udcff", details={"p\udcfe": ["b\udcfd"]}).as_dict())
    value = json.loads(capsys.readouterr().out)
    assert value["where"] == "a\\udcff" and value["details"] == {"p\\udcfe": ["b\\udcfd"]}


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["scan", "--json"], True),
        (["plan", "--nonsense", "--json"], True),
        (["run", "script.py", "--json"], False),
        (["scan", "--", "--json"], False),
        ([], False),
    ],
)
def test_json_is_recognised_in_arguments_too_wrong_to_parse(arguments: list[str], wanted: bool) -> None:
    """--json counts where it is likewise's own, even beside wrong options, and not where it is the script's."""
    assert wants_json(arguments) is wanted


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("12h", 43200), ("7d", 604800), ("3600", 3600), (" 1.5 H ", 5400), ("0s", 0)]
)
def test_ages_are_understood(text: str, seconds: float) -> None:
    """Ages are a number with a unit, seconds without one."""
    assert parse_age(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "3x", "-1h", "h", "1h30m", "1e3"])
def test_what_is_no_age_is_refused(text: str) -> None:
    """Anything else is a usage error that shows how to write it."""
    with pytest.raises(UsageError, match="90m"):
        parse_age(text)
