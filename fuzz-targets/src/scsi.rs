//! What a SCSI device says: it is as hostile as its host.

use std::hint::black_box;

use undercroft_block::scsi::wire::{
    BlockLimits, Capacity, Characteristics, LunList, ModeData, Provisioning, Sense, StandardInquiry, VpdPage,
    designator, page_body, unit_serial,
};
use undercroft_block::scsi::{Lun, Outcome, Response, Status, judge};

/// Gives the bytes to every parser of an answer, and to who judges sense data.
///
/// # Panics
/// If a part of an answer is not in it.
pub fn scsi_parsers(bytes: &[u8]) {
    if let Some(inquiry) = StandardInquiry::parse(bytes) {
        let (vendor, product) = inquiry.names();
        assert!(vendor.len() <= 8 && product.len() <= 16, "names that are longer than their fields");
    }
    for page in 0..=u8::MAX {
        if let Some(body) = page_body(bytes, VpdPage(page)) {
            assert!(body.len() + 4 <= bytes.len(), "a page that is longer than the answer");
        }
    }
    _ = black_box((BlockLimits::parse(bytes), Characteristics::parse(bytes), Provisioning::parse(bytes)));
    assert!(unit_serial(bytes).is_none_or(|serial| serial.len() <= bytes.len()), "a longer serial number");
    assert!(designator(bytes).is_none_or(|(_, name)| name.len() <= bytes.len()), "a longer designator");
    if let Some(list) = LunList::parse(bytes) {
        assert!(list.luns().count() <= bytes.len() / 8, "more units than were listed");
        for lun in list.luns() {
            let back = Lun::from_bytes(lun.to_bytes()).map(|(lun, _)| lun);
            assert!(lun.number() > Lun::MAX || back == Some(lun), "unit {lun:?} is {back:?} by its bytes");
        }
    }
    for capacity in [Capacity::from_16(bytes), Capacity::from_10(bytes).flatten()].into_iter().flatten() {
        _ = black_box(format!("{capacity:?}"));
    }
    if let Some(mode) = ModeData::parse(bytes) {
        _ = black_box((mode.write_protected(), mode.fua(), mode.caching().map(|page| page.write_cache())));
    }
    _ = black_box(Sense::parse(bytes));
    for status in [Status::CHECK_CONDITION, Status(bytes.first().copied().unwrap_or(0))] {
        let outcome = Outcome { response: Response::Complete, status, sense: bytes, residual: bytes.len() as u32 };
        _ = black_box(judge(&outcome));
    }
}
