//! Pages that are lent: whose they are when, and that they are freed when the last is back, and not before.

use std::sync::Arc;

use super::*;
use crate::broken::{self, Hazard};
use crate::hosted::Cpus;

const PAGE: usize = 4096;

fn on_one_cpu(f: impl FnOnce(&Arc<Cpus>)) {
    let cpus = Cpus::new(1);
    cpus.run(0, |_| f(&cpus));
    assert_eq!(cpus.ram().live_blocks(), 0, "DMA memory leaked");
}

fn pages(lender: &Lender, count: usize) -> DmaPages {
    DmaPages::new(lender, count, DmaConstraints::ANY).unwrap()
}

#[test]
fn what_is_lent_is_a_buffer_and_out_of_sight() {
    on_one_cpu(|cpus| {
        let mut pages = pages(&Lender::new(1).unwrap(), 8);
        pages.bytes_mut(3).unwrap().fill(3);
        let mut buf = pages.lend(2..4).unwrap();
        assert_eq!((buf.len(), buf.segment().addr), (2 * PAGE, pages.segment(2).addr));
        assert_eq!((&buf[..PAGE], &buf[PAGE..]), (&[0; PAGE][..], &[3; PAGE][..]));
        let seen: Vec<_> = (0..9).map(|page| pages.bytes(page).is_some()).collect();
        assert_eq!(seen, [true, true, false, false, true, true, true, true, false]);
        assert!(pages.bytes_mut(2).is_none() && pages.lend(3..5).is_none(), "a page was lent twice");
        cpus.ram().write(buf.segment().addr, &[7; 16]).unwrap();
        buf[PAGE..].fill(9);
        pages.take_back(buf).unwrap();
        assert_eq!((pages.bytes(2).unwrap()[..16].to_vec(), pages.bytes(3).unwrap()[0]), (vec![7; 16], 9));
    });
}

#[test]
fn runs_that_make_no_sense_are_not_lent_and_only_ones_own_come_back() {
    on_one_cpu(|_| {
        let (lender, other) = (Lender::new(2).unwrap(), Lender::new(1).unwrap());
        let (mut here, mut there) = (pages(&lender, 16), pages(&lender, 16));
        #[expect(clippy::reversed_empty_ranges, reason = "what a caller must not get away with")]
        let ranges = [0..0, 3..3, 5..4, 0..17, 16..17, 0..usize::MAX, usize::MAX..usize::MAX];
        ranges.into_iter().for_each(|range| assert!(here.lend(range.clone()).is_none(), "{range:?}"));
        let foreign = pages(&other, 16).lend(0..1).unwrap();
        let plain = DmaBuf::new(PAGE, DmaConstraints::ANY).unwrap();
        let lent = there.lend(0..16).unwrap();
        let back: Vec<_> = [foreign, plain, lent].into_iter().map(|buf| here.take_back(buf).unwrap_err()).collect();
        assert!((0..16).all(|page| here.bytes(page).is_some() && there.bytes(page).is_none()));
        assert!(back.into_iter().map(|buf| there.take_back(buf)).filter(Result::is_ok).count() == 1);
        let whole = DmaPages::new(&lender, DmaPages::MOST, DmaConstraints::ANY).unwrap().lend(0..DmaPages::MOST);
        assert_eq!(whole.map(|buf| buf.len()), Some(DmaPages::MOST * PAGE));
        assert!(DmaPages::new(&lender, DmaPages::MOST + 1, DmaConstraints::ANY).is_err());
    });
}

/// A-PC-16: a device is not done with pages, and everybody else is gone.
fn owner_goes_first() {
    on_one_cpu(|cpus| {
        let lender = Lender::new(1).unwrap();
        let mut pages = pages(&lender, 16);
        let buf = pages.lend(5..9).unwrap();
        let at = buf.segment().addr;
        drop(pages);
        drop(lender);
        assert!(cpus.ram().write(at, &[1; 4 * PAGE]).is_ok(), "memory was freed under a device");
        assert_eq!(buf[..], [1; 4 * PAGE]);
        drop(buf);
    });
}

#[test]
fn a_pc_16_pages_outlive_their_owner_under_a_device() {
    owner_goes_first();
}

#[test]
#[should_panic(expected = "memory was freed under a device")]
fn a_pc_16_pages_outlive_their_owner_under_a_device_control() {
    broken::with(Hazard::FreedWhileLent, owner_goes_first);
}

#[test]
#[should_panic(expected = "a page was lent twice")]
fn what_is_lent_is_a_buffer_and_out_of_sight_control() {
    broken::with(Hazard::LentTwice, what_is_lent_is_a_buffer_and_out_of_sight);
}

#[test]
fn what_never_came_back_is_not_lent_again_and_goes_with_its_owner() {
    on_one_cpu(|cpus| {
        let lender = Lender::new(1).unwrap();
        let mut pages = pages(&lender, 16);
        drop(pages.lend(0..2));
        assert!(pages.is_lent(0) && pages.lend(1..2).is_none(), "the device may have it still");
        drop(pages);
        assert_eq!(cpus.ram().live_blocks(), 1);
        drop(lender);
    });
}
