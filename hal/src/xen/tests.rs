//! The interface against a Xen that is played here: grants that are in use, events at every step of the interrupt handler.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use super::wire::{entry, memory, shared};
use super::*;
use crate::broken::{self, Hazard};
use crate::context::Task;
use crate::hosted::Cpus;
use crate::hosted::frames::page;
use crate::inject::interrupted_at;
use crate::work::Turn;

/// A Xen with a grant table of so many frames.
struct Played {
    pages: Mutex<BTreeMap<u64, SharedPage>>,
    table: Mutex<Vec<u64>>,
    info: AtomicU64,
    next_frame: AtomicU64,
    next_port: AtomicU32,
    most: u32,
}

impl Played {
    fn new(most: u32) -> Arc<Self> {
        Arc::new(Self {
            pages: Mutex::default(),
            table: Mutex::default(),
            info: AtomicU64::new(0),
            next_frame: AtomicU64::new(1000),
            next_port: AtomicU32::new(64),
            most,
        })
    }

    fn info(&self) -> SharedPage {
        self.map_page(self.info.load(Ordering::SeqCst)).expect("it was mapped")
    }

    /// Changes the flags of a grant as the hypervisor does when another domain maps and unmaps.
    fn flag(&self, reference: u32, flag: u32, set: bool) {
        let frame = self.table.lock().unwrap()[(reference / 512) as usize];
        let page = self.map_page(frame).expect("it was mapped");
        let word = page.word((reference % 512) as usize * entry::BYTES);
        if set {
            word.fetch_or(flag, Ordering::SeqCst)
        } else {
            word.fetch_and(!flag, Ordering::SeqCst)
        };
    }

    /// Sets an event's bits. Returns whether that interrupts the processor.
    fn send(&self, port: u32) -> bool {
        let info = self.info();
        let set = |offset: usize, bit: u32| {
            let word = info.word(offset + bit as usize / 32 * 4);
            word.fetch_or(1 << (bit % 32), Ordering::SeqCst) & 1 << (bit % 32) != 0
        };
        !set(shared::PENDING, port)
            && !set(shared::PENDING_WORDS, port / 64)
            && info.word(shared::UPCALL_PENDING).fetch_or(1, Ordering::SeqCst) & 0xFF == 0
    }
}

impl Hypervisor for Played {
    fn cpuid(&self, leaf: u32) -> Option<[u32; 4]> {
        Some([if leaf == 0 { 5 } else { 0x4_0011 }, 0, 0, 0])
    }

    fn call(&self, number: u32, command: u32, argument: &mut [u8]) -> i64 {
        let number_at = |at: usize| u64::from_le_bytes(argument[at..at + 8].try_into().unwrap());
        match (number, command) {
            (wire::call::MEMORY, memory::ADD_TO_PHYSMAP) => {
                let (index, frame) = (number_at(8) as u32, number_at(16));
                self.pages.lock().unwrap().insert(frame, page());
                match argument[4] {
                    0 => self.info.store(frame, Ordering::SeqCst),
                    _ if index < self.most => self.table.lock().unwrap().push(frame),
                    _ => return -22,
                }
            }
            (wire::call::GRANT_TABLE, wire::grant::QUERY_SIZE) => {
                argument[8..12].copy_from_slice(&self.most.to_le_bytes())
            }
            (wire::call::EVENT_CHANNEL, wire::event::ALLOCATE_UNBOUND) => {
                let port = self.next_port.fetch_add(1, Ordering::SeqCst);
                argument[4..8].copy_from_slice(&port.to_le_bytes());
            }
            _ => {}
        }
        0
    }

    fn vcpu_call(&self, _: u32, _: u32, _: &mut [u8]) -> i64 {
        0
    }

    fn spare_frame(&self) -> Option<u64> {
        Some(self.next_frame.fetch_add(1, Ordering::SeqCst))
    }

    fn map_page(&self, frame: u64) -> Option<SharedPage> {
        self.pages.lock().unwrap().get(&frame).map(SharedPage::again)
    }
}

fn run(most: u32, f: impl FnOnce(&Task, &Arc<Played>, &Domain)) {
    Cpus::new(1).run(0, |task| {
        let played = Played::new(most);
        let domain = Domain::start(task, Arc::clone(&played) as Arc<dyn Hypervisor>).expect("starts");
        f(task, &played, &domain);
    });
}

const OTHER: DomainId = DomainId(0);

fn all(domain: &Domain) -> Vec<Grant> {
    core::iter::from_fn(|| domain.grant(OTHER, 7, Access::Write).ok()).collect()
}

/// A-XEN-01, A-XBLK-04: what the other domain uses is given to nobody else, and can be taken back once that has let go.
fn revoked_while_it_is_used() {
    for flag in [1 << 3, 1 << 4] {
        run(1, |_, played, domain| {
            let grant = domain.grant(OTHER, 5, Access::Write).expect("there are many");
            let reference = grant.reference();
            played.flag(reference, flag, true);
            let kept = domain.revoke(grant).err();
            let others = all(domain);
            assert!(others.iter().all(|other| other.reference() != reference), "a grant in use was given out again");
            let (kept, InUse) = kept.expect("it is in use");
            assert_eq!(domain.counts().revoked, 0);
            played.flag(reference, flag, false);
            assert_eq!(domain.revoke(kept), Ok(()));
            let next = domain.grant(OTHER, 5, Access::Write).map(|grant| grant.reference());
            assert_eq!(next, Ok(reference), "it is free now");
        });
    }
}

#[test]
fn a_xen_01_a_xblk_04_x11_a_grant_in_use_is_kept() {
    revoked_while_it_is_used();
}

#[test]
#[should_panic(expected = "a grant in use was given out again")]
fn a_xen_01_a_xblk_04_x11_a_grant_in_use_is_kept_control() {
    broken::with(Hazard::RevokedInUse, revoked_while_it_is_used);
}

/// A-XEN-01, A-XBLK-03: the table grows when it is told to, as far as Xen lets it; what the tool stack keeps is never given out.
#[test]
fn a_xen_01_a_xblk_03_grants_run_out_and_the_table_grows() {
    run(2, |task, _, domain| {
        let mut grants = all(domain);
        assert_eq!(grants.len(), 512 - 8);
        assert_eq!(domain.add_grants(task), Ok(()));
        grants.extend(all(domain));
        assert_eq!(grants.len(), 1024 - 8);
        assert!(domain.add_grants(task).is_err());
        let mut numbers: Vec<u32> = grants.iter().map(Grant::reference).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(8..1024), "each once, and none of the tool stack's");
        assert!(grants.into_iter().all(|grant| domain.revoke(grant).is_ok()));
        assert_eq!((domain.counts().granted, domain.counts().revoked), (1016, 1016));
    });
}

/// A-PVS-02 for event channels: one that comes at any step of the interrupt handler runs its handler, at once or by another interrupt.
fn events_in_the_middle_of_the_handler() {
    for (first, second) in [(0, 1), (1, 0), (0, 0)] {
        let mut struck = 0;
        for k in 0..40 {
            run(1, |task, played, domain| {
                let counts: [Arc<AtomicU32>; 2] = Default::default();
                let channels: Vec<EventChannel> = counts
                    .iter()
                    .map(|count| {
                        let count = Arc::clone(count);
                        let handler = move |_: &_, _: &_| {
                            count.fetch_add(1, Ordering::SeqCst);
                            Turn::Done
                        };
                        EventChannel::open(task, domain, OTHER, 0, handler).expect("opens")
                    })
                    .collect();
                task.run_pending();
                let before = counts[second].load(Ordering::SeqCst);
                let (other, port) = (Arc::clone(played), channels[second].port());
                let again = Rc::new(core::cell::Cell::new(false));
                let noted = Rc::clone(&again);
                assert!(played.send(channels[first].port()), "nothing was pending");
                let strikes = interrupted_at(k, move || noted.set(other.send(port)), || _ = domain.inner.interrupt(0));
                struck += u32::from(strikes);
                if strikes {
                    if again.get() {
                        let _ = domain.inner.interrupt(0);
                    }
                    task.run_pending();
                    let ran = counts[second].load(Ordering::SeqCst) - before;
                    let pending = played.info().word(shared::PENDING + port as usize / 32 * 4).load(Ordering::SeqCst);
                    assert!(ran > 0 && pending & 1 << (port % 32) == 0, "an event at step {k} was lost");
                }
            });
        }
        assert!(struck > 4, "{struck} events struck");
    }
}

#[test]
fn a_pvs_02_events_in_the_middle_of_the_interrupt_handler() {
    events_in_the_middle_of_the_handler();
}

#[test]
#[should_panic(expected = "was lost")]
fn a_pvs_02_events_in_the_middle_of_the_interrupt_handler_control() {
    broken::with(Hazard::UpcallClearedLate, events_in_the_middle_of_the_handler);
}
