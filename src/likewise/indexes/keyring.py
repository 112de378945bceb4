"""Asking the keyring package of the user's own prefix, where it is installed, as pip does.

It runs in a child process of that prefix's interpreter: its back ends are the user's, and they may be of any kind. What
is asked (URLs and user names) goes through the child's stdin and what is answered through its stdout, so that no
credential is in a command line, a variable or a file.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from likewise.indexes.secret import Credential, credential

PATIENCE = 60.0
"""Seconds that it may take: somebody may have to type a password to open it."""

_SCRIPT = """
import json, sys
sys.path[:] = [place for place in sys.path if place]
questions = json.load(sys.stdin)
try:
    import keyring
except ImportError:
    json.dump({"installed": False, "answers": [], "failure": ""}, sys.stdout)
    raise SystemExit
def ask(question):
    user = question["user"] or None
    for service in question["services"]:
        if hasattr(keyring, "get_credential"):
            found = keyring.get_credential(service, user)
            if found is not None:
                return {"user": found.username or user or "", "password": found.password or ""}
        elif user:
            password = keyring.get_password(service, user)
            if password is not None:
                return {"user": user, "password": password}
    return None
answers, failure = [], ""
for question in questions:
    try:
        answers.append(ask(question))
    except Exception as error:
        answers.append(None)
        failure = type(error).__name__
json.dump({"installed": True, "answers": answers, "failure": failure}, sys.stdout)
"""


class Question(msgspec.Struct, frozen=True):
    """What keyring is asked: the names that a password may be kept under, in their order, and the user, if known."""

    services: tuple[str, ...]
    user: str = ""


class _Answer(msgspec.Struct):
    user: str
    password: str


class _Answers(msgspec.Struct):
    installed: bool
    answers: list[_Answer | None]
    failure: str  # the name of an exception


@dataclass(frozen=True)
class Asked:
    """What came of it. `why` says why there may be no answer although there should be one, "" when all went well."""

    found: tuple[Credential | None, ...]
    why: str = ""


def ask_keyring(python: str, questions: Sequence[Question], *, environ: Mapping[str, str]) -> Asked:
    """Ask the keyring of the prefix whose interpreter is `python`.

    Parameters
    ----------
    python : str
        An interpreter, of any version.
    questions : sequence of Question
    environ : mapping
        The environment variables that the child gets.
    """
    nothing = (None,) * len(questions)
    try:
        done = subprocess.run(
            [python, "-c", _SCRIPT],
            input=msgspec.json.encode(list(questions)),
            capture_output=True,
            check=False,
            timeout=PATIENCE,
            env=dict(environ),
        )
        answers = msgspec.json.decode(done.stdout, type=_Answers)
    except subprocess.TimeoutExpired:
        return Asked(nothing, f"keyring did not answer within {PATIENCE:.0f} s")
    except (OSError, msgspec.DecodeError):
        return Asked(nothing, f"keyring could not be asked through {python}")
    if not answers.installed:
        return Asked(nothing, f"keyring, which could know one, is not installed for {python}")
    why = f"keyring, which failed ({answers.failure})" if answers.failure else ""
    return Asked(tuple(credential(one.user, one.password) if one else None for one in answers.answers), why)
