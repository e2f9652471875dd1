//! While a device has a buffer, nobody looks at its bytes.
use undercroft_hal::dma::{FromDevice, Streaming};

fn read(mapped: Streaming<FromDevice>) -> u8 {
    mapped.give()[0]
}

fn main() {}
