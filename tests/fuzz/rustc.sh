#!/bin/sh
# Cargo's RUSTC_WORKSPACE_WRAPPER for the fuzz targets: rustc, with libFuzzer's instruments in our own crates. Dependencies are compiled
# as ever, and so are those that the tests have compiled. Stable Rust takes the flags that cargo-fuzz sets on nightly.
case " $* " in
    *" --crate-name swarmkeeper "* | *" --crate-name swarmkeeper_fuzz "*)
        exec "$@" -Cpasses=sancov-module \
            -Cllvm-args=-sanitizer-coverage-level=4 \
            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
            -Cllvm-args=-sanitizer-coverage-pc-table \
            -Cllvm-args=-sanitizer-coverage-trace-compares
        ;;
    *" --crate-name fuzz_"*)
        # libFuzzer puts itself before `strncmp` and its like, and finds the real ones in a shared C library only.
        for word do
            shift
            [ "$word" != target-feature=+crt-static ] || word=target-feature=-crt-static
            set -- "$@" "$word"
        done
        ;;
esac
exec "$@"
