//! Bytes as a script for the callout wheel, with an ordered map beside it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| undercroft_timer::wheel::fuzz(bytes));
