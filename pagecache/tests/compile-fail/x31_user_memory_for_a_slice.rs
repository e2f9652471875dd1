//! What is copied under the volume's lock are slices, which cannot fault; memory that may is not one.
use undercroft_hal::Task;
use undercroft_pagecache::{UserMemory, Volume};

fn read(cx: &Task, volume: &Volume, user: &mut impl UserMemory) {
    let _ = volume.read_blocking(cx, 0, user);
}

fn main() {}
