//! While a device has a buffer, nobody else has it, to free it.
use undercroft_hal::dma::{DmaBuf, FromDevice, Given, Streaming};

fn take_back(mapped: Streaming<FromDevice>) -> (Given<FromDevice>, DmaBuf) {
    (mapped.give(), mapped.unmap())
}

fn main() {}
