//! [`VirtioHal`]: the memory that the `virtio-drivers` crate asks for, from this platform, so that its devices work beside our disks.
//!
//! Source: the contract of `virtio_drivers::Hal`, version 0.13. Buffers that a driver shares are copied through DMA memory: that crate shares any
//! memory of its caller, and a platform promises the device's view of DMA memory only. Task context, or bottom half for giving back.
//!
//! UNSAFETY: implements an unsafe trait whose users deal in raw pointers.

use core::fmt;
use core::ptr::NonNull;

use alloc::vec;
use arrayvec::ArrayVec;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport};
use virtio_drivers::transport::pci::bus::PciRoot;
use virtio_drivers::transport::pci::{PciTransport, VirtioPciError};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

use crate::context::Task;
use crate::dma::{self, DmaBlock, DmaConstraints, DmaLayout};
use crate::pci::{Function, Segment};
use crate::platform::seam;
use crate::sync::{IrqSpinLock, Rank};
use crate::system;

/// How many blocks the devices of that crate may hold at once, rings and shared buffers together.
pub const MAX_BLOCKS: usize = 128;

/// Between the heaps and the console: nothing is called with it held.
const RANK: Rank = Rank::new(54);

/// The blocks in use. Their device addresses are all that the crate gives back.
pub(crate) struct Lent(IrqSpinLock<ArrayVec<Entry, MAX_BLOCKS>>);

struct Entry(DmaBlock);

// SAFETY: an entry is a record of a block that the crate's device owns; it is only ever moved in and out of the table.
unsafe impl Send for Entry {}

impl Lent {
    pub(crate) const fn new() -> Self {
        Self(IrqSpinLock::new(RANK, ArrayVec::new_const()))
    }

    fn allocate(&self, len: usize) -> Option<DmaBlock> {
        let layout = DmaLayout::new(len, DmaConstraints::ANY).ok()?;
        let block = dma::allocate(layout).ok()?;
        if self.0.lock().try_push(Entry(block)).is_err() {
            dma::freeing(&block);
            // SAFETY: just allocated, and nobody knows of it.
            unsafe { seam::dma_free(block) };
            return None;
        }
        Some(block)
    }

    fn take(&self, addr: PhysAddr) -> Option<DmaBlock> {
        let mut entries = self.0.lock();
        let at = entries.iter().position(|entry| entry.0.addr == addr)?;
        Some(entries.swap_remove(at).0)
    }
}

impl fmt::Debug for Lent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lent").finish_non_exhaustive()
    }
}

/// This platform, as `virtio-drivers` sees it.
#[derive(Debug, Clone, Copy)]
pub struct VirtioHal;

// SAFETY: blocks are exclusive, zeroed, page-aligned DMA memory until they are given back; shared buffers are copied into such blocks,
// so the device never sees the caller's memory.
unsafe impl Hal for VirtioHal {
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let block = pages.checked_mul(PAGE_SIZE).and_then(|len| system::with(|system| system.lent.allocate(len)));
        // An address of 0 is that crate's way to say that there is none.
        block.map_or((0, NonNull::dangling()), |block| (block.addr, block.virt))
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, _pages: usize) -> i32 {
        let Some(block) = system::with(|system| system.lent.take(paddr)) else { return -1 };
        dma::freeing(&block);
        // SAFETY: from dma_alloc, and out of the table, so freed once; that the device is done with it is the caller's contract.
        unsafe { seam::dma_free(block) };
        0
    }

    unsafe fn mmio_phys_to_virt(paddr: PhysAddr, size: usize) -> NonNull<u8> {
        match seam::map_mmio(paddr, size) {
            Ok(mapped) => mapped,
            // The host named a place that is no device's, and this function cannot fail: like an empty bus, it reads as all ones.
            Err(_) => NonNull::from(vec![0xff_u8; size.max(1)].leak()).cast(),
        }
    }

    /// # Panics
    /// If there is no memory for the copy, or [`MAX_BLOCKS`] are in use: the crate's contract knows no failure here.
    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let block = system::with(|system| system.lent.allocate(buffer.len()));
        let block = block.expect("no DMA memory left for a buffer that virtio-drivers shares");
        if direction != BufferDirection::DeviceToDriver {
            // SAFETY: the buffer is valid by the caller's contract, the block is at least as long, and fresh.
            unsafe { block.virt.copy_from_nonoverlapping(buffer.cast(), buffer.len()) };
        }
        block.addr
    }

    unsafe fn unshare(paddr: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let Some(block) = system::with(|system| system.lent.take(paddr)) else { return };
        if direction != BufferDirection::DriverToDevice {
            let len = buffer.len().min(block.layout.len);
            // SAFETY: the buffer is valid by the caller's contract and not the block; `len` fits both. A device that still
            // writes makes the bytes arbitrary, nothing else.
            unsafe { buffer.cast::<u8>().copy_from_nonoverlapping(block.virt, len) };
        }
        dma::freeing(&block);
        // SAFETY: from `share`, and out of the table, so freed once; the device has given it back.
        unsafe { seam::dma_free(block) };
    }
}

impl VirtioHal {
    /// A virtio device on PCI, as a transport for that crate's drivers: enabled, without its wired interrupt, since those drivers poll.
    ///
    /// # Errors
    /// That crate's.
    pub fn pci_transport(_cx: &Task, function: &Function) -> Result<PciTransport, VirtioPciError> {
        function.enable();
        function.mask_intx(true);
        let mut root = PciRoot::new(Segment(function.address.segment));
        PciTransport::new::<Self, _>(&mut root, function.address.device_function())
    }

    /// A virtio device in `len` bytes of registers at physical address `phys`, as a transport for that crate's drivers.
    ///
    /// # Errors
    /// That crate's; [`MmioError::MmioRegionTooSmall`] also for a range that cannot be mapped.
    pub fn mmio_transport(_cx: &Task, phys: u64, len: usize) -> Result<MmioTransport<'static>, MmioError> {
        // The register block has to be whole, and a header needs its alignment.
        if len < 0x100 || !phys.is_multiple_of(8) {
            return Err(MmioError::MmioRegionTooSmall);
        }
        let base = seam::map_mmio(phys, len).map_err(|_| MmioError::MmioRegionTooSmall)?;
        // SAFETY: the mapping covers `len` bytes, is aligned as `phys` is, and lasts for ever; device registers are read and
        // written by volatile accesses only, here and there.
        unsafe { MmioTransport::new(base.cast(), len) }
    }
}
