//! Which way data moves, as types.

mod sealed {
    pub trait Sealed {}
}

/// One of [`ToDevice`], [`FromDevice`] and [`Bidirectional`].
pub trait Direction: sealed::Sealed {
    /// The device reads the memory.
    const READ_BY_DEVICE: bool;
    /// The device writes the memory.
    const WRITTEN_BY_DEVICE: bool;
}

macro_rules! direction {
    ($(#[$doc:meta])* $name:ident, $read:expr, $written:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {}

        impl sealed::Sealed for $name {}
        impl Direction for $name {
            const READ_BY_DEVICE: bool = $read;
            const WRITTEN_BY_DEVICE: bool = $written;
        }
    };
}

direction!(
    /// The device reads: a write request's data.
    ToDevice,
    true,
    false
);
direction!(
    /// The device writes: a read request's data.
    FromDevice,
    false,
    true
);
direction!(
    /// Both.
    Bidirectional,
    true,
    true
);
