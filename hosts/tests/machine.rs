//! The machine: interrupts of each kind, liveness, time, determinism.

mod mini;

use std::rc::Rc;

use mini::{F_EVENT_IDX, Mini, Registers};
use undercroft_hal::dma::{Coherent, DmaConstraints, DmaError};
use undercroft_hal::{Instant, cpu, irq};
use undercroft_hosts::virtio::{Blk, Fault, FaultScript, Virtio, VirtioMmio, VirtioPci};
use undercroft_hosts::{Config, Disk, Handle, Machine, Schedule};

const SCHEDULES: [Schedule; 3] = [Schedule::Eager, Schedule::Lazy, Schedule::RANDOM];

fn machine(schedule: Schedule) -> (Rc<Machine>, Handle<VirtioPci<Blk>>) {
    let machine = Machine::new(Config { schedule, ..Config::default() });
    let blk = machine.add_virtio_pci(Blk::new(Disk::patterned(1 << 20, 3)));
    (machine, blk)
}

fn read_one(mini: &mut Mini, sector: u64) {
    let queue = &mut mini.queues[0];
    queue.blk(0, 0, sector, queue.page.addr(4096), 512);
    queue.arm(queue.seen_used);
    queue.offer(0);
    mini.notify(0);
}

fn check(mini: &mut Mini, sector: u64) {
    let queue = &mut mini.queues[0];
    assert_eq!(queue.pop(), Some((0, 513)));
    assert_eq!(queue.status(0), 0);
    let got: [u8; 512] = queue.page.read(4096);
    assert_eq!(got, Disk::pattern(3, sector));
}

#[test]
fn msix_wakes_a_halted_guest() {
    for schedule in SCHEDULES {
        let (machine, blk) = machine(schedule);
        machine.run(|task| {
            let mut mini = Mini::pci(task, blk.address());
            let features = mini.negotiate(F_EVENT_IDX);
            assert_eq!(mini.status(), 11);
            assert_eq!(mini.use_msix(task, 1), [0, 1]);
            mini.bring_up_queues(features, 1, 8);
            for sector in 0..20 {
                read_one(&mut mini, sector);
                task.wait_until(|| mini.irq_count(1) == sector as u32 + 1);
                check(&mut mini, sector);
            }
            assert_eq!(irq::unclaimed(task), 0);
        });
        assert_eq!(blk.with(|d| d.breaches()), []);
        assert_eq!(machine.stray_messages(), []);
        assert_eq!(machine.live_dma_blocks(), 0);
    }
}

#[test]
fn a_shared_level_line_is_asked_until_it_is_cleared() {
    for schedule in SCHEDULES {
        let machine = Machine::new(Config { schedule, ..Config::default() });
        // Device numbers 1 and 5 share a line.
        let blks: Vec<_> = (0..5).map(|_| machine.add_virtio_pci(Blk::new(Disk::patterned(64, 3)))).collect();
        assert_eq!(blks[0].line(), blks[4].line());
        machine.run(|task| {
            let mut minis: Vec<_> = [0, 4]
                .into_iter()
                .map(|at: usize| {
                    let mut mini = Mini::pci(task, blks[at].address());
                    mini.bring_up(F_EVENT_IDX, 1, 8);
                    mini.use_line(task, blks[at].line());
                    mini
                })
                .collect();
            for sector in 0..10 {
                minis.iter_mut().for_each(|mini| read_one(mini, sector));
                task.wait_until(|| minis.iter().all(|mini| mini.irq_count(0) == sector as u32 + 1));
                minis.iter_mut().for_each(|mini| check(mini, sector));
            }
        });
        assert!(blks.iter().all(|blk| blk.with(|d| d.breaches()).is_empty()));
    }
}

#[test]
fn a_handler_that_does_not_clear_a_level_line_is_a_storm() {
    let (machine, blk) = machine(Schedule::Eager);
    let said = machine.try_run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        mini.bring_up(F_EVENT_IDX, 1, 8);
        let _deaf = irq::line(task, blk.line(), |_| irq::Handled::Yes).unwrap();
        read_one(&mut mini, 1);
        cpu::relax();
    });
    assert!(said.unwrap_err().contains("interrupt storm"));
}

#[test]
fn mmio_transport_with_a_level_and_an_edge_line() {
    for schedule in SCHEDULES {
        for edge in [false, true] {
            let machine = Machine::new(Config { schedule, ..Config::default() });
            let virtio = Virtio::new(Blk::new(Disk::patterned(64, 3)));
            let device = if edge { VirtioMmio::new_edge(virtio) } else { VirtioMmio::new(virtio) };
            let blk = machine.add_window(device, !edge);
            machine.run(|task| {
                let (base, len) = blk.window();
                let mut mini = Mini::mmio(base, len);
                mini.use_line(task, blk.line());
                mini.bring_up(F_EVENT_IDX, 1, 8);
                for sector in 0..10 {
                    read_one(&mut mini, sector);
                    task.wait_until(|| mini.irq_count(0) == sector as u32 + 1);
                    check(&mut mini, sector);
                }
            });
            assert_eq!(blk.with(|d| d.breaches()), []);
        }
    }
}

/// A kick that is not sent is a hang that the machine finds, and says where.
#[test]
fn a_lost_kick_is_found() {
    for schedule in SCHEDULES {
        let (machine, blk) = machine(schedule);
        let said = machine.try_run(|task| {
            let mut mini = Mini::pci(task, blk.address());
            mini.bring_up(0, 1, 8);
            let queue = &mut mini.queues[0];
            queue.blk(0, 0, 1, queue.page.addr(4096), 512);
            queue.offer(0);
            task.wait_until(|| mini.queues[0].used_idx() == 1);
        });
        let said = said.unwrap_err();
        assert!(said.starts_with("the guest waits for an interrupt that never comes"), "{said}");
        assert!(said.contains("1 published without a notification"), "{said}");
    }
}

#[test]
fn a_lost_interrupt_is_found() {
    let (machine, blk) = machine(Schedule::Lazy);
    blk.with(|d| d.set_faults(FaultScript::none().at(1, Fault::NoInterrupt)));
    let said = machine.try_run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(F_EVENT_IDX);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 8);
        for sector in 0..2 {
            read_one(&mut mini, sector);
            task.wait_until(|| mini.irq_count(1) == sector as u32 + 1);
        }
    });
    assert!(said.unwrap_err().starts_with("the guest waits for an interrupt that never comes"));
}

#[test]
fn time_goes_on_only_where_the_guest_waits() {
    let (machine, blk) = machine(Schedule::Eager);
    blk.with(|d| d.set_faults(FaultScript::none().at(0, Fault::Delay(5_000_000))));
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(F_EVENT_IDX);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 8);
        let before = Instant::now();
        read_one(&mut mini, 9);
        assert_eq!(Instant::now(), before);
        assert_eq!(mini.queues[0].used_idx(), 0);
        task.wait_until(|| mini.queues[0].used_idx() == 1);
        assert_eq!(before.elapsed().as_nanos(), 5_000_000);
        check(&mut mini, 9);
        let before = Instant::now();
        cpu::relax();
        assert!(Instant::now() > before);
    });
}

#[test]
fn the_alarm_goes_off_on_time() {
    use std::cell::Cell;
    thread_local! { static FIRED: Cell<Option<Instant>> = const { Cell::new(None) }; }
    for schedule in SCHEDULES {
        let machine = Machine::new(Config { schedule, ..Config::default() });
        FIRED.set(None);
        machine.run(|task| {
            irq::set_alarm_handler(task, |_| FIRED.set(Some(Instant::now())));
            irq::set_alarm(Some(Instant::from_nanos(7_000)));
            task.wait_until(|| FIRED.get().is_some());
            assert_eq!(FIRED.get(), Some(Instant::from_nanos(7_000)));
        });
    }
}

/// The same seed gives the same run, another seed another one.
#[test]
fn a_seed_replays() {
    let run = |seed| {
        let machine = Machine::new(Config { schedule: Schedule::RANDOM, seed, ..Config::default() });
        let blk = machine.add_virtio_pci(Blk::new(Disk::patterned(64, 3)));
        machine.run(|task| {
            let mut mini = Mini::pci(task, blk.address());
            let features = mini.negotiate(F_EVENT_IDX);
            mini.status();
            mini.use_msix(task, 1);
            mini.bring_up_queues(features, 1, 8);
            (0..40)
                .map(|sector| {
                    read_one(&mut mini, sector);
                    let mut looks = 0;
                    while mini.queues[0].pop().is_none() {
                        looks += 1;
                        cpu::without_interrupts(|| ());
                    }
                    looks
                })
                .collect::<Vec<u32>>()
        })
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn another_cpu_takes_interrupts_while_the_first_one_halts() {
    let machine = Machine::new(Config { cpus: 2, ..Config::default() });
    machine.run(|task| {
        assert_eq!(cpu::count(), 2);
        let work = undercroft_hal::work::BottomHalfWork::new(1, |_| {
            assert_eq!(cpu::current(), 1);
            undercroft_hal::work::Turn::Done
        });
        let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let seen = std::sync::Arc::clone(&done);
        let back = undercroft_hal::work::BottomHalfWork::new(1, move |_| {
            seen.store(cpu::current() == 1, std::sync::atomic::Ordering::Relaxed);
            undercroft_hal::work::Turn::Done
        });
        let home = undercroft_hal::work::BottomHalfWork::new(0, |_| undercroft_hal::work::Turn::Done);
        work.schedule();
        back.schedule();
        home.schedule();
        // The first CPU's own kick ends its halts; the other one runs meanwhile.
        irq::set_alarm(Some(Instant::from_nanos(1_000)));
        task.wait_until(|| done.load(std::sync::atomic::Ordering::Relaxed));
        assert_eq!(cpu::current(), 0);
    });
}

#[test]
fn dma_can_fail_and_recover() {
    let machine = Machine::new(Config::default());
    machine.run(|_| {
        machine.fail_dma_after(1);
        let first = Coherent::new(16, DmaConstraints::ANY);
        assert!(first.is_ok());
        assert_eq!(Coherent::new(16, DmaConstraints::ANY).unwrap_err(), DmaError::NoMemory);
        assert!(Coherent::new(16, DmaConstraints::ANY).is_ok());
    });
    assert_eq!(machine.live_dma_blocks(), 0);
}

#[test]
fn an_unplugged_device_answers_all_ones() {
    let (machine, blk) = machine(Schedule::Eager);
    machine.run(|task| {
        let mini = Mini::pci(task, blk.address());
        mini.reset();
        machine.unplug(&blk);
        assert_eq!(mini.status(), 0xff);
        mini.set_status(1);
        assert!(undercroft_hal::pci::devices(task).is_empty());
    });
}

/// A masked vector is noted as pending, and comes when it is unmasked: its entry, or all of them.
#[test]
fn msix_masks() {
    let (machine, blk) = machine(Schedule::Eager);
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        let features = mini.negotiate(F_EVENT_IDX);
        mini.status();
        mini.use_msix(task, 1);
        mini.bring_up_queues(features, 1, 8);
        let Registers::Pci { function, .. } = &mini.registers else { return };
        let function = *function;
        let capability = function.capabilities().find(|c| c.id == 0x11).map(|c| u16::from(c.offset)).unwrap();
        let place = function.read(capability + 8);
        let (table, pending) = (function.map_bar(1).unwrap(), (place & !7) as usize);
        assert_eq!(place & 7, 1);
        for all in [false, true] {
            let mask = |masked: u32| match all {
                false => table.write(16 + 12, masked),
                true => function.write(capability, function.read(capability) & !(1 << 30) | masked << 30),
            };
            let before = mini.irq_count(1);
            mask(1);
            read_one(&mut mini, 5);
            check(&mut mini, 5);
            assert_eq!((mini.irq_count(1), table.read::<u32>(pending)), (before, 2));
            mask(0);
            assert_eq!((mini.irq_count(1), table.read::<u32>(pending)), (before + 1, 0));
        }
    });
    assert_eq!(blk.with(|d| d.breaches()), []);
}

/// The command register keeps the interrupt pin quiet; the status register tells all the same.
#[test]
fn intx_can_be_disabled() {
    let (machine, blk) = machine(Schedule::Eager);
    machine.run(|task| {
        let mut mini = Mini::pci(task, blk.address());
        mini.bring_up(F_EVENT_IDX, 1, 8);
        mini.use_line(task, blk.line());
        let Registers::Pci { function, .. } = &mini.registers else { return };
        let function = *function;
        function.mask_intx(true);
        read_one(&mut mini, 5);
        check(&mut mini, 5);
        assert_eq!(mini.irq_count(0), 0);
        function.mask_intx(false);
        assert_eq!(mini.irq_count(0), 1);
    });
}
