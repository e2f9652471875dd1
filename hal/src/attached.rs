//! A value that a crate above attaches to the running system: made at first use, there as long as the system is. Any context may read it;
//! making it allocates.
//!
//! UNSAFETY: an owning pointer that is set once.

use alloc::boxed::Box;
use core::any::{Any, TypeId};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// The type is kept beside the value: asking the value itself is a call.
struct Value {
    id: TypeId,
    value: Box<dyn Any + Send + Sync>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Attached(AtomicPtr<Value>);

impl Attached {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// The value, if there is one of that type.
    #[inline]
    pub(crate) fn get<T: Any>(&self) -> Option<&T> {
        // SAFETY: the pointer is null or to a box that `set` leaked and only `drop` frees; acquire shows it whole. The value is of the type
        // with that id.
        unsafe {
            let Value { id, value } = self.0.load(Ordering::Acquire).as_ref()?;
            (*id == TypeId::of::<T>()).then(|| &*(&raw const **value).cast::<T>())
        }
    }

    /// Makes the value, unless there is one.
    pub(crate) fn set<T: Any + Send + Sync>(&self, make: impl FnOnce() -> T) {
        if !self.0.load(Ordering::Acquire).is_null() {
            return;
        }
        let mine = Box::into_raw(Box::new(Value { id: TypeId::of::<T>(), value: Box::new(make()) }));
        if self.0.compare_exchange(ptr::null_mut(), mine, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: leaked above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(mine) });
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let value = *self.0.get_mut();
        if !value.is_null() {
            // SAFETY: leaked by `set`, and nobody borrows from us any more.
            drop(unsafe { Box::from_raw(value) });
        }
    }
}
