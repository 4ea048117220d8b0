#!/bin/bash
# Everything that must pass before code is merged. Usage: test.sh [JOBS]
#   dev:  unit, golden, fuzz and end-to-end tests, layers, names in Python, result files
#   asan: unit, fuzz and end-to-end tests under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer
#   tsan: unit and end-to-end tests under ThreadSanitizer
#   dist: the archive of `make dist`, unpacked elsewhere
# Every phase runs, also when one before it failed; the summary at the end names what failed. A test that fails beside others is run again by
# itself: many go by the clock, which a machine that others use as well can stop for a while. What passes only then is named too.
set -uo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-$(nproc)}
# End-to-end tests wait more than they compute; those whose times matter run alone.
at_once=$((2 * jobs))
export CTEST_OUTPUT_ON_FAILURE=1
# A daemon or GPU of the user's must not be found by the tests.
unset LITHOS_SOCKET LITHOS_TENANT LITHOS_VGPU_SOCKET LITHOS_LIBCUDA LITHOS_CACHE_DIR LITHOS_GRANT CUDA_MPS_PIPE_DIRECTORY

names=() times=() states=() remarks=()

# The first tests wait for longer than they compute: what the later phases need is built meanwhile, at the lowest priority. A build that fails
# here fails in its own phase again, which shows why.
build_ahead() {
    local preset
    for preset in asan tsan release; do
        nice -n 19 tools/build.sh "$preset" "$jobs" || return
    done > build/ahead.log 2>&1
}

tests_dev() {
    local ahead result=0
    build_ahead &
    ahead=$!
    tests dev || result=1
    wait "$ahead"
    return $result
}

# A preset's tests; those that failed a second time.
tests() { # PRESET [COMMAND...]
    local preset=$1 first
    shift
    local failed=build/$preset/Testing/Temporary/LastTestsFailed.log
    "$@" ctest --preset "$preset" --parallel "$at_once" --no-tests=error && return
    [[ -s $failed ]] || return 1
    first=$(failed_in "$failed")
    echo "---- once more, by themselves: $first"
    if "$@" ctest --preset "$preset" --rerun-failed; then
        remarks+=("tests $preset: passed by themselves only: $first")
        return 0
    fi
    remarks+=("tests $preset: failed: $(failed_in "$failed") (at first: $first)")
    return 1
}

failed_in() { # ctest's list: NUMBER:NAME
    cut -d: -f2- "$1" | paste -sd' '
}

phase() { # NAME COMMAND...
    local name=$1 start=$SECONDS state=ok
    shift
    echo
    echo "==== $name"
    "$@" || state=FAILED
    names+=("$name") times+=($((SECONDS - start))) states+=("$state")
    [[ $state == ok ]]
}

# ThreadSanitizer of gcc 12 needs a fixed memory layout on kernels with many random bits.
fixed_layout=()
if setarch "$(uname -m)" -R true 2> /dev/null; then
    fixed_layout=(setarch "$(uname -m)" -R)
fi

sanitized_tests() { # PRESET
    local reports=$PWD/build/$1/sanitizer
    rm -rf "$reports"
    mkdir -p "$reports"
    # Reports go to files, with the program's name in theirs: also those of a daemon or a tenant whose output nobody looks at fail the run.
    ASAN_OPTIONS=log_path=$reports/asan:log_exe_name=1:verify_asan_link_order=0:detect_stack_use_after_return=1:${ASAN_OPTIONS:-} \
        LSAN_OPTIONS=suppressions=$PWD/tools/lsan.supp:print_suppressions=0 \
        UBSAN_OPTIONS=log_path=$reports/ubsan:log_exe_name=1:print_stacktrace=1:${UBSAN_OPTIONS:-} \
        TSAN_OPTIONS=log_path=$reports/tsan:log_exe_name=1:suppressions=$PWD/tools/tsan.supp:second_deadlock_stack=1:atexit_sleep_ms=20:${TSAN_OPTIONS:-} \
        LITHOS_FUZZ_RUNS=${LITHOS_FUZZ_RUNS:-5000} LITHOS_TEST_SLACK=${LITHOS_TEST_SLACK:-10} LITHOS_SANITIZED=$1 \
        tests "$1" "${fixed_layout[@]}"
    local result=$? found
    found=$(find "$reports" -type f | sort)
    if [[ -n $found ]]; then
        echo "sanitizer reports:"
        while read -r file; do
            echo "---- $file"
            head -n 60 "$file"
        done <<< "$found"
        remarks+=("tests $1: sanitizer reports: $(xargs -n 1 basename <<< "$found" | paste -sd" ")")
        return 1
    fi
    return $result
}

results_check() {
    local checker=${LITHOS_CHECK_RESULTS:-../shared/check_results.py}
    tools/check-results || return 1
    if [[ ! -f $checker ]]; then
        echo "no $checker here: what is in the result files is not checked"
    else
        python3 "$checker"
    fi
}

dist_test() {
    local version
    version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' build/release/CMakeCache.txt)
    bash tests/e2e/dist.sh "dist/lithos-$version-linux-x86_64.tar.gz"
}

phase "build dev" tools/build.sh dev "$jobs" &&
    phase "tests dev" tests_dev
phase "layers" tools/check-layers
# make lint sees to it that it is here
if command -v pyflakes3 > /dev/null; then phase "python" tools/lint.sh python; fi
phase "no machine paths" tools/check-paths
phase "result files" results_check
phase "build asan" tools/build.sh asan "$jobs" &&
    phase "tests asan+ubsan" sanitized_tests asan
phase "build tsan" tools/build.sh tsan "$jobs" &&
    phase "tests tsan" sanitized_tests tsan
phase "build release" tools/build.sh release "$jobs" &&
    phase "dist" tools/dist.sh &&
    phase "tests dist" dist_test

echo
echo "==== summary"
failed=0
for i in "${!names[@]}"; do
    printf '%-20s %4d s  %s\n' "${names[i]}" "${times[i]}" "${states[i]}"
    [[ ${states[i]} == ok ]] || failed=$((failed + 1))
done
for remark in "${remarks[@]}"; do
    echo "$remark"
done
printf '%-20s %4d s  %s\n' total "$SECONDS" "$( ((failed)) && echo "$failed FAILED" || echo "all passed")"
((failed == 0))
