# What a host is like, in one go: lines "name value". Arguments: the options of bootstrap.sh for `place`, whose text stands
# in for the line below that names it. Everything that a host may lack is asked with care; what is missing stays unsaid.

say() {
    printf '%s %s\n' "$1" "${2%%"$newline"*}"
}
newline='
'
say date "$(date +%s)"
say user "$(id -un 2>/dev/null)"
say home "${HOME:-}"
say host "$(uname -n)"
say system "$(uname -s)"
say machine "$(uname -m)"
say kernel "$(uname -r)"
say connection "${SSH_CONNECTION:-}"
for tool in tar gzip mkdir mv rm ls cat; do
    command -v "$tool" >/dev/null || say lacks "$tool"
done

for address in $(hostname -I 2>/dev/null || ip -o addr show scope global 2>/dev/null | sed 's/.* inet6* \([^/ ]*\).*/\1/'); do
    say address "$address"
done

libc=$(getconf GNU_LIBC_VERSION 2>/dev/null)
for file in /lib/ld-musl-*.so.1; do
    [ -n "$libc" ] || [ ! -e "$file" ] || libc="musl $("$file" 2>&1 | sed -n 's/^Version //p')"
done
[ -n "$libc" ] || libc=$(ldd --version 2>&1 | sed -n '1s/.*\(GNU\|GLIBC\).* /glibc /p')
say libc "$libc"

# libstdc++ and libgcc are the machine's own business; here is how new they are.
for library in libstdc++.so.6 libgcc_s.so.1; do
    for file in $(PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2>/dev/null | sed -n "s/.*$library .*=> //p") \
        /usr/lib/*/$library /lib/*/$library /usr/lib64/$library /lib64/$library /usr/lib/$library; do
        [ -r "$file" ] || continue
        # shellcheck disable=SC2046 # one line of words
        say symbols "$(echo $(LC_ALL=C tr -cs 'A-Za-z0-9._' '\n' < "$file" | grep '^\(GLIBCXX\|CXXABI\|GCC\)_[0-9.]*$'))"
        break
    done
done

place() (
    @BOOTSTRAP@
)
placed=$(place "$@" 2>&1)
status=$?
say placed $status
cache=''
while IFS= read -r line; do
    case $line in
        'likewise: '*) say notice "${line#likewise: }" ;;
        /*) cache=$line ;;
        *) say notice "$line" ;;
    esac
done <<END
$placed
END

if [ $status -eq 0 ] && cd "$cache" 2>/dev/null; then
    say cache "$cache"
    say disk "$(df -Pk . 2>/dev/null | sed -n '$p')"
    say inodes "$(df -Pi . 2>/dev/null | sed -n '$p')"
    try=tmp/probe.$$
    if printf '#!/bin/sh\n' > "$try" && chmod 700 "$try" && "./$try"; then say exec yes; else say exec no; fi 2>/dev/null
    rm -f "$try"
    for file in kits/*/python; do [ -f "$file" ] && say kit "${file%/python}"; done
    for file in prefixes/*/launch; do [ -f "$file" ] && say prefix "${file%/launch}"; done
    for file in bootstrap-*.sh; do [ -f "$file" ] && say script "$file"; done
    for file in layers/*.listing; do [ -f "$file" ] && say layer "${file%.listing}"; done
fi
say end yes
