//! [`Array`]: entries of equal size in shared pages, which need not lie side by side. Any context.

use alloc::boxed::Box;

use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::wire::PAGE;

/// Entries in shared pages. Indices are the driver's own.
#[derive(Debug)]
pub(crate) struct Array {
    pages: Box<[Coherent]>,
    /// Bytes of an entry, as a power of two.
    entry: u32,
    /// Entries of a page, as a power of two.
    per_page: u32,
}

impl Array {
    /// `pages` pages of entries of `entry` bytes (a power of two, at most a page).
    pub(crate) fn new(pages: usize, entry: usize) -> Result<Self, DmaError> {
        let pages = (0..pages).map(|_| Coherent::new(PAGE, DmaConstraints::ANY)).collect::<Result<_, _>>()?;
        Ok(Self { pages, entry: entry.ilog2(), per_page: (PAGE / entry).ilog2() })
    }

    #[inline]
    fn place(&self, index: u32) -> (&Coherent, usize) {
        let within = index & ((1 << self.per_page) - 1);
        (&self.pages[(index >> self.per_page) as usize], (within as usize) << self.entry)
    }

    /// Pages.
    pub(crate) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// Entries.
    pub(crate) fn len(&self) -> u32 {
        (self.pages.len() as u32) << self.per_page
    }

    /// The pages' numbers, as the device wants them.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.pages.iter().map(|page| page.addr(0) / PAGE as u64)
    }

    /// Device address of a byte of an entry.
    #[inline]
    pub(crate) fn addr(&self, index: u32, offset: usize) -> u64 {
        let (page, at) = self.place(index);
        page.addr(at + offset)
    }

    /// Copies a value out of an entry.
    #[inline]
    pub(crate) fn read<T: FromBytes>(&self, index: u32, offset: usize) -> T {
        let (page, at) = self.place(index);
        page.read(at + offset)
    }

    /// Copies a value into an entry.
    #[inline]
    pub(crate) fn write<T: IntoBytes + Immutable>(&self, index: u32, offset: usize, value: T) {
        let (page, at) = self.place(index);
        page.write(at + offset, value);
    }

    /// Zeroes everything.
    pub(crate) fn clear(&self) {
        self.pages.iter().for_each(Coherent::clear);
    }
}
