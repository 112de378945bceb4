"""The build command, its surroundings and its words, without running one."""

from __future__ import annotations

from pathlib import Path

import pytest

from likewise.layers.build_process import build_command, build_environ, last_words, one_line, scrub
from likewise.layers.vcs_version import version_variables

BACKEND_FAILED = """\
Building wheel...
running egg_info
Traceback (most recent call last):
  File "<string>", line 4, in <module>
ModuleNotFoundError: No module named 'numpy'
error: Failed to build `/w/demo`
  cause: The build backend returned an error
  cause: Call to `setuptools.build_meta.build_wheel` failed (exit status: 1)

hint: This usually indicates a problem with the package or the build environment.
"""

NO_INDEX = """\
Building wheel...
error: Failed to build `/w/demo`
  cause: Failed to resolve requirements from `build-system.requires`
  cause: No solution found when resolving: `setuptools`
"""


def test_the_back_ends_words_come_first() -> None:
    """Its last lines, then why the front end gave up; no hints."""
    words = last_words(BACKEND_FAILED)
    assert words.splitlines()[-3] == "ModuleNotFoundError: No module named 'numpy'"
    assert "hint" not in words and "Building wheel" not in words
    assert "No solution found" in last_words(NO_INDEX)


@pytest.mark.parametrize(
    ("output", "line"),
    [
        (BACKEND_FAILED, "ModuleNotFoundError: No module named 'numpy'"),
        (NO_INDEX, "No solution found when resolving: `setuptools`"),
        ("gcc: not found\nlast", "last"),
        ("", "It said nothing."),
    ],
)
def test_one_line_says_most(output: str, line: str) -> None:
    """An exception's own line, or else the last cause, or else the last line."""
    assert one_line(output) == line


def test_credentials_are_scrubbed() -> None:
    """User info in any URL, and values of variables whose names say that they are secret."""
    environ = {"UV_INDEX_X_PASSWORD": "hunter22", "API_TOKEN": "abc", "HOME": "/home/me-too"}
    text = "https://user:pw@host/simple git+ssh://git@host/x https://tok@host hunter22 abc /home/me-too a@b.example"
    assert scrub(text, environ) == (
        "https://***@host/simple git+ssh://***@host/x https://***@host *** abc /home/me-too a@b.example"
    )


def test_settings_of_pip_become_settings_of_uv_and_stay_off_the_command_line() -> None:
    """Index URLs may hold passwords, so they are handed over as variables; what the user told uv itself wins."""
    user = {"PIP_INDEX_URL": "https://u:p@x/simple", "PIP_FIND_LINKS": "/a /b", "PYTHONPATH": "/mine", "CC": "clang"}
    environ = build_environ(user, {"MORE": "1"})
    assert environ["UV_DEFAULT_INDEX"] == "https://u:p@x/simple"
    assert environ["UV_FIND_LINKS"] == "/a,/b"
    assert (environ["CC"], environ["MORE"]) == ("clang", "1")
    assert "PYTHONPATH" not in environ
    assert "UV_DEFAULT_INDEX" not in build_environ({**user, "UV_INDEX_URL": "https://mine"}, {})
    assert build_environ({"UV_HTTP_TIMEOUT": "99"}, {})["UV_HTTP_TIMEOUT"] == "99"
    assert not any("://" in word for word in build_command(Path("/src"), Path("/out"), python="/p", isolated=True))


def test_the_second_try_is_not_isolated() -> None:
    """The same command with the environment's own packages."""
    first = build_command(Path("/src"), Path("/out"), python="/p", isolated=True)
    second = build_command(Path("/src"), Path("/out"), python="/p", isolated=False)
    assert set(second) - set(first) == {"--no-build-isolation"}
    assert first[-1] == "/src"


def test_the_installed_version_is_told_under_every_name() -> None:
    """setuptools-scm wants the distribution's name in upper case with underscores."""
    variables = version_variables("my-own.demo", "1.2.dev3")
    assert variables["SETUPTOOLS_SCM_PRETEND_VERSION_FOR_MY_OWN_DEMO"] == "1.2.dev3"
    assert set(variables.values()) == {"1.2.dev3"}
