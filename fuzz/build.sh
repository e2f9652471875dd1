#!/bin/bash -eu
# Builds every target as OSS-Fuzz wants it: the programs, and their inputs as archives, in $OUT.
cd "$SRC/undercroft"
cargo fuzz build -O --debug-assertions
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    cp "fuzz/target/x86_64-unknown-linux-gnu/release/$target" "$OUT/"
    zip -q -j -r "$OUT/${target}_seed_corpus.zip" "fuzz/corpus/$target"
done
