//! The stress programme behind source 002, whose proof of concept brought machines down within the hour: a few clients arm, stop, drain, free
//! and remake their callouts on random CPUs while the handlers arm their own on others. One plan for the old system and for ours.

mod control;
mod ours;

/// How much a plan does.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub cpus: usize,
    pub clients: usize,
    /// Deeds of each client.
    pub deeds: usize,
    /// Whether callouts go to other CPUs, and handlers arm their own.
    pub moves: bool,
}

/// What a client does next to its callout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Start {
        cpu: usize,
        delay: u64,
    },
    Stop,
    /// Drain, free, and make a new one.
    Remake,
}

/// The random numbers of one run, known by its seed.
#[derive(Debug, Clone)]
pub struct Plan {
    state: u64,
    size: Size,
}

impl Plan {
    pub fn new(seed: u64, size: Size) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, size }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 32) as usize % bound.max(1)
    }

    fn start(&mut self, home: usize) -> Deed {
        let cpu = if self.size.moves { self.below(self.size.cpus) } else { home };
        Deed::Start { cpu, delay: self.below(8) as u64 }
    }

    /// What the client whose callouts are made on CPU `home` does next.
    pub fn deed(&mut self, home: usize) -> Deed {
        match self.below(8) {
            0..4 => self.start(home),
            4 => Deed::Stop,
            _ => Deed::Remake,
        }
    }

    /// What a handler does to its own callout.
    pub fn in_handler(&mut self, home: usize) -> Option<Deed> {
        (self.size.moves && self.below(2) == 0).then(|| self.start(home))
    }
}
