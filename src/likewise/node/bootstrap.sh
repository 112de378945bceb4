#!/bin/sh
# Starts Python in a prefix that likewise made, and makes the prefix first where it is not there yet.
#
#   sh bootstrap.sh --cache DIR --store DIR --manifest ID --kit FILE --kit-id ID --kit-sha256 HEX -- ARGS...
#
# Assumes sh, tar, gzip, mkdir, mv and rm; no Python. It always execs: the process that a resource manager started
# is the one that runs Python in the end. Names begin with _lw_, because a variable that the environment exports
# already would stay exported after an assignment.

fail() {
    printf 'likewise: %s. %s\n' "$1" "$2" >&2
    exit 15
}

usage() {
    fail "bootstrap.sh: $1" "This is a fault in likewise, please report it."
}

_lw_cache='' _lw_store='' _lw_manifest='' _lw_kit='' _lw_kit_id='' _lw_kit_sha256=''
while [ $# -gt 0 ]; do
    [ "$1" = -- ] && { shift; break; }
    [ $# -ge 2 ] || usage "$1 needs a value"
    case $1 in
        --cache) _lw_cache=$2 ;;
        --store) _lw_store=$2 ;;
        --manifest) _lw_manifest=$2 ;;
        --kit) _lw_kit=$2 ;;
        --kit-id) _lw_kit_id=$2 ;;
        --kit-sha256) _lw_kit_sha256=$2 ;;
        *) usage "unknown option $1" ;;
    esac
    shift 2
done

# Ids become file names.
for _lw_id in "$_lw_manifest" "$_lw_kit_id" "$_lw_kit_sha256"; do
    case $_lw_id in *[!0-9a-f]* | '') usage "'$_lw_id' is not a digest" ;; esac
    [ ${#_lw_id} -eq 64 ] || usage "'$_lw_id' is not a digest"
done
[ -n "$_lw_cache" ] || usage "--cache is missing"
case $_lw_cache in /*) ;; *) _lw_cache=$PWD/$_lw_cache ;; esac
while :; do
    case $_lw_cache in ?*/) _lw_cache=${_lw_cache%/} ;; *) break ;; esac
done
case $_lw_cache in
    *[:\\]* | *'
'*) fail "The path of the node's cache, '$_lw_cache', contains a colon, a backslash or a line break" \
        "Choose another folder, for example with LIKEWISE_CACHE." ;;
esac

_lw_prefix=$_lw_cache/prefixes/${_lw_manifest%"${_lw_manifest#????????????????}"}
_lw_kit_dir=$_lw_cache/kits/${_lw_kit_id%"${_lw_kit_id#????????????????}"}

# A folder that another user made, or a link that leads to one, may hold anything. (-O is not in POSIX, but in every sh
# that is met on Linux: dash, bash, busybox, ksh, zsh.)
own() {
    if [ -L "$1" ] || ! [ -d "$1" ]; then
        fail "$1 is not a directory of its own" "Remove it, or choose another folder with LIKEWISE_CACHE."
    fi
    [ -O "$1" ] || fail "$1 belongs to another user" "Choose another folder with LIKEWISE_CACHE."
}

make_private() (
    umask 077
    mkdir -p "$1" || fail "The node's cache, $1, can't be made" "Choose a folder that you may write to."
)

[ -d "$_lw_cache" ] || make_private "$_lw_cache" || exit
own "$_lw_cache"
for _lw_dir in prefixes kits tmp leases used; do
    [ -d "$_lw_cache/$_lw_dir" ] || make_private "$_lw_cache/$_lw_dir" || exit
    own "$_lw_cache/$_lw_dir"
done

# The lease comes before the look for the prefix, so that expiry either sees it or has removed the prefix before. The
# process id survives exec; with its start time nobody can be taken for it later.
lease() {
    _lw_host=localhost
    [ -r /proc/sys/kernel/hostname ] && read -r _lw_host < /proc/sys/kernel/hostname
    _lw_stat=''
    [ -r "/proc/$$/stat" ] && read -r _lw_stat < "/proc/$$/stat"
    set -f
    # shellcheck disable=SC2086 # split into fields; the name before the parenthesis may contain anything
    set -- ${_lw_stat##*) }
    set +f
    printf '%s %s\n' "$_lw_manifest" "${20:-0}" 2>/dev/null > "$_lw_cache/leases/$_lw_host.$$"
    printf '\n' 2>/dev/null > "$_lw_cache/used/${_lw_prefix##*/}"
}
lease

if [ -f "$_lw_prefix/launch" ]; then
    own "$_lw_prefix"
    exec "$_lw_prefix/launch" "$@"
fi

# sha256 of standard input, "" when this machine has nothing that computes it. openssl comes first because it uses the
# processor's own instructions: a kit takes it 0.1 s, and sha256sum 0.9 s.
checksum() {
    if command -v openssl >/dev/null 2>&1 && openssl dgst -sha256 -r 2>/dev/null; then
        :
    elif command -v sha256sum >/dev/null 2>&1; then
        sha256sum
    else
        echo
    fi
}

# Unpack the kit beside its place and rename it. Whoever loses a race uses the winner's.
unpack_kit() (
    umask 077
    if command -v flock >/dev/null 2>&1; then # many starters at once: one unpacks, the others wait
        exec 9>"$_lw_cache/lock.kit" && flock 9
        [ -f "$_lw_kit_dir/python" ] && exit 0
    fi
    [ -r "$_lw_kit" ] || fail "The kit $_lw_kit can't be read" "Start the cluster again."
    _lw_tmp=$_lw_cache/tmp/kit.$$
    _lw_new=$_lw_tmp/${_lw_kit_dir##*/}
    trap 'rm -rf "$_lw_tmp"' EXIT
    trap 'exit 143' HUP INT TERM
    rm -rf "$_lw_tmp"
    mkdir "$_lw_tmp" "$_lw_new" || fail "Nothing can be written to $_lw_cache" "Choose another folder."
    checksum < "$_lw_kit" > "$_lw_tmp/sum" & # while tar works; nothing is run from the kit before it is known
    _lw_sum_pid=$!
    IFS= read -r _lw_head < "$_lw_kit"
    case $_lw_head in
        listings/*) _lw_flags=-xmof ;; # a plain tar begins with its first member's name
        *) _lw_flags=-xzmof ;;
    esac
    _lw_unpacked=0
    tar "$_lw_flags" - -C "$_lw_new" < "$_lw_kit" || _lw_unpacked=$?
    wait "$_lw_sum_pid"
    read -r _lw_sum _lw_rest < "$_lw_tmp/sum"
    case $_lw_sum in
        "$_lw_kit_sha256" | '') ;;
        *) fail "The kit $_lw_kit is damaged: its sha256 is not $_lw_kit_sha256" \
            "Remove it and start the cluster again." ;;
    esac
    [ $_lw_unpacked -eq 0 ] ||
        fail "The kit can't be unpacked into $_lw_cache, see above" "Free some space there, or choose another folder."
    read -r _lw_python < "$_lw_new/python"
    [ -x "$_lw_new/$_lw_python" ] ||
        fail "Nothing in $_lw_cache can be executed: it seems to be mounted with noexec" "Choose another folder."
    "$_lw_new/$_lw_python" -I -S -c '' < /dev/null ||
        fail "The Python of the client does not run on this machine, see above" \
            "The node's system may be older than the client's, or of another architecture."
    # The target of mv is the folder above: an existing one of this name makes rename(2) refuse, and mv does not move
    # into it.
    mv "$_lw_new" "$_lw_cache/kits/" 2>/dev/null || [ -f "$_lw_kit_dir/python" ] ||
        fail "The kit can't be moved to $_lw_kit_dir" "Look at the folder's permissions."
)

kit_is_whole() {
    [ -f "$_lw_kit_dir/python" ] && read -r _lw_python < "$_lw_kit_dir/python" && [ -x "$_lw_kit_dir/$_lw_python" ]
}

if [ -d "$_lw_kit_dir" ]; then # it appeared whole, so what it lacks now somebody has removed
    own "$_lw_kit_dir"
    kit_is_whole || { mv "$_lw_kit_dir" "$_lw_cache/tmp/kit.$$.old" && rm -rf "$_lw_cache/tmp/kit.$$.old"; }
fi
[ -d "$_lw_kit_dir" ] || unpack_kit || exit
own "$_lw_kit_dir"
kit_is_whole || fail "The kit in $_lw_kit_dir is not whole" "Remove that folder and start the cluster again."
printf '\n' 2>/dev/null > "$_lw_cache/used/${_lw_kit_dir##*/}"

# -I ignores PYTHON* and user site, -S leaves site-packages and .pth files out, -B leaves the kit as it is; no path is
# added but the kit's own.
exec "$_lw_kit_dir/$_lw_python" -I -S -B -X utf8 \
    -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); from likewise.node.__main__ import main; main()' \
    "$_lw_kit_dir/tree/purelib" start --cache "$_lw_cache" --store "$_lw_store" --manifest "$_lw_manifest" \
    --kit "$_lw_kit_dir" -- "$@"
