//! The directions are these three.
use undercroft_hal::dma::Direction;

struct Sideways;

impl Direction for Sideways {
    const READ_BY_DEVICE: bool = false;
    const WRITTEN_BY_DEVICE: bool = false;
}

fn main() {}
