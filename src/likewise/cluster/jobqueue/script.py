"""What a job of a batch system runs, as text. Pure.

dask-jobqueue puts pieces together without quoting them, some batch systems put its line into a language of their own
(HTCondor: one argument of ``/bin/sh -c``), and whoever may look at a job can read its script. So every piece is one
line of POSIX sh, each word quoted, and nothing secret is in it: the variables that hold a key are in a file of the
user's own that the script reads.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from likewise.errors import UsageError

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Quotes of a shell protect all but these: a line break ends the line, and HTCondor expands $(name) within them.
_UNQUOTABLE = re.compile(r"[\x00-\x1f\x7f]|\$[($]")

CLOSED = "likewise: The cluster of this job is closed, or this node does not see its shared_folder."

NOTE = r"""#!/bin/sh
# note.sh NAME CODE: the job of the worker NAME has ended in error. Leave a note for the client: where, how, and the
# last lines of the job's output, when that is a file. Written by likewise.
umask 077
host=localhost
[ -r /proc/sys/kernel/hostname ] && read -r host < /proc/sys/kernel/hostname
folder=${0%/*}/notes
[ -d "$folder" ] || exit "$2" # the cluster is closed
{
    printf '%s %s\n' "$2" "$host"
    # The batch system has opened standard error; a file can be read again under the name that /proc gives.
    [ -f "/proc/$$/fd/2" ] && tail -n 100 "/proc/$$/fd/2"
} > "$folder/.$1.$$" && mv "$folder/.$1.$$" "$folder/$1"
exit "$2"
"""


def command_line(argv: Sequence[str], where: str = "shared_folder") -> str:
    """`argv` as one line of sh.

    Raises
    ------
    UsageError
        When a word has characters that no quoting protects on all batch systems.
    """
    for word in argv:
        if _UNQUOTABLE.search(word):
            raise UsageError(
                f"The path {word!r} can't be part of a job script.", where=where, todo="Choose another folder."
            )
    return shlex.join(argv)


def python_command(prefix: Sequence[str]) -> str:
    """dask-jobqueue's ``python``: the command prefix `prefix`."""
    return command_line(prefix)


def prologue_line(environ_file: str) -> str:
    """The line of a job script that takes the worker's variables from `environ_file`."""
    file = command_line([environ_file])
    return f"if [ -r {file} ]; then . {file}; else echo {shlex.quote(CLOSED)} >&2; exit 15; fi"


def note_line(script: str, name: str) -> str:
    """The first line of the job of the worker `name`: when the job ends in error, wherever in it, `script` runs."""
    note = command_line(["sh", script, note_name(name)])
    return f"trap {shlex.quote(f'_lw_code=$?; [ $_lw_code = 0 ] || {note} $_lw_code')} EXIT"


def note_name(name: str) -> str:
    """The worker's `name` as the name of a file."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def environ_text(environ: Mapping[str, str]) -> str:
    """`environ` as a file for the shell's dot command.

    Raises
    ------
    UsageError
        When a name is none for a shell.
    """
    lines = ["# Variables of the workers of one cluster. Some are secret. Written by likewise."]
    for name, value in sorted(environ.items()):
        if not _IDENTIFIER.fullmatch(name):
            raise UsageError(
                f"{name!r} can't be a variable in a job script.", where="env", todo="Use letters, digits and _."
            )
        lines.append(f"export {name}={shlex.quote(value)}")
    return "\n".join([*lines, ""])


def parse_note(text: str) -> tuple[int, str, list[str]]:
    """What `NOTE` wrote: exit code, host, and the last lines of the output."""
    head, *said = text.split("\n")
    code, _, host = head.partition(" ")
    lines = [line.rstrip()[:1000] for line in said if line.strip()]
    return (int(code) if code.isdigit() else 1), host.strip() or "unknown", lines


def merge_directives(given: Sequence[str], added: Mapping[str, str]) -> list[str]:
    """`given` directives, and of the `added` ones (flag → value) those that `given` does not set itself."""
    set_already = {re.split(r"[=\s]", directive.strip(), maxsplit=1)[0] for directive in given}
    return [*(f"{flag}={value}" for flag, value in added.items() if flag not in set_already), *given]
