//! The general heap: no lock, for one task's CPU.
//!
//! What lies in it stays in task context: a handle needs the task's token, neither it nor its boxes can be sent or shared, and a box
//! carries its heap in its type, so a bottom half or another CPU cannot come to free one (A-GEN-02). What the types cannot refuse, a box
//! that reaches a bottom half by way of a thread local, is trapped. Memory comes from the program's allocator in chunks, and goes back
//! there.
//!
//! UNSAFETY: calls talc, and makes references to what it put into talc's blocks.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::RefCell;
use core::fmt;
use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ops::{Deref, DerefMut};
use core::panic::Location;
use core::ptr::NonNull;

use talc::base::Talc;
use talc::source::GlobalAllocSource;

use super::sites::{self, Mark};
use super::{inject, trap};
use crate::context::Task;

/// Bytes that the heap grows by.
const CHUNK: usize = 64 << 10;

/// The program's allocator.
#[derive(Debug)]
struct Program;

// SAFETY: passes everything on to an allocator.
unsafe impl GlobalAlloc for Program {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: by the caller.
        unsafe { alloc::alloc::alloc(layout) }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: by the caller.
        unsafe { alloc::alloc::dealloc(block, layout) }
    }
}

/// There is no memory for this value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct NoMemory<T>(pub T);

impl<T> fmt::Debug for NoMemory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoMemory").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for NoMemory<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no memory left in the general heap")
    }
}

/// The heap. Boxes borrow it, so it lasts until they are gone.
pub struct General {
    // Never borrowed while other code runs.
    inner: RefCell<Talc<GlobalAllocSource<Program>, talc::DefaultBinning>>,
    _here: PhantomData<*mut ()>,
}

impl General {
    /// An empty heap for the calling task.
    pub const fn new(_cx: &Task) -> Self {
        let inner = Talc::new(GlobalAllocSource::with_block_size(Program, CHUNK));
        Self { inner: RefCell::new(inner), _here: PhantomData }
    }

    /// Puts `value` into the heap.
    ///
    /// # Errors
    /// The value, if there is no memory for it.
    #[track_caller]
    pub fn try_box<T>(&self, _cx: &Task, value: T) -> Result<GeneralBox<'_, T>, NoMemory<T>> {
        let layout = Layout::new::<T>();
        let block = match layout.size() {
            0 => Some(NonNull::dangling()),
            _ if inject::strikes() => None,
            // SAFETY: the size is not zero.
            _ => unsafe { self.inner.borrow_mut().allocate(layout) }.map(NonNull::cast),
        };
        let Some(at) = block else { return Err(NoMemory(value)) };
        // SAFETY: the block is long enough, aligned, and ours; nothing is read or written where the size is zero.
        unsafe { at.write(value) };
        let mark = sites::allocated(Location::caller(), layout.size());
        Ok(GeneralBox { at, heap: self, mark, _owns: PhantomData })
    }

    /// Returns a block.
    ///
    /// # Safety
    /// `at` holds a block of this heap for a `T`, whose value is gone, and which nothing uses any more.
    unsafe fn free<T>(&self, at: NonNull<T>, mark: Mark) {
        let layout = Layout::new::<T>();
        sites::freed(mark, layout.size());
        if layout.size() > 0 {
            // SAFETY: by the caller, `try_box` allocated it with this layout.
            unsafe { self.inner.borrow_mut().deallocate(at.cast().as_ptr(), layout) };
        }
    }
}

impl fmt::Debug for General {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("General").finish_non_exhaustive()
    }
}

/// A value in a general heap. Dropping it frees it; like its heap it stays with its task.
pub struct GeneralBox<'heap, T> {
    at: NonNull<T>,
    heap: &'heap General,
    mark: Mark,
    _owns: PhantomData<T>,
}

impl<T> GeneralBox<'_, T> {
    /// Takes the value out and frees its block.
    pub fn into_inner(self, _cx: &Task) -> T {
        let this = ManuallyDrop::new(self);
        // SAFETY: the value is moved out once: `this` is never dropped.
        let value = unsafe { this.at.read() };
        // SAFETY: our block, whose value is gone, and nobody has it any more.
        unsafe { this.heap.free(this.at, this.mark) };
        value
    }
}

impl<T> Deref for GeneralBox<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: holds a value until dropped, and nobody else has it.
        unsafe { self.at.as_ref() }
    }
}

impl<T> DerefMut for GeneralBox<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and exclusively borrowed.
        unsafe { self.at.as_mut() }
    }
}

impl<T> Drop for GeneralBox<'_, T> {
    fn drop(&mut self) {
        trap::check_task("a free in the general heap");
        // SAFETY: the value is ours, and dropped once.
        unsafe { self.at.drop_in_place() };
        // SAFETY: our block, whose value is gone, and nobody has it any more.
        unsafe { self.heap.free(self.at, self.mark) };
    }
}

impl<T: fmt::Debug> fmt::Debug for GeneralBox<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
