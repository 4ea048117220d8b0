#!/bin/bash
# The archive of `make dist` works anywhere: unpacked into another folder it needs nothing but a C library, and the whole
# stack runs from there on the virtual GPU. Usage: dist.sh ARCHIVE
set -euo pipefail
archive=$1
# Debian 12's; the machines it must run on are not older.
readonly GLIBC_MAX=2.36
folder=$(mktemp -d /tmp/lithos-dist-XXXXXX)
trap 'rm -rf "$folder"' EXIT
failed=0
fail() { echo "FAILED: $*"; failed=1; }

tar -xzf "$archive" -C "$folder"
root=$(find "$folder" -mindepth 1 -maxdepth 1 -type d)
[[ $(basename "$root") =~ ^lithos-[0-9.]+-linux-x86_64$ ]] || fail "the archive's folder is called $(basename "$root")"
version=$(basename "$root" | cut -d- -f2)

for file in bin/lithos bin/lithosd lib/lithos/liblithos.so lib/lithos/vgpu/libcuda.so.1 libexec/lithos/lithos-probe \
    libexec/lithos/lithos-vgpud libexec/lithos/lithos-burn libexec/lithos/lithos-exact libexec/lithos/lithos-serve libexec/lithos/lithos-launchcost libexec/lithos/lithos-graphreplay libexec/lithos/lithos-graphhold \
    libexec/lithos/vgpu/nvidia-cuda-mps-control share/lithos/cards/h200.json share/lithos/costs/default.json \
    share/lithos/kernels/samples.ptx share/man/man1/lithos.1 bench/isolation.py bench/overhead.py bench/transparency.py \
    bench/stamps.py bench/preempt.py bench/kernels/gemm.py bench/predict.py bench/predict_replay.py libexec/lithos/lithos-predictreplay bench/traces.py bench/show.py bench/models/run.py bench/lib/trace.py \
    bench/run_all.sh bench/workloads/torch_train.py bench/graphs.py bench/graphload/llama.py bench/graph_hold.py tools/trace-picture docs/ARCHITECTURE.md docs/bench.md LICENSE README.md CHANGELOG.md COMMIT; do
    [[ -e $root/$file ]] || fail "$file is not in the archive"
done

newest=0
while read -r file; do
    relative=${file#"$root/"}
    needs=$(readelf -d "$file" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    case $relative in
    lib/lithos/vgpu/*) allowed='liblithos-vgpu-rm.so libc.so.6 libm.so.6 ld-linux-x86-64.so.2' ;;
    lib/*) allowed='libc.so.6 ld-linux-x86-64.so.2' ;; # in everybody's process: nothing but libc
    *) allowed='libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 ld-linux-x86-64.so.2' ;;
    esac
    for library in $needs; do
        [[ " $allowed " == *" $library "* ]] || fail "$relative needs $library"
    done
    if ldd "$file" 2>&1 | grep -q 'not found'; then
        fail "$relative: $(ldd "$file" 2>&1 | grep 'not found')"
    fi
    highest=$(readelf -V "$file" | grep -o 'GLIBC_[0-9.]*' | sed 's/GLIBC_//' | sort -Vu | tail -n 1)
    newest=$(printf '%s\n%s\n' "$newest" "${highest:-0}" | sort -V | tail -n 1)
    if readelf -S "$file" | grep -q '\.debug_info'; then
        fail "$relative was not stripped"
    fi
    if strings_of=$(grep -aoE '/(home|root|build|work)/[A-Za-z0-9_./-]+\.[ch]\b' "$file" | head -n 1) && [[ -n $strings_of ]]; then
        fail "$relative names a path of the machine that built it: $strings_of"
    fi
done < <(find "$root" -type f -exec sh -c 'head -c 4 "$1" | grep -q "^.ELF"' _ {} \; -print)
echo "newest symbol version needed: GLIBC_$newest (limit $GLIBC_MAX)"
[[ $newest != 0 ]] || fail "no program found in the archive"
[[ $(printf '%s\n%s\n' "$newest" "$GLIBC_MAX" | sort -V | tail -n 1) == "$GLIBC_MAX" ]] || fail "GLIBC_$newest is too new"
soname=$(readelf -d "$root/lib/lithos/liblithos.so" | sed -n 's/.*(SONAME).*\[\(.*\)\]/\1/p')
[[ $soname == libcuda.so.1 ]] || fail "liblithos.so is called '$soname': programs that open libcuda.so.1 would pass it by"

"$root/tools/trace-picture" --help > /dev/null || fail "trace-picture does not find what it needs"
said=$("$root/bin/lithos" version) || fail "lithos version: exit code $?"
[[ $said == *"$version"* ]] || fail "lithos version says '$said', the archive $version"

# The whole stack from there: server, daemon, library, tenant.
export LITHOS_SOCKET=$folder/d.sock LITHOS_CACHE_DIR=$folder/cache
if ! timeout 100 "$root/libexec/lithos/lithos-vgpud" --card h200 --scale 20 -- bash -c '
    "$1/bin/lithos" run --quota 33 --name dist -- "$1/libexec/lithos/lithos-burn" --check --json --seconds 0.1 --warmup 0
    code=$?
    "$1/bin/lithos" stop || echo "lithos stop: exit code $?"
    exit $code' _ "$root" > "$folder/out" 2>&1; then
    fail "a tenant on the virtual GPU"
    cat "$folder/out"
fi
grep -q '"check": true' "$folder/out" || { fail "the tenant's results"; cat "$folder/out"; }
grep -q '"sms_used": 66' "$folder/out" || { fail "the tenant is not confined to 66 SMs"; cat "$folder/out"; }
((failed)) || echo "ok: $(basename "$archive")"
exit $failed
