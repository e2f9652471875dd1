//! Xen's interface for a guest with hardware virtualization (PVH, HVM).
//!
//! Source: Xen's public headers (`xen/include/public`), `docs/misc`.

mod page;

pub use page::SharedPage;
