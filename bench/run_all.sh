#!/bin/bash
# All benchmarks on this machine's card. Usage: run_all.sh [--out DIR] [--budget SECONDS] [--quick] [NAME...]
# NAME: isolation, overhead, transparency, stamps, predict, atoms, exact, hol, runahead, hybrid, stack3, preempt, lending, reaction (default: all of these);
#   bound, graphs, graph_follow, graph_hold, fig10, scaling, power_advise, tools_beside, traces, show.
# From an unpacked tarball, an installation or a checkout that was built.
# First what the machine is and whether LithOS works on it at all; then the benchmarks, each with a share of the time that is
# left. Goes on when one fails. Changes no setting of the card and joins no MPS but its own.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$PWD/bench-results} budget=3600 quick=0
names=()
while [[ $# -gt 0 ]]; do
    case $1 in
    --out) out=$2; shift ;;
    --budget) budget=$2; shift ;;
    --quick) quick=1 ;;
    --prefix) prefix=$2; shift ;;
    isolation | overhead | transparency | stamps | predict | atoms | exact | hol | runahead | hybrid | stack3 | preempt | lending | reaction | bound | graphs | graph_follow | graph_hold | fig10 | scaling | power_advise | tools_beside | traces | show) names+=("$1") ;;
    -h | --help) sed -n '2,7s/^# //p' "$0"; exit 0 ;;
    *) echo "run_all: unknown word '$1'" >&2; exit 2 ;;
    esac
    shift
done
[[ ${#names[@]} -gt 0 ]] || names=(isolation overhead transparency stamps predict atoms exact hol runahead hybrid stack3 preempt lending reaction)

for root in ${prefix:+"$prefix"} "$here/.." "$here/../../.." "$here/../build/dev"; do
    [[ -x $root/bin/lithos ]] && break
done
[[ -x $root/bin/lithos ]] || { echo "run_all: no bin/lithos near $here: say --prefix" >&2; exit 2; }
root=$(cd "$root" && pwd)
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)
export PYTHONUNBUFFERED=1 LITHOS_CACHE_DIR=${LITHOS_CACHE_DIR:-$out/cache}
# what torch.compile made for one script serves the next, and so does the frameworks' bytecode where none lies beside them
python3 -c "import importlib.util, os, sys; s = importlib.util.find_spec('torch')
sys.exit(s is not None and not os.path.exists(importlib.util.cache_from_source(s.origin)))" ||
    export PYTHONPYCACHEPREFIX=${PYTHONPYCACHEPREFIX:-$out/cache/bytecode}
export TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-$out/cache/inductor} TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$out/cache/triton}
begin=$SECONDS
left() { echo $((budget - (SECONDS - begin))); }

# the daemon of the checks, apart from any that runs here
socket_dir=$(mktemp -d /tmp/lr-XXXXXX)
cleanup() {
    LITHOS_SOCKET=$socket_dir/d.sock timeout 20 "$root/bin/lithos" stop > /dev/null 2>&1
    rm -rf "$socket_dir"
}
trap cleanup EXIT

step() { # NAME SECONDS COMMAND...: log to NAME.log, say how it went
    local name=$1 limit=$2 start=$SECONDS code
    shift 2
    echo "==== $name (at most $limit s): $*"
    timeout --kill-after=10 "$limit" "$@" < /dev/null > >(tee "$out/$name.log") 2>&1
    code=$?
    sleep 0.2 # tee's last words
    echo "---- $name: exit code $code after $((SECONDS - start)) s"
    echo "$name $code $((SECONDS - start))" >> "$out/steps.txt"
    return $code
}

: > "$out/steps.txt"
failed=0
cp "$root/COMMIT" "$out/COMMIT" 2> /dev/null
step machine 30 bash -c 'uname -a; nproc; nvidia-smi 2>&1 | head -20; python3 --version'
step version 20 "$root/bin/lithos" version
step probe 120 "$root/libexec/lithos/lithos-probe" --json --no-cache || failed=1
step doctor 120 env LITHOS_SOCKET="$socket_dir/d.sock" "$root/bin/lithos" doctor
step smoke-bare 90 "$root/libexec/lithos/lithos-burn" --check --seconds 1 || failed=1
step smoke 180 env LITHOS_LOG=info LITHOS_SOCKET="$socket_dir/d.sock" "$root/bin/lithos" run --quota 33 --name smoke -- \
    "$root/libexec/lithos/lithos-burn" --check --seconds 2 || failed=1
step status 30 env LITHOS_SOCKET="$socket_dir/d.sock" "$root/bin/lithos" status
cp "$socket_dir"/*.log "$out/" 2> /dev/null
cleanup
mkdir -p "$socket_dir"

remaining=${#names[@]}
for name in "${names[@]}"; do
    # each gets an even share of what is left, and a little before its end starts no further repetition
    share=$(($(left) / remaining))
    remaining=$((remaining - 1))
    if ((share < 30)); then
        echo "==== $name: no time left (budget $budget s)"
        failed=1
        continue
    fi
    args=(--out "$out" --prefix "$root" --keep-going-after $((share * 6 / 10)))
    if ((quick)); then
        case $name in
        isolation) args+=(--seconds 1.5) ;;
        overhead) args+=(--turns 10 --starts 3 --repetitions 2 --model-seconds 2) ;;
        transparency) args+=(--repetitions 1) ;;
        stamps) args+=(--repetitions 1 --iterations 10) ;;
        predict) args+=(--repetitions 1 --seconds 2) ;;
        atoms) args+=(--repetitions 1 --no-models) ;;
        exact) args+=(--parts 7 --rounds 1) ;;
        graphs) args+=(--repetitions 3) ;;
        graph_follow | graph_hold) args+=(--repetitions 1) ;;
        hol) args+=(--repetitions 1 --seconds 1.5) ;;
        reaction) args+=(--repetitions 1 --seconds 2) ;;
        runahead) args+=(--repetitions 1 --turns 8 --model-seconds 3) ;;
        preempt | lending) args+=(--repetitions 1) ;;
        hybrid | stack3 | bound) args+=(--repetitions 1) ;;
        scaling) args+=(--iterations 3) ;;
        power_advise) args+=(--seconds 10) ;;
        traces | show) args+=(--seconds 1) ;;
        esac
    fi
    step "$name" $((share - 15)) python3 "$here/$name.py" "${args[@]}" || failed=1
done

echo "==== summary ($((SECONDS - begin)) s)"
while read -r name code seconds; do
    printf '%-14s exit code %-3s %4s s\n' "$name" "$code" "$seconds"
done < "$out/steps.txt"
grep -hE '^(met   |MISSED) ' "$out"/*.log
exit $failed
