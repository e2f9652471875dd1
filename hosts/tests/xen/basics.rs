//! The driver does what it should.

use super::rig::*;

#[test]
fn a_disk_connects_reads_and_parts() {
    let rig = Rig::plain();
    rig.disk(|task, disk| rig.check_disk(task, disk, 7));
}
