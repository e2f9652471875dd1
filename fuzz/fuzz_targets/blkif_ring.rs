#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| undercroft_fuzz_targets::blkif_ring(bytes));
