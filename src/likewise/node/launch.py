"""The script that starts the Python of a prefix, whatever the machine's own environment variables say."""

from __future__ import annotations

from likewise.model.manifest import PREFIX_MARK, ROOT_BASE, Manifest

CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # newer Red Hat
    "/etc/ssl/cert.pem",  # Alpine
)
"""Where systems keep their certificates. A site's own certificate authority is in there, and in no Python."""

_SCRIPT = """\
#!/bin/sh
# Starts Python in the prefix of the environment {id}.
# Written by likewise. Names begin with _lw_, because an exported variable stays exported after an assignment.
_lw_prefix={prefix}
_lw_work={cache}/work

# What steers the machine's own Pythons must not steer this one. A value may have several lines; one of them that looks
# like such a variable unsets nothing but what has to be unset anyway. LD_LIBRARY_PATH and LD_PRELOAD stay: on many
# machines drivers are found through them, and the interpreter's own libraries are found before (DT_RPATH).
set -f
IFS='
'
for _lw_line in $(export -p); do
    _lw_line=${{_lw_line#export }}
    _lw_line=${{_lw_line#declare -x }}
    _lw_name=${{_lw_line%%=*}}
    case $_lw_name in
        *[!A-Za-z0-9_]*) ;;
        PYTHON* | VIRTUAL_ENV* | CONDA_* | _CE_CONDA | _CE_M | __PYVENV_LAUNCHER__) unset "$_lw_name" ;;
    esac
done
set +f
unset IFS

export PYTHONNOUSERSITE=1 # the machine's user site is not ours
export PYTHONDONTWRITEBYTECODE=1 # a prefix never changes under its id
{python_path}PATH="$_lw_prefix/bin:${{PATH:-/usr/local/bin:/usr/bin:/bin}}"
export PATH
{variables}
[ -r "${{SSL_CERT_FILE:-}}" ] ||
    for _lw_file in {certificates} \\
        "$_lw_prefix/{own_certificates}"; do
        if [ -r "$_lw_file" ]; then
            export SSL_CERT_FILE="$_lw_file"
            break
        fi
    done

# python -m puts the working directory first on sys.path: an empty one of its own for each process.
_lw_host=localhost
[ -r /proc/sys/kernel/hostname ] && read -r _lw_host < /proc/sys/kernel/hostname
_lw_work=$_lw_work/$_lw_host.$$
[ -d "$_lw_work" ] && rm -rf "$_lw_work" # of an ended process that had the same number
if ! mkdir -p -m 700 "$_lw_work" || ! cd "$_lw_work"; then
    printf 'likewise: The working directory %s can'\\''t be made. Free some space there.\\n' "$_lw_work" >&2
    exit 15
fi
exec "$_lw_prefix/bin/python" "$@"
"""


def launch_script(manifest: Manifest, prefix: str, cache: str) -> bytes:
    """The ``launch`` script of the prefix at `prefix` in the node's cache at `cache`."""
    roots = ":".join(f"$_lw_prefix/code/{name}" for name in map(_escape, manifest.before))
    return _SCRIPT.format(
        id=manifest.id,
        prefix=quote(prefix),
        cache=quote(cache),
        python_path=f'export PYTHONPATH="{roots}"\n' if roots else "",
        certificates=" ".join(CERTIFICATES),
        own_certificates="ssl/cert.pem" if manifest.base == ROOT_BASE else f"{manifest.base}/ssl/cert.pem",
        variables="".join(f"export {name}={_value(text)}\n" for name, text in sorted(manifest.variables.items())),
    ).encode()


def quote(text: str) -> str:
    """`text` as one word for sh."""
    return "'" + text.replace("'", "'\\''") + "'"


def _value(text: str) -> str:
    """`text` as one word for sh, the prefix in place of its mark."""
    return '"$_lw_prefix"'.join(map(quote, text.split(PREFIX_MARK)))


def _escape(name: str) -> str:
    """`name` for use between double quotes in sh."""
    return "".join(f"\\{c}" if c in '\\"$`' else c for c in name)
