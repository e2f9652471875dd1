//! Device registers: memory-mapped and I/O ports, bounds-checked. Any context.
//!
//! An access outside the region reads all ones and writes nothing, as a bus would answer: an offset that a host
//! supplied can be wrong, but it cannot reach memory. Drivers that must tell the difference check [`Mmio::len`].

use core::fmt;
use core::ptr::NonNull;

use crate::platform::seam;

/// The width of a register access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    U8,
    /// Two bytes.
    U16,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
}

impl Width {
    /// Bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 => 2,
            Self::U32 => 4,
            Self::U64 => 8,
        }
    }
}

/// Why registers could not be mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MmioError {
    /// The physical range is empty, wraps, or is not device memory.
    BadRange,
    /// The platform has no room in its address space.
    NoSpace,
}

impl fmt::Display for MmioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadRange => "not a device register range",
            Self::NoSpace => "no address space left for device registers",
        })
    }
}

/// A value that a register access can carry.
pub trait Register: Copy + private::Sealed {
    /// The access width.
    const WIDTH: Width;
    /// From the bus.
    fn from_bus(raw: u64) -> Self;
    /// To the bus.
    fn to_bus(self) -> u64;
}

mod private {
    pub trait Sealed {}
}

macro_rules! register {
    ($($t:ty = $w:ident),*) => {$(
        impl private::Sealed for $t {}
        impl Register for $t {
            const WIDTH: Width = Width::$w;
            #[inline]
            fn from_bus(raw: u64) -> Self {
                raw as Self
            }
            #[inline]
            fn to_bus(self) -> u64 {
                u64::from(self)
            }
        }
    )*};
}
register!(u8 = U8, u16 = U16, u32 = U32, u64 = U64);

/// A mapped range of device registers. Cheap to copy: a doorbell is a sub-range of one register.
#[derive(Clone, Copy)]
pub struct Mmio {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: an `Mmio` is an address and a length; every access is one volatile access through the platform, and what
// concurrent accesses mean is a matter of the device, not of memory safety.
unsafe impl Send for Mmio {}
// SAFETY: as for Send.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Maps the registers at physical address `phys`.
    ///
    /// # Errors
    /// [`MmioError`] when the platform refuses the range.
    pub fn map(phys: u64, len: usize) -> Result<Self, MmioError> {
        if len == 0 || phys.checked_add(len as u64).is_none() {
            return Err(MmioError::BadRange);
        }
        Ok(Self { base: seam::map_mmio(phys, len)?, len })
    }

    /// Bytes in the range.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether the range is empty (it never is).
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The part of `len` bytes from `offset`, or `None` if it is not wholly inside.
    pub fn sub(&self, offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        if len == 0 || end > self.len {
            return None;
        }
        // SAFETY: offset < len of the mapping, which is one allocation.
        Some(Self { base: unsafe { self.base.add(offset) }, len })
    }

    fn at<T: Register>(&self, offset: usize) -> Option<NonNull<u8>> {
        let bytes = T::WIDTH.bytes();
        let inside = offset.checked_add(bytes).is_some_and(|end| end <= self.len);
        let addr = self.base.as_ptr() as usize;
        if !inside || !addr.wrapping_add(offset).is_multiple_of(bytes) {
            return None;
        }
        // SAFETY: offset + width lies within the mapping.
        Some(unsafe { self.base.add(offset) })
    }

    /// Reads the register at `offset` bytes; all ones if it is outside or misaligned.
    #[inline]
    pub fn read<T: Register>(&self, offset: usize) -> T {
        match self.at::<T>(offset) {
            // SAFETY: `at` checked bounds and alignment within a mapping that lasts for ever.
            Some(addr) => T::from_bus(unsafe { seam::mmio_read(addr, T::WIDTH) }),
            None => T::from_bus(u64::MAX),
        }
    }

    /// Writes the register at `offset` bytes; does nothing if it is outside or misaligned.
    #[inline]
    pub fn write<T: Register>(&self, offset: usize, value: T) {
        if let Some(addr) = self.at::<T>(offset) {
            // SAFETY: as in `read`.
            unsafe { seam::mmio_write(addr, T::WIDTH, value.to_bus()) }
        }
    }
}

impl fmt::Debug for Mmio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mmio({:p}+{:#x})", self.base, self.len)
    }
}

/// A range of I/O ports.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    base: u16,
    len: u16,
}

impl Ports {
    /// The range of `len` ports from `base`, cut at the end of the port space.
    pub const fn new(base: u16, len: u16) -> Self {
        let room = u16::MAX - base;
        Self { base, len: if len > room { room } else { len } }
    }

    /// Ports in the range.
    pub const fn len(&self) -> u16 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn port<T: Register>(&self, offset: u16) -> Option<u16> {
        let end = usize::from(offset) + T::WIDTH.bytes();
        (end <= usize::from(self.len)).then_some(self.base + offset)
    }

    /// Reads the port at `offset`; all ones if it is outside.
    pub fn read<T: Register>(&self, offset: u16) -> T {
        match self.port::<T>(offset) {
            Some(port) => T::from_bus(u64::from(seam::port_read(port, T::WIDTH))),
            None => T::from_bus(u64::MAX),
        }
    }

    /// Writes the port at `offset`; does nothing if it is outside.
    pub fn write<T: Register>(&self, offset: u16, value: T) {
        if let Some(port) = self.port::<T>(offset) {
            seam::port_write(port, T::WIDTH, value.to_bus() as u32);
        }
    }
}
