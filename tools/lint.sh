#!/bin/bash
# Everything a machine can say about the sources. Usage: lint.sh [format|tidy|cppcheck|python|layers|paths]...
# Needs build/dev/compile_commands.json (make lint sees to it).
set -uo pipefail
cd "$(dirname "$0")/.."
[[ $# -gt 0 ]] || set -- format tidy cppcheck python layers paths
failed=()

lint_format() { tools/sources.sh | xargs clang-format --dry-run -Werror; }

lint_tidy() {
    # only what the build compiles: generated files of the build folder are not ours to style
    python3 - << 'END' | xargs -r -n 4 -P "$(nproc)" clang-tidy --quiet --extra-arg=-Wno-ignored-optimization-argument -p build/dev 2> >(grep -v 'warnings generated' >&2)
import json, os
root = os.getcwd()
files = {e["file"] for e in json.load(open("build/dev/compile_commands.json"))}
for f in sorted(files):
    rel = os.path.relpath(f, root)
    if rel.endswith(".c") and not rel.startswith(("build/", "..")):
        print(rel)
END
}

lint_cppcheck() {
    cppcheck --quiet --std=c11 --language=c -j "$(nproc)" --enable=warning,portability,performance --inline-suppr \
        --error-exitcode=1 --suppressions-list=tools/cppcheck.supp -D__x86_64__ -D_GNU_SOURCE -Isrc -Itests \
        src samples tests bench
}

# names that are not there: much of bench/ runs on a card alone
lint_python() { { find src samples tests bench -name '*.py'; grep -lE '^#!.*python' tools/*; } | sort | xargs pyflakes3; }

for what in "$@"; do
    echo "== $what"
    case $what in
    format) lint_format ;;
    tidy) lint_tidy ;;
    cppcheck) lint_cppcheck ;;
    python) lint_python ;;
    layers) tools/check-layers ;;
    paths) tools/check-paths ;;
    *) echo "lint: unknown check '$what'" >&2; false ;;
    esac || failed+=("$what")
done
if [[ ${#failed[@]} -gt 0 ]]; then
    echo "lint: failed: ${failed[*]}"
    exit 1
fi
echo "lint: clean"
