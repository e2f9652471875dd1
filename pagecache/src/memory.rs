//! Tables that are made once, and whose making can fail. Bottom half and task.

use alloc::boxed::Box;
use alloc::vec::Vec;

use undercroft_block::Error;

/// `len` values.
///
/// # Errors
/// [`Error::NoMemory`].
pub(crate) fn filled<T>(len: usize, make: impl FnMut(usize) -> T) -> Result<Box<[T]>, Error> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    values.extend((0..len).map(make));
    Ok(values.into_boxed_slice())
}
