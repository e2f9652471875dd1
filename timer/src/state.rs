//! A callout's state and flags, in the sixteen bits that the wheel's links leave to their owner.

/// Where a callout stands. Each change is made under its home's lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum State {
    /// Neither armed nor running.
    Idle = 0,
    /// In its home's wheel.
    Armed = 1,
    /// Off the wheel, on the list of those that are to run.
    Due = 2,
    /// An executor has taken it, and will run the handler if nothing comes between.
    Committed = 3,
    /// The handler runs.
    Running = 4,
    /// The handler returned; its executor still has it.
    Left = 5,
    /// On its way to another CPU's wheel: armed, though in no wheel.
    Transit = 6,
}

impl State {
    /// Whether an executor has it.
    pub(crate) const fn is_in_flight(self) -> bool {
        matches!(self, Self::Committed | Self::Running | Self::Left)
    }
}

/// State, flags and the next request's CPU. Bits 0 to 2: state; 3 to 7: flags; 8 to 15: CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u16);

impl Tag {
    /// There is a next request.
    pub(crate) const NEXT: u16 = 1 << 3;
    /// Somebody waits for the end of the run in flight: no starts until then.
    pub(crate) const DRAINING: u16 = 1 << 4;
    /// No starts any more.
    pub(crate) const CLOSED: u16 = 1 << 5;
    /// It never sets the alarm.
    pub(crate) const DEFERRABLE: u16 = 1 << 6;
    /// Due, but its lock was held by somebody.
    pub(crate) const CONTENDED: u16 = 1 << 7;

    pub(crate) const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u16 {
        self.0
    }

    pub(crate) const fn state(self) -> State {
        match self.0 & 7 {
            1 => State::Armed,
            2 => State::Due,
            3 => State::Committed,
            4 => State::Running,
            5 => State::Left,
            6 => State::Transit,
            _ => State::Idle,
        }
    }

    /// In this state, with no flag.
    pub(crate) const fn is_just(self, state: State) -> bool {
        self.0 as u8 == state as u8
    }

    pub(crate) const fn with_state(self, state: State) -> Self {
        Self(self.0 & !7 | state as u16)
    }

    pub(crate) const fn has(self, flag: u16) -> bool {
        self.0 & flag != 0
    }

    pub(crate) const fn with(self, flag: u16) -> Self {
        Self(self.0 | flag)
    }

    pub(crate) const fn without(self, flag: u16) -> Self {
        Self(self.0 & !flag)
    }

    pub(crate) const fn next_cpu(self) -> usize {
        (self.0 >> 8) as usize
    }

    pub(crate) const fn with_next_cpu(self, cpu: usize) -> Self {
        Self(self.0 & 0xff | (cpu as u16) << 8)
    }
}
