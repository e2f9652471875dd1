//! Patterns of the audit that a ring could have: descriptors that come back out of order (P-01), areas that are counted too small (P-02),
//! a ring that does not begin as zeroes (P-05).

use super::split_tests::{Device, READ, add};
use super::*;
use crate::defect::{Defect, Defects};
use crate::wire::ring::Layout;

/// Returns whichever of what the device has, and sends another at once: the descriptors freed are those that came back, so what the device
/// still has stays as it was.
fn out_of_order(defects: Defects) -> Result<(), &'static str> {
    let (mut ring, mut device) = Device::new(16, 0, false);
    ring.set_defects(defects);
    let mut sent = 0u64;
    let mut send = |ring: &mut _| {
        sent += 1;
        add(ring, &[(sent, 16, false), (sent, 512, true)]).map(|head| (head, sent)).map_err(|_| "no room")
    };
    let mut in_flight = Vec::new();
    for _ in 0..8 {
        in_flight.push(send(&mut ring)?);
    }
    for round in 0..200 {
        let _ = ring.publish();
        device.take();
        for (head, number) in &in_flight {
            let chain = device.chain(*head);
            if chain.len() != 2 || chain.iter().any(|descriptor| descriptor.addr.get() != *number) {
                return Err("a chain that the device has was written over");
            }
        }
        // The last first, the middle, the first.
        let have = device.taken.len();
        let nth = [have - 1, have / 2, 0][round % 3];
        let head = device.taken[nth];
        device.give(nth);
        match ring.pop() {
            Ok(Some(used)) if used.head == head => {}
            _ => return Err("another came back than the device gave"),
        }
        in_flight.retain(|(one, _)| *one != head);
        in_flight.push(send(&mut ring)?);
        ring.check()?;
    }
    Ok(())
}

#[test]
fn p_01_descriptors_come_back_out_of_order() {
    assert_eq!(out_of_order(Defects::default()), Ok(()));
}

#[test]
fn p_01_descriptors_come_back_out_of_order_control() {
    let caught = out_of_order(Defects::one(Defect::FreesInOrder));
    assert_eq!(caught, Err("a chain that the device has was written over"));
}

/// The three areas, as the specification counts them (2.7), lie one after the other, aligned, in the ring's memory.
fn areas(layout: Layout, size: usize, alignment: usize) -> Result<(), &'static str> {
    let (table, available, used) = (16 * size, 6 + 2 * size, 6 + 8 * size);
    let ordered = layout.descriptors + table <= layout.available && layout.available + available <= layout.used;
    let aligned = layout.descriptors.is_multiple_of(16) && layout.available.is_multiple_of(2);
    if !ordered || !aligned || !layout.used.is_multiple_of(alignment) {
        return Err("the areas are not where they may be");
    }
    if layout.used + used > layout.bytes { Err("the device writes beyond the ring's memory") } else { Ok(()) }
}

#[test]
fn p_02_the_areas_are_counted_whole() {
    for size in (0..=15).map(|bits| 1u16 << bits) {
        assert_eq!(areas(Layout::new(size), size.into(), 4), Ok(()), "{size}");
        assert_eq!(areas(Layout::legacy(size), size.into(), 4096), Ok(()), "{size}, legacy");
    }
}

#[test]
fn p_02_the_areas_are_counted_whole_control() {
    // The used ring's flags and index were forgotten.
    let layout = Layout::new(64);
    let short = Layout { bytes: layout.bytes - 4, ..layout };
    assert_eq!(areas(short, 64, 4), Err("the device writes beyond the ring's memory"));
}

/// A ring that was used, and is used again after a reset, by a device that begins at zero.
fn begins_anew(defects: Defects) -> Result<(), RingError> {
    let (mut ring, mut device) = Device::new(16, 0, true);
    ring.set_defects(defects);
    for _ in 0..2 {
        for _ in 0..5 {
            add(&mut ring, &READ).expect("room");
            let _ = ring.publish();
            device.take();
            device.give(0);
            assert!(ring.pop()?.is_some());
        }
        ring.restart();
        device.restart();
        if ring.pop()?.is_some() {
            return Err(RingError::IndexJump(0));
        }
    }
    Ok(())
}

#[test]
fn p_05_a_ring_begins_as_zeroes() {
    assert_eq!(begins_anew(Defects::default()), Ok(()));
}

#[test]
fn p_05_a_ring_begins_as_zeroes_control() {
    assert_eq!(begins_anew(Defects::one(Defect::KeepsMemory)), Err(RingError::IndexJump(5)));
}
