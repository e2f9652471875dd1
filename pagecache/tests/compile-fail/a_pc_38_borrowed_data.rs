//! An operation owns its data: memory that may go, or fault, while it is under way cannot be given to it.
use undercroft_hal::Task;
use undercroft_pagecache::{Done, Volume};

fn write(cx: &Task, volume: &Volume, user: &[u8], done: Done) {
    let _ = volume.write(cx, 0, user, done);
}

fn main() {}
