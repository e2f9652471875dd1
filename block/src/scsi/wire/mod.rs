//! SCSI on the wire: types and constants only, nothing that does I/O. Any context.
//!
//! Sources: SPC-5 (primary commands), SBC-4 (block commands); each type names its section. Numbers are big-endian; enumerations are open
//! newtypes, so that what a device invents survives. Parsers are total: whatever bytes a device sends, they return a value or `None`.

mod capacity;
mod cdb;
mod inquiry;
mod luns;
mod mode;
mod sense;
mod vpd;

pub use capacity::{Capacity, ReadCapacity10Data, ReadCapacity16Data};
pub use cdb::{
    Inquiry, ModeSense10, OpCode, ReadCapacity16, ReadWrite10, ReadWrite16, ReportLuns, SynchronizeCache10,
    SynchronizeCache16, TEST_UNIT_READY, Unmap, UnmapParameters, WriteSame16, rw,
};
pub use inquiry::{PeripheralType, Qualifier, StandardInquiry};
pub use luns::LunList;
pub use mode::{CachingPage, ModeData};
pub use sense::{Asc, Sense, SenseKey};
pub use vpd::{BlockLimits, Characteristics, Provisioning, VpdPage, designator, page_body, unit_serial};
