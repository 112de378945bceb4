"""YAML, or the reason why it is none. Every scalar is a text: ``1.10`` is a version, and no number."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
import yaml

from likewise.errors import UsageError

Loader: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
"""Of libyaml where PyYAML has it: a lock of a megabyte takes it a tenth of the time."""

T = TypeVar("T")


def load_yaml(text: str, form: str) -> Any:
    """The value of the first document in `text`: texts, lists, mappings.

    Parameters
    ----------
    text : str
    form : str
        What the file should be, for people.

    Raises
    ------
    UsageError
        It is no YAML, or nested too deeply.
    """
    try:
        return yaml.load(text, Loader=Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        raise UsageError(f"This {form} is damaged: it is no YAML{place}.", todo="Write it again.") from None


def convert(value: Any, kind: type[T], form: str) -> T:
    """`value` as a `kind`.

    Raises
    ------
    UsageError
        It has other fields than such a file has.
    """
    try:
        return msgspec.convert(value, type=kind, strict=False)
    except (msgspec.ValidationError, RecursionError) as error:
        raise UsageError(f"This {form} is damaged: {error}.", todo="Write it again.") from None
