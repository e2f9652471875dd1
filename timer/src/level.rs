//! Execution levels: the context that a callout's handler runs in, fixed by type when the callout is made.

use undercroft_hal::context::{Context, Kind};
use undercroft_hal::{BottomHalf, HardIrq, Task, Unwaiting};

mod sealed {
    pub trait Sealed {}
    impl Sealed for undercroft_hal::HardIrq {}
    impl Sealed for undercroft_hal::BottomHalf {}
    impl Sealed for undercroft_hal::Task {}
}

/// Where a handler runs: [`HardIrq`] (in the alarm's interrupt), [`BottomHalf`] or [`Task`]. What it is given there cannot wait, so that
/// a handler cannot wait for itself.
pub trait Level: sealed::Sealed + 'static {
    /// What the handler is given as proof of its context. In task context that is [`Unwaiting`].
    type Token: Context;
    #[doc(hidden)]
    const KIND: Kind;
    #[doc(hidden)]
    fn of<'a>(token: &Token<'a>) -> Option<&'a Self::Token>;
}

/// An executor's own context, to be given to a handler of that level.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub enum Token<'a> {
    HardIrq(&'a HardIrq),
    BottomHalf(&'a BottomHalf),
    Task(&'a Unwaiting),
    /// A test's or a model's executor, which has no context.
    #[cfg(test)]
    Test(Kind),
}

impl Token<'_> {
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::HardIrq(_) => Kind::HardIrq,
            Self::BottomHalf(_) => Kind::BottomHalf,
            Self::Task(_) => Kind::Task,
            #[cfg(test)]
            Self::Test(kind) => *kind,
        }
    }
}

impl Level for HardIrq {
    type Token = Self;
    const KIND: Kind = Kind::HardIrq;
    fn of<'a>(token: &Token<'a>) -> Option<&'a Self> {
        if let Token::HardIrq(token) = token { Some(token) } else { None }
    }
}

impl Level for BottomHalf {
    type Token = Self;
    const KIND: Kind = Kind::BottomHalf;
    fn of<'a>(token: &Token<'a>) -> Option<&'a Self> {
        if let Token::BottomHalf(token) = token { Some(token) } else { None }
    }
}

impl Level for Task {
    type Token = Unwaiting;
    const KIND: Kind = Kind::Task;
    fn of<'a>(token: &Token<'a>) -> Option<&'a Unwaiting> {
        if let Token::Task(token) = token { Some(token) } else { None }
    }
}

/// How many levels there are. A [`Kind`] is an index.
pub(crate) const LEVELS: usize = 3;
