#!/bin/bash
# Packs build/release into dist/lithos-VERSION-linux-x86_64.tar.gz (and the debug information beside it).
# Usage: dist.sh. The same commit gives the same archive.
set -euo pipefail
cd "$(dirname "$0")/.."
build=build/release
version=$(sed -n 's/^CMAKE_PROJECT_VERSION:STATIC=//p' $build/CMakeCache.txt)
name=lithos-$version-linux-x86_64
stage=$build/dist
rm -rf "$stage"
mkdir -p "$stage" dist
cmake --install $build --prefix "$stage/$name" > "$build/install.log"

# Benchmarks lie at the top, where one looks for them; what draws their traces and documents beside them.
mv "$stage/$name/share/lithos/bench" "$stage/$name/bench"
mv "$stage/$name/share/lithos/tools" "$stage/$name/tools"
mkdir -p "$stage/$name/docs"
cp -r docs/*.md docs/adr "$stage/$name/docs/"
cp LICENSE README.md CHANGELOG.md "$stage/$name/"

commit=$(git rev-parse HEAD 2> /dev/null || echo unknown)
echo "$commit" > "$stage/$name/COMMIT"
if [[ -n $(git status --porcelain 2> /dev/null) ]]; then
    echo "dist: the working tree differs from commit ${commit:0:12}: results measured with this archive do not count" >&2
    git status --porcelain > "$stage/$name/UNCOMMITTED"
fi

# Debug information goes into an archive of its own; each file says where its own lies.
while read -r file; do
    [[ $(head -c 4 "$file" | od -An -tx1 | tr -d ' \n') == 7f454c46 ]] || continue
    relative=${file#"$stage/$name/"}
    debug=$stage/$name-debug/$relative.debug
    mkdir -p "$(dirname "$debug")"
    objcopy --only-keep-debug "$file" "$debug"
    chmod 644 "$debug"
    strip --strip-unneeded "$file"
    objcopy --add-gnu-debuglink="$debug" "$file"
done < <(find "$stage/$name" -type f \( -perm -u+x -o -name '*.so*' \))

pack() { # NAME
    tar -C "$stage" --sort=name --owner=0 --group=0 --numeric-owner \
        --mtime="@$(git log -1 --format=%ct 2> /dev/null || echo 0)" -cf - "$1" | gzip -9n > "dist/$1.tar.gz.part"
    mv "dist/$1.tar.gz.part" "dist/$1.tar.gz"
    echo "dist/$1.tar.gz $(stat -c %s "dist/$1.tar.gz") bytes"
}
pack "$name-debug"
pack "$name"
