//! What is built of Debian's Linux, from its packages and without installing them: the kernel, its modules, an
//! initramfs. The comparison with Linux and the machine with Xen on it stand on this.

pub mod cpio;
pub mod debian;
pub mod modules;
