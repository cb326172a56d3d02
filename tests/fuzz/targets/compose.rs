//! libFuzzer's target for [`swarmkeeper_fuzz::compose`]; `tests/fuzz/run.sh` runs it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| swarmkeeper_fuzz::compose(bytes));
