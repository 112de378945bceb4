"""Every error is a value: it says what, where and what to do, survives pickling, and has an exit code of its own."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator

import pytest

import likewise.errors as errors
from likewise.errors import LikewiseError, LikewiseWarning, StoreError


def all_errors(root: type[LikewiseError] = LikewiseError) -> Iterator[type[LikewiseError]]:
    """`root` and the kinds of error derived from it. What other modules derive for their own use is of their kind."""
    yield root
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from all_errors(child)


def test_errors_are_found() -> None:
    """The list that the tests below go through is the whole of the module."""
    public = {value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LikewiseError)}
    assert set(all_errors()) == public
    assert len(public) > 5


def test_exit_codes_are_distinct() -> None:
    """Each kind of error has its own exit code, and none that means success or death by a signal."""
    codes = {error: error.exit_code for error in all_errors()}
    assert len(set(codes.values())) == len(codes)
    assert all(0 < code < 64 for code in codes.values())


def test_codes_are_distinct() -> None:
    """Each kind of error has its own short name for programs."""
    names = [error.code for error in all_errors()]
    assert len(set(names)) == len(names)


def test_exit_codes_are_stable() -> None:
    """Scripts rely on these numbers: a change has to be deliberate."""
    assert {error.code: error.exit_code for error in all_errors()} == {
        "error": 1,
        "usage": 2,
        "scan": 10,
        "plan": 11,
        "build": 12,
        "layer": 13,
        "store": 14,
        "node": 15,
        "verify": 16,
        "cluster": 17,
        "unsupported": 18,
        "fetch": 19,
    }


@pytest.mark.parametrize("kind", list(all_errors()))
@pytest.mark.parametrize("duplicate", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy])
def test_survives_the_way_between_processes(kind: type[LikewiseError], duplicate: object) -> None:
    """An error that was pickled or copied is of the same kind and has the same fields."""
    error = kind("It broke.", where="numpy 2.1", todo="Mend it.", details={"paths": ["a", "b"]})
    again = duplicate(error)  # type: ignore[operator]
    assert type(again) is kind
    assert (again.what, again.where, again.todo) == ("It broke.", "numpy 2.1", "Mend it.")
    assert again.details == {"paths": ["a", "b"]}
    assert str(again) == str(error)
    assert again.args == error.args


@pytest.mark.parametrize("kind", list(all_errors()))
def test_as_dict_is_json(kind: type[LikewiseError]) -> None:
    """An error's facts make one JSON document that begins with its kind."""
    error = kind("It broke.", where="numpy 2.1", todo="Mend it.", details={"n": 1})
    assert json.loads(json.dumps(error.as_dict())) == {
        "error": kind.code,
        "what": "It broke.",
        "where": "numpy 2.1",
        "todo": "Mend it.",
        "details": {"n": 1},
    }


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "It broke."),
        ({"where": "numpy"}, "numpy: It broke."),
        ({"todo": "Mend it."}, "It broke. Mend it."),
        ({"where": "numpy", "todo": "Mend it."}, "numpy: It broke. Mend it."),
    ],
)
def test_message(fields: dict[str, str], text: str) -> None:
    """The message is one readable line: where, what, what to do."""
    assert str(StoreError("It broke.", **fields)) == text


def test_details_are_the_errors_own() -> None:
    """Changing the mapping that was given does not change the error."""
    details = {"n": 1}
    error = StoreError("It broke.", details=details)
    details["n"] = 2
    assert error.details == {"n": 1}


def test_warning_is_no_error() -> None:
    """A warning of ours can be filtered as a UserWarning and is not caught with the errors."""
    assert issubclass(LikewiseWarning, UserWarning)
    assert not issubclass(LikewiseWarning, LikewiseError)
