//! A volume's lock is for bottom halves and tasks: a hard interrupt can neither begin an operation nor look at a page.
use undercroft_block::Data;
use undercroft_hal::HardIrq;
use undercroft_pagecache::{Done, Volume};

fn handler(cx: &HardIrq, volume: &Volume, done: Done) {
    let _ = volume.read(cx, 0, Data::None, done);
}

fn main() {}
