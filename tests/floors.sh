#!/usr/bin/env bash
# A file includes its own floor and lower ones, never higher; models do not include each other. See docs/decisions.md.
set -euo pipefail
cd "$1"
floor() {
    case $1 in
    bandsaw.h | base/* | src/base/* | src/bandsaw.h) echo 0 ;;
    dsp/* | io/* | src/io/* | kernels/simd/*) echo 1 ;; # the instruction sets know nothing of tensors
    core/* | src/core/* | datasets/*) echo 2 ;;
    kernels/*) echo 3 ;;
    nn/* | src/nn/*) echo 4 ;;
    models/*) echo 5 ;;
    run/* | src/run/*) echo 6 ;;
    tools/* | *.h) echo 7 ;; # a bare name is beside its file
    *) echo "unknown folder of $1" >&2 && exit 1 ;;
    esac
}
bad=0 count=0
while IFS=: read -r file include; do
    target=$(sed -E 's/.*"(.*)".*/\1/' <<<"$include")
    case $target in */*) ;; bandsaw.h) ;; *) target=$(dirname "$file")/$target ;; esac
    count=$((count + 1))
    if [ "$(floor "$target")" -gt "$(floor "$file")" ]; then
        echo "$file includes $target, which is higher up"
        bad=$((bad + 1))
    fi
done < <(grep -rHE '^ *# *include "' src dsp datasets kernels models tools --include='*.c' --include='*.h' --include='*.inc' |
    grep -vE 'SAW_|\.def"')
[ "$count" -gt 200 ] || { echo "only $count includes were found"; exit 1; }
echo "$((count - bad)) passed, $bad failed"
[ "$bad" -eq 0 ]
