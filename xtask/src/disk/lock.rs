//! Whether another program holds a disk file, by the locks QEMU takes on the images it has open
//! (QEMU `block/file-posix.c`: byte 100 + n is read-locked by who uses permission n, byte 200 + n
//! by who lets nobody else use it).

use std::fs::File;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

const CONSISTENT_READ: i64 = 0;
const WRITE: i64 = 1;
const RESIZE: i64 = 3;
const USED: i64 = 100;
const DENIED: i64 = 200;

/// Says whether QEMU would be refused this file because of somebody else's locks.
pub fn is_held(file: &File, for_writing: bool) -> bool {
    // Like any disk device of QEMU's: nobody else may write or resize meanwhile.
    let mut conflicts = vec![USED + WRITE, USED + RESIZE, DENIED + CONSISTENT_READ];
    if for_writing {
        conflicts.push(DENIED + WRITE);
    }
    conflicts.into_iter().any(|byte| is_locked(file, byte))
}

fn is_locked(file: &File, byte: i64) -> bool {
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    // A file system without such locks has none that could stand in the way.
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != libc::F_UNLCK as i16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(file: &File, byte: i64) {
        let lock = libc::flock {
            l_type: libc::F_RDLCK as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    }

    #[test]
    fn a_writer_elsewhere_stands_in_the_way_and_a_reader_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let (ours, theirs) = (file.reopen().unwrap(), file.reopen().unwrap());
        assert!(!is_held(&ours, true));
        // QEMU with the disk read only: uses CONSISTENT_READ, denies WRITE and RESIZE.
        lock(&theirs, USED + CONSISTENT_READ);
        lock(&theirs, DENIED + WRITE);
        assert!(!is_held(&ours, false));
        assert!(is_held(&ours, true));
        lock(&theirs, USED + WRITE);
        assert!(is_held(&ours, false));
    }
}
