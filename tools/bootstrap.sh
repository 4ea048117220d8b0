#!/bin/bash
# Sees to it that what the build needs is there. Usage: bootstrap.sh [build] [lint] [--list]
# Installs missing Debian packages when it may (root, or sudo without a password); else prints the one command to run.
# Says nothing when nothing is missing.
set -euo pipefail

has_command() { command -v "$1" > /dev/null 2>&1; }
has_header() { echo "#include <$1>" | gcc -E -xc - > /dev/null 2>&1; }
has_archive() { [[ $(gcc -print-file-name="$1" 2> /dev/null) == /* ]]; }

# group | Debian package | check that it is there (also when it came from elsewhere)
readonly NEEDS='
build | cmake          | has_command cmake
build | ninja-build    | has_command ninja
build | gcc            | has_command gcc
build | libc6-dev      | has_header stdio.h
build | binutils       | has_command readelf
build | pkg-config     | has_command pkg-config
build | libcmocka-dev  | has_header stdarg.h && pkg-config --exists cmocka
build | libjansson-dev | has_header jansson.h && has_archive libjansson.a
build | libncurses-dev | has_header curses.h
build | zlib1g-dev     | has_header zlib.h && has_archive libz.a
build | python3        | has_command python3
lint  | clang-format   | has_command clang-format
lint  | clang-tidy     | has_command clang-tidy
lint  | cppcheck       | has_command cppcheck
lint  | pyflakes3      | has_command pyflakes3
'

wanted=()
list=0
for arg in "$@"; do
    case $arg in
    --list) list=1 ;;
    build | lint) wanted+=("$arg") ;;
    *) echo "bootstrap: unknown word '$arg' (build, lint, --list)" >&2; exit 2 ;;
    esac
done
[[ ${#wanted[@]} -gt 0 ]] || wanted=(build)

missing=()
while IFS='|' read -r group package check; do
    group=${group// /} package=${package// /}
    [[ -n $group && " ${wanted[*]} " == *" $group "* ]] || continue
    if ((list)) || ! eval "$check"; then
        missing+=("$package")
    fi
done <<< "$NEEDS"

if ((list)); then
    printf '%s\n' "${missing[@]}"
    exit 0
fi
[[ ${#missing[@]} -gt 0 ]] || exit 0

sudo=()
if [[ $EUID -ne 0 ]]; then
    sudo=(sudo)
    if ! sudo -n true 2> /dev/null; then
        may=0
    fi
fi
if ! has_command apt-get || [[ ${may:-1} -eq 0 ]]; then
    echo "bootstrap: missing: ${missing[*]}" >&2
    echo "bootstrap: run this, then again what you ran (the names are Debian's; other systems have the same under other names):" >&2
    echo "    ${sudo[*]+sudo }apt-get install --no-install-recommends -y ${missing[*]}" >&2
    exit 1
fi

export DEBIAN_FRONTEND=noninteractive
run_apt() { "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o APT::Update::Error-Mode=any "$@" < /dev/null; }
echo "bootstrap: installing ${missing[*]}"
# The lists may be absent (a fresh system) or too old: then fetch them, once.
if [[ -z $(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -print -quit 2> /dev/null) ]]; then
    run_apt update
    fresh=1
fi
if ! run_apt install --no-install-recommends -y "${missing[@]}" > /tmp/lithos-bootstrap.$$ 2>&1; then
    if [[ ${fresh:-0} -eq 0 ]]; then
        run_apt update
        run_apt install --no-install-recommends -y "${missing[@]}" > /tmp/lithos-bootstrap.$$ 2>&1 || failed=1
    else
        failed=1
    fi
fi
if [[ ${failed:-0} -eq 1 ]]; then
    cat /tmp/lithos-bootstrap.$$ >&2
    rm -f /tmp/lithos-bootstrap.$$
    echo "bootstrap: apt-get could not install: ${missing[*]} (its words are above)" >&2
    exit 1
fi
rm -f /tmp/lithos-bootstrap.$$
