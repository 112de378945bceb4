#!/bin/sh
# Starts Python in a prefix that likewise made, and makes the prefix first where it is not there yet.
#
#   sh bootstrap.sh OPTIONS -- ARGS...
#
#   --cache DIR|auto      the node's cache; auto: the first safe and usable place of this machine
#   --manifest ID         the environment
#   --kit FILE            the kit; or its URL, or - for standard input; may be missing where the kit is unpacked already;
#                         or a folder of this user where it lies unpacked, which is used as it is
#   --kit-id ID --kit-sha256 HEX
#   --store DIR           a store's directory; without one that this machine can read, layers come from the agent
#   --cluster ID --hub ADDRESS   start the node's agent, which fetches layers from other nodes and serves them
#   --ask                 ask the scheduler that ARGS name for the current manifest, cluster and hub first
#   --stream              start before all layers are there: an import waits for what it needs
#   --first NAME,NAME...  the layers that are needed first
#   --need-bytes N --need-files N   what auto looks for in a place that was never used
#   --command NAME        start (the default): become the prefix's Python, with ARGS
#                         materialise: make the prefix and print where it is
#                         place: print where the cache is; needs no kit and no manifest
#                         prune: remove from the cache what has expired
#                         others: likewise.transport NAME --cache DIR --cluster ID ... ARGS, in the kit's Python
#
# Assumes sh, tar, gzip, mkdir, mv and rm, for auto ls too; no Python. It always execs: the process that a resource
# manager started is the one that runs Python in the end. Names begin with _lw_, because a variable that the environment
# exports already would stay exported after an assignment.

fail() {
    printf 'likewise: %s. %s\n' "$1" "$2" >&2
    exit 15
}

usage() {
    fail "bootstrap.sh: $1" "This is a fault in likewise, please report it."
}

_lw_cache='' _lw_store='' _lw_manifest='' _lw_kit='' _lw_kit_id='' _lw_kit_sha256='' _lw_hub=''
_lw_cluster=${LIKEWISE_CLUSTER:-} # what starts all processes of a cluster on one machine says it there
case $_lw_cluster in *[!0-9a-f]*) _lw_cluster='' ;; ????????????????) ;; *) _lw_cluster='' ;; esac
_lw_runner='' _lw_ask='' _lw_stream='' _lw_first='' _lw_command=start _lw_need_bytes=0 _lw_need_files=0
while [ $# -gt 0 ]; do
    [ "$1" = -- ] && { shift; break; }
    [ "$1" = --ask ] && { _lw_ask=yes; shift; continue; }
    [ "$1" = --stream ] && { _lw_stream=yes; shift; continue; }
    [ $# -ge 2 ] || usage "$1 needs a value"
    case $1 in
        --cache) _lw_cache=$2 ;;
        --store) _lw_store=$2 ;;
        --manifest) _lw_manifest=$2 ;;
        --kit) _lw_kit=$2 ;;
        --kit-id) _lw_kit_id=$2 ;;
        --kit-sha256) _lw_kit_sha256=$2 ;;
        --cluster) _lw_cluster=$2 ;;
        --hub) _lw_hub=$2 ;;
        --command) _lw_command=$2 ;;
        --first) _lw_first=$2 ;;
        --need-bytes) _lw_need_bytes=$2 ;;
        --need-files) _lw_need_files=$2 ;;
        *) usage "unknown option $1" ;;
    esac
    shift 2
done

# Ids become file names.
digest() {
    case $1 in *[!0-9a-f]* | '') usage "'$1' is not a digest" ;; esac
    [ ${#1} -eq 64 ] || usage "'$1' is not a digest"
}
case $_lw_command in
    start | materialise) digest "$_lw_manifest" ;;
    place | prune) ;;
    *[!a-z]* | '') usage "'$_lw_command' is not a command" ;;
    *) [ -z "$_lw_manifest" ] || digest "$_lw_manifest" ;;
esac
_lw_kit_lies='' # where the kit lies unpacked outside of the cache
if [ -d "$_lw_kit" ]; then
    case $_lw_kit in /*) _lw_kit_lies=$_lw_kit ;; *) _lw_kit_lies=$PWD/$_lw_kit ;; esac
fi
if [ "$_lw_command" != place ]; then
    digest "$_lw_kit_id"
    [ -n "$_lw_kit_lies" ] || digest "$_lw_kit_sha256"
fi
check_cluster() {
    case $_lw_cluster in *[!0-9a-f]*) usage "'$_lw_cluster' is not a cluster's id" ;; esac
    [ -z "$_lw_cluster" ] || [ ${#_lw_cluster} -eq 16 ] || usage "'$_lw_cluster' is not a cluster's id"
}
check_cluster
case $_lw_need_bytes$_lw_need_files in *[!0-9]*) usage "--need-bytes and --need-files are numbers" ;; esac
[ -n "$_lw_cache" ] || usage "--cache is missing"

# ---- where the cache is, and whose

_lw_newline='
'
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
    mkdir -p "$@" || fail "The node's cache, $1, can't be made" "Choose a folder that you may write to."
)

# The effective user's number, without starting a program where that can be done.
user() {
    _lw_uid=''
    if [ -r /proc/self/status ]; then
        while read -r _lw_key _lw_real _lw_uid _lw_line; do
            [ "$_lw_key" = Uid: ] && break
        done < /proc/self/status
    fi
    case $_lw_uid in '' | *[!0-9]*) _lw_uid=$(id -u) || fail "Who runs this can't be found out" "Look at /proc." ;; esac
}

# Is $1 a folder of ours alone, and can nobody else exchange it, or a folder above it, for another one? Everything is
# seen as it is itself (lstat), in one look. Says what is wrong. The argument is a physical path.
inspect() {
    _lw_way=${1#/} _lw_at=''
    set -- /
    while [ -n "$_lw_way" ]; do
        _lw_at=$_lw_at/${_lw_way%%/*}
        set -- "$@" "$_lw_at"
        case $_lw_way in */*) _lw_way=${_lw_way#*/} ;; *) _lw_way='' ;; esac
    done
    # From the root down, as each path is the beginning of the next.
    LC_ALL=C ls -ldn -- "$@" 2>/dev/null | {
        _lw_root=''
        while read -r _lw_mode _lw_links _lw_owner _lw_group _lw_line; do
            [ -n "$_lw_root" ] || _lw_root=$_lw_owner # not 0 where the user namespace lacks it
            case $_lw_mode in d*) ;; *) echo "$1 is not a directory of its own"; exit 1 ;; esac
            if [ $# -eq 1 ]; then
                [ "$_lw_owner" = "$_lw_uid" ] || { echo "$1 belongs to another user"; exit 1; }
                case $_lw_mode in
                    ?????w* | ????????w*) echo "$1 can be written by others"; exit 1 ;;
                esac
                exit 0
            fi
            case $_lw_owner in
                "$_lw_uid" | "$_lw_root" | 0) ;;
                *) echo "$1 belongs to another user, who could exchange what is in it"; exit 1 ;;
            esac
            case $_lw_mode:$_lw_owner:$_lw_group in
                ?????????[tT]*) ;; # in a sticky folder only the owner of an entry can rename it
                ????????w*) echo "$1 can be written by everybody"; exit 1 ;;
                ?????w*:"$_lw_uid":* | ?????w*:0) ;;
                ?????w*) echo "$1 can be written by its group"; exit 1 ;;
            esac
            shift
        done
        echo "$1 can't be looked at"
        exit 1
    }
}

# Can files be made beneath $1 and executed, and is there space? Says what is wrong. A place that holds a kit has been
# chosen before, and stays: what it lacks then is told with exact numbers.
probe() {
    [ -e "$1/tmp" ] || (umask 077; mkdir "$1/tmp") 2>/dev/null || { echo "nothing can be written to $1"; return 1; }
    own "$1/tmp"
    set -- "$1" "$1"/kits/*
    [ -f "$2/python" ] && [ -x "$1/tmp" ] && [ -w "$1/tmp" ] && return
    (
        umask 077
        rm -rf "$1/tmp/kit.$$"
        mkdir "$1/tmp/kit.$$" && printf '#!/bin/sh\n' > "$1/tmp/kit.$$/try"
    ) 2>/dev/null || { echo "nothing can be written to $1"; return 1; }
    _lw_tried=0
    if command -v chmod >/dev/null; then
        { chmod 700 "$1/tmp/kit.$$/try" && "$1/tmp/kit.$$/try"; } 2>/dev/null || _lw_tried=1
    fi
    rm -rf "$1/tmp/kit.$$"
    [ $_lw_tried -eq 0 ] || { echo "nothing in $1 can be executed: it seems to be mounted with noexec"; return 1; }
    command -v df >/dev/null || return 0
    enough "$_lw_need_bytes" 150000000 1024 "$(df -Pk "$1" 2>/dev/null)" ||
        { echo "$1 has not enough free space"; return 1; }
    enough "$_lw_need_files" 10000 1 "$(df -Pi "$1" 2>/dev/null)" ||
        { echo "$1 has not enough free inodes"; return 1; }
}

# Does the second line of df's output, $4, tell of as many free units of $3 as needed: $1, and at least $2, which is about
# what a kit takes? What can't be known, or has no limit (no total), is enough.
enough() {
    [ "$1" -gt "$2" ] || set -- "$2" "$2" "$3" "$4"
    _lw_line=${4##*"$_lw_newline"}
    set -f
    # shellcheck disable=SC2086 # split into fields: file system, total, used, free, …
    set -- "$1" "$3" $_lw_line
    set +f
    case $4$6 in '' | *[!0-9]*) return 0 ;; esac
    [ "$4" -eq 0 ] || [ $(($6 * $2)) -ge "$1" ]
}

# Sets _lw_cache to a safe and usable folder beneath $1, of the names $2…, or says why there is none.
try() {
    case $1 in
        /*) ;;
        *) return 1 ;;
    esac
    case $1 in *[:\\]* | *"$_lw_newline"*) _lw_why="$1 contains a colon, a backslash or a line break"; return 1 ;; esac
    _lw_base=$(CDPATH='' cd -P -- "$1" 2>/dev/null && pwd -P) || { _lw_why="$1 can't be entered"; return 1; }
    shift
    for _lw_name; do
        _lw_base=${_lw_base%/}/$_lw_name
        # mkdir without -p makes a new folder or fails; whatever is there is looked at below, and not used before
        [ -e "$_lw_base" ] || [ -L "$_lw_base" ] || (umask 077; mkdir "$_lw_base") 2>/dev/null || [ -e "$_lw_base" ] ||
            { _lw_why="$_lw_base can't be made"; return 1; }
    done
    _lw_why=$(inspect "$_lw_base") || return 1
    [ -f "$_lw_base/prefixes/${_lw_short:--}/launch" ] || _lw_why=$(probe "$_lw_base") || return 1
    _lw_cache=$_lw_base
}

choose() {
    command -v ls >/dev/null || fail "There is no ls here to find a safe place with" "Name a folder with LIKEWISE_CACHE."
    user
    _lw_tried='' _lw_all=''
    for _lw_place in "${SLURM_TMPDIR:-}" "${TMPDIR:-}" /tmp home; do
        case "$_lw_tried:" in *:"$_lw_place":*) continue ;; esac
        _lw_tried=$_lw_tried:$_lw_place _lw_why=''
        if [ "$_lw_place" = home ]; then
            case ${HOME:-} in /*) ;; *) continue ;; esac
            [ -d "$HOME/.cache" ] || (umask 077; mkdir "$HOME/.cache") 2>/dev/null
            # Many machines may share a home; what keeps their processes apart in one cache does not work across
            # machines (sockets, and on many file systems locks).
            try "$HOME/.cache" likewise node "$_lw_host" && return
        else
            try "$_lw_place" "likewise-$_lw_uid" && return
        fi
        [ -z "$_lw_why" ] || printf 'likewise: %s: passed over as a place for the cache.\n' "$_lw_why" >&2
    done
    fail "No place for the node's cache is both safe and usable, see above" "Name a folder with LIKEWISE_CACHE."
}

short() {
    _lw_short=${_lw_manifest%"${_lw_manifest#????????????????}"}
}
short
_lw_host=localhost
[ -r /proc/sys/kernel/hostname ] && read -r _lw_host < /proc/sys/kernel/hostname
if [ "$_lw_cache" = auto ]; then
    choose
else
    case $_lw_cache in /*) ;; *) _lw_cache=$PWD/$_lw_cache ;; esac
    while :; do
        case $_lw_cache in ?*/) _lw_cache=${_lw_cache%/} ;; *) break ;; esac
    done
    case $_lw_cache in
        *[:\\]* | *"$_lw_newline"*)
            fail "The path of the node's cache, '$_lw_cache', contains a colon, a backslash or a line break" \
                "Choose another folder, for example with LIKEWISE_CACHE." ;;
    esac
    [ -d "$_lw_cache" ] || make_private "$_lw_cache" || exit
    own "$_lw_cache"
    # Whose folder holds it is the business of whoever named it.
    case $(LC_ALL=C ls -ldn -- "$_lw_cache" 2>/dev/null) in
        ????????w*) fail "$_lw_cache can be written by everybody" "Remove it, or choose another folder." ;;
    esac
fi
cache_folders() {
    for _lw_dir in prefixes kits tmp leases used work agents; do
        "$1" "$_lw_cache/$_lw_dir" || return
    done
}
there() {
    [ -d "$1" ]
}
cache_folders there ||
    make_private "$_lw_cache/prefixes" "$_lw_cache/kits" "$_lw_cache/tmp" "$_lw_cache/leases" "$_lw_cache/used" \
        "$_lw_cache/work" "$_lw_cache/agents" || exit
cache_folders own
if [ "$_lw_command" = place ]; then
    printf '%s\n' "$_lw_cache"
    exit
fi

# ---- what runs in the kit

_lw_kit_dir=$_lw_cache/kits/${_lw_kit_id%"${_lw_kit_id#????????????????}"}

kit_is_whole() {
    [ -O "$_lw_kit_dir" ] && ! [ -L "$_lw_kit_dir" ] && [ -f "$_lw_kit_dir/python" ] &&
        read -r _lw_python < "$_lw_kit_dir/python" && [ -x "$_lw_kit_dir/$_lw_python" ]
}

# Become the kit's Python, which runs main() of the module $1. -I ignores PYTHON* and user site, -S leaves site-packages
# and .pth files out, -B leaves the kit as it is; no path is added but the kit's own. $_lw_runner may run it.
kit_python() {
    # shellcheck disable=SC2086 # a few plain words, or none
    exec $_lw_runner "$_lw_kit_dir/$_lw_python" -I -S -B -X utf8 -c 'import importlib, sys
sys.path.insert(0, sys.argv.pop(1)); importlib.import_module(sys.argv.pop(1)).main()' "$_lw_kit_dir/tree/purelib" "$@"
}

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

# The kit is read twice, for its digest and by tar, so what is not a file yet becomes one first.
receive_kit() {
    case $_lw_kit in
        -) cat > "$_lw_tmp/kit" || fail "The kit can't be kept in $_lw_cache, see above" "Free some space there." ;;
        http://* | https://*) download_kit ;;
        '') fail "The kit is not unpacked here, and no file of it was given" "Start the cluster again." ;;
        *) return ;;
    esac
    _lw_kit=$_lw_tmp/kit
}

download_kit() {
    command -v openssl >/dev/null 2>&1 || command -v sha256sum >/dev/null 2>&1 ||
        fail "The kit $_lw_kit can't be checked here, without openssl and sha256sum" "Install one of them."
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --retry 3 --connect-timeout 10 -o "$_lw_tmp/kit" "$_lw_kit"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -T 10 -O "$_lw_tmp/kit" "$_lw_kit"
    else
        fail "The kit $_lw_kit can't be fetched here, without curl and wget" "Install one of them."
    fi || fail "The kit $_lw_kit can't be fetched, see above" "Look whether this machine can reach that server."
}

# Unpack the kit beside its place and rename it. Whoever loses a race uses the winner's.
unpack_kit() (
    umask 077
    if command -v flock >/dev/null 2>&1; then # many starters at once: one unpacks, the others wait
        exec 9>"$_lw_cache/lock.kit" && flock 9
        [ -f "$_lw_kit_dir/python" ] && exit 0
    fi
    _lw_tmp=$_lw_cache/tmp/kit.$$
    _lw_new=$_lw_tmp/${_lw_kit_dir##*/}
    trap 'rm -rf "$_lw_tmp"' EXIT
    trap 'exit 143' HUP INT TERM
    rm -rf "$_lw_tmp"
    mkdir "$_lw_tmp" "$_lw_new" || fail "Nothing can be written to $_lw_cache" "Choose another folder."
    receive_kit
    [ -r "$_lw_kit" ] || fail "The kit $_lw_kit can't be read" "Start the cluster again."
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

need_kit() {
    if [ -n "$_lw_kit_lies" ]; then
        own "$_lw_kit_lies"
        _lw_kit_dir=$_lw_kit_lies
        kit_is_whole && return
        fail "The kit in $_lw_kit_lies is not whole, or nothing can be executed there" "Start the cluster again."
    fi
    if [ -d "$_lw_kit_dir" ]; then # it appeared whole, so what it lacks now somebody has removed
        own "$_lw_kit_dir"
        kit_is_whole || { mv "$_lw_kit_dir" "$_lw_cache/tmp/kit.$$.old" && rm -rf "$_lw_cache/tmp/kit.$$.old"; }
    fi
    [ -d "$_lw_kit_dir" ] || unpack_kit || exit
    own "$_lw_kit_dir"
    kit_is_whole || fail "The kit in $_lw_kit_dir is not whole" "Remove that folder and start the cluster again."
    printf '\n' 2>/dev/null > "$_lw_cache/used/${_lw_kit_dir##*/}"
}

# Run main() of the module $2 beside this process, with few claims on the processors, all that it says in the file $1,
# and nothing open that whoever started us waits for. It is nobody's child, so nobody has to wait for it. Where only the
# prefix is there, its Python does it: it has likewise, too.
background() (
    _lw_log=$1
    shift
    umask 077
    (
        cd "$_lw_cache" || exit
        command -v setsid >/dev/null && _lw_runner=setsid
        command -v nice >/dev/null && _lw_runner="$_lw_runner nice -n 10"
        kit_is_whole && kit_python "$@"
        # shellcheck disable=SC2086
        exec $_lw_runner "$_lw_prefix/bin/python" -I -B -X utf8 -m "$@"
    ) < /dev/null >> "$_lw_log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
)

start_agent() {
    [ -n "$_lw_hub" ] && [ -n "$_lw_cluster" ] || return 0
    background "$_lw_cache/agents/$_lw_cluster.log" likewise.transport.__main__ agent --cache "$_lw_cache" \
        --cluster "$_lw_cluster" --hub "$_lw_hub" --first "$_lw_first"
}

# A node that only ever starts what is there would never remove anything. The time since boot is the one clock that can
# be read without a program; the file is also written by whatever else has pruned.
prune_sometimes() {
    [ -r /proc/uptime ] || return 0
    IFS='. ' read -r _lw_now _lw_line < /proc/uptime
    _lw_last=''
    [ -r "$_lw_cache/pruned" ] && read -r _lw_last < "$_lw_cache/pruned"
    case $_lw_last in
        '' | *[!0-9]*) ;;
        *) [ "$_lw_last" -le "$_lw_now" ] && [ $((_lw_now - _lw_last)) -lt 21600 ] && return 0 ;;
    esac
    printf '%s\n' "$_lw_now" 2>/dev/null > "$_lw_cache/pruned" || return 0
    background "$_lw_cache/pruned.log" likewise.node.__main__ prune --cache "$_lw_cache"
}

# ---- start

# The lease comes before the look for the prefix, so that expiry either sees it or has removed the prefix before. The
# process id survives exec; with its start time nobody can be taken for it later.
lease() {
    _lw_stat=''
    [ -r "/proc/$$/stat" ] && read -r _lw_stat < "/proc/$$/stat"
    set -f
    # shellcheck disable=SC2086 # split into fields; the name before the parenthesis may contain anything
    set -- ${_lw_stat##*) }
    set +f
    printf '%s %s %s\n' "${_lw_manifest:--}" "${20:-0}" "${_lw_cluster:--}" 2>/dev/null \
        > "$_lw_cache/leases/$_lw_host.$$"
    [ -z "$_lw_short" ] || printf '\n' 2>/dev/null > "$_lw_cache/used/$_lw_short"
    [ -z "$_lw_cluster" ] || export LIKEWISE_CLUSTER="$_lw_cluster"
}
lease

if [ -n "$_lw_ask" ]; then
    need_kit
    _lw_line=$(kit_python likewise.transport.ask "$@" < /dev/null) || exit
    _lw_current() { _lw_manifest=${1#-} _lw_cluster=${2#-} _lw_hub=${3#-}; } # - for none
    set -f
    # shellcheck disable=SC2086 # split into fields
    _lw_current $_lw_line
    set +f
    digest "$_lw_manifest"
    check_cluster
    short
    lease
fi

_lw_prefix=$_lw_cache/prefixes/$_lw_short
case $_lw_command in
    start | materialise)
        if [ -f "$_lw_prefix/launch" ] && ! [ -d "$_lw_prefix/growing" ]; then
            own "$_lw_prefix"
            start_agent
            prune_sometimes
            [ "$_lw_command" = materialise ] || exec "$_lw_prefix/launch" "$@"
            printf '%s\n' "$_lw_prefix"
            exit
        fi
        need_kit
        start_agent
        kit_python likewise.node.__main__ "$_lw_command" --cache "$_lw_cache" --store "$_lw_store" \
            --cluster "${_lw_hub:+$_lw_cluster}" --manifest "$_lw_manifest" --kit "$_lw_kit_dir" \
            --stream "$_lw_stream" --first "$_lw_first" -- "$@"
        ;;
esac
need_kit
case $_lw_command in
    prune) kit_python likewise.node.__main__ prune --cache "$_lw_cache" ;;
    *)
        kit_python likewise.transport.__main__ "$_lw_command" --cache "$_lw_cache" --cluster "$_lw_cluster" "$@" ;;
esac
