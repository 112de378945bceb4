"""How a script reaches a host: the command line says next to nothing, everything else comes through standard input.

A command line can be read by every user of the host (``ps``), passes through whatever login shell the user has there
(csh and fish quote differently), and is limited in length. So it is always the same: a tiny loop that reads so many
lines, byte by byte as POSIX demands of ``read``, and runs them. What follows on standard input is left for the script
itself, or for the program that it becomes: their lifeline.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from likewise.errors import UsageError
from likewise.node.launch import quote

# One line, no single quote, "!", backquote or doubled backslash: then sh, csh and fish take it for the same word.
READER = (
    "exec sh -c '"
    'IFS= read -r c || exit 97; n="$(printf "%b" "\\012_")"; n="${n%_}"; s=""; '
    'while [ "$c" -gt 0 ]; do IFS= read -r l || exit 97; s="$s$l$n"; c=$((c-1)); done; '
    'unset c n l; eval "$s"'
    "'"
)
"""The command line of everything that runs on a host."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# The host's own settings of Dask, and what an earlier cluster left in this session, do not count.
_CLEAN = """\
for v in $(export -p | sed -n 's/^[^=]*[[:space:]]\\(\\(DASK_\\|LIKEWISE_\\)[A-Za-z0-9_]*\\)=.*/\\1/p'); do
unset "$v"
done
"""


def framed(script: str) -> bytes:
    """`script` as `READER` wants it on standard input; more may follow."""
    lines = script if script.endswith("\n") else f"{script}\n"
    return f"{lines.count(chr(10))}\n{lines}".encode()


def exports(environ: Mapping[str, str]) -> str:
    """Lines for sh that set and export variables; values may hold anything but NUL.

    Raises
    ------
    UsageError
        For a name that sh can't set. (``env`` could, with the value on a command line that everybody can read.)
    """
    odd = [name for name in environ if not _NAME.fullmatch(name)]
    if odd:
        raise UsageError(
            f"The shell of a host can't set a variable with the name {', '.join(odd)}.",
            where="env",
            todo="Use letters, digits and underscores.",
        )
    return "".join(f"export {name}={quote(value)}\n" for name, value in environ.items())


def start_script(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """A script that becomes the program `argv` with the host's own login variables and `environ`.

    It first says which session (see setsid(2)) it is, so that all of it can be ended: ``likewise: session 123``.
    """
    return f"{_CLEAN}{exports(environ)}{_SESSION}unset s v\nexec {' '.join(map(quote, argv))}\n"


def plain_script(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """As `start_script`, for a program that does not watch its standard input: a shell beside it does."""
    return f"""\
{_CLEAN}{exports(environ)}{_SESSION}unset s v
exec 3<&0
{" ".join(map(quote, argv))} < /dev/null 3<&- &
c=$!
{{ cat <&3 > /dev/null; kill -TERM $c; sleep 5; kill -KILL $c; }} 2> /dev/null &
w=$!
wait $c
e=$?
kill $w
exit $e
"""


def end_script(session: int, signal: str) -> str:
    """A script that signals every process of `session` and says how many there were."""
    return _MEMBERS + f'[ "$4" = {session} ]' + _SIGNAL.format(signal=signal)


def end_cluster_script(cluster: str, signal: str) -> str:
    """A script that signals every process with the `cluster`'s id in its environment, and says how many there were."""
    return _MEMBERS + f"grep -qs LIKEWISE_CLUSTER={cluster} /proc/$p/environ" + _SIGNAL.format(signal=signal)


_SESSION = """\
set -- "$(set -f; IFS= read -r l < /proc/$$/stat; set -- ${l##*) }; echo "$4")"
echo "likewise: session ${1:-$$}"
"""

# proc(5): pid (name) state ppid pgrp session …; the name may contain anything.
_MEMBERS = """\
k=0
set -f
for p in $(set +f; cd /proc && echo [0-9]*); do
[ "$p" = $$ ] && continue
IFS= read -r l 2>/dev/null < /proc/$p/stat || continue
set -- ${l##*) }
[ "$1" = Z ] || [ "$1" = X ] && continue
"""

_SIGNAL = """ || continue
kill -{signal} "$p" 2>/dev/null && k=$((k+1))
done
echo $k
"""
