//! The machine put together.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result, bail};
use kvm_bindings::{KVM_CAP_X86_USER_SPACE_MSR, Msrs, kvm_enable_cap, kvm_msi, kvm_msr_entry, kvm_pit_config};
use kvm_ioctls::{Cap, Kvm, MsrExitReason, MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VcpuFd, VmFd};
use undercroft_hosts::hyperv::{Controller, Hyperv, Knobs, Settings};
use undercroft_hosts::scsi::Target;

use crate::clock::{self, Clock};
use crate::host::{Host, Raise};
use crate::memory::{self, Ram};
use crate::options::Options;
use crate::serial::Port;
use crate::vcpu::{HYPERCALL_CODE, Processor};
use crate::{boot, control, cpuid, disks};

/// Where KVM may have a page of its own.
const TSS: usize = 0xfffb_d000;
/// The synthetic registers.
const FIRST_REGISTER: u32 = 0x4000_0000;
const REGISTERS: u32 = 0x200;
const TIME_STAMP_COUNTER: u32 = 0x10;

fn open() -> Result<Kvm> {
    let kvm = Kvm::new().map_err(|error| {
        let error = io::Error::from(error);
        let why = match error.kind() {
            io::ErrorKind::NotFound => {
                "there is no /dev/kvm: this machine, or the machine that it runs in, has no virtualisation".into()
            }
            io::ErrorKind::PermissionDenied => "/dev/kvm is not for this user: join the group that owns it".to_owned(),
            _ => format!("/dev/kvm cannot be used: {error}"),
        };
        anyhow::Error::msg(why)
    })?;
    let needed =
        [(Cap::Irqchip, "interrupt controllers"), (Cap::UserMemory, "memory"), (Cap::SignalMsi, "interrupt messages")];
    if let Some((_, what)) = needed.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        bail!("this KVM has no {what}");
    }
    if kvm.check_extension_raw(u64::from(KVM_CAP_X86_USER_SPACE_MSR)) == 0 {
        bail!("this KVM does not hand registers to user space (Linux 5.10 does)");
    }
    Ok(kvm)
}

/// Sends the synthetic registers to user space, whatever KVM itself would make of them.
fn take_registers(vm: &VmFd) -> Result<()> {
    let reasons = MsrExitReason::Filter | MsrExitReason::Unknown;
    let mut cap = kvm_enable_cap { cap: KVM_CAP_X86_USER_SPACE_MSR, ..kvm_enable_cap::default() };
    cap.args[0] = u64::from(reasons.bits());
    vm.enable_cap(&cap).context("KVM does not hand registers to user space")?;
    let none = [0; (REGISTERS / 8) as usize];
    let range = MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base: FIRST_REGISTER,
        msr_count: REGISTERS,
        bitmap: &none,
    };
    vm.set_msr_filter(MsrFilterDefaultAction::ALLOW, &[range]).context("KVM does not filter registers")
}

fn stamp(vcpu: &VcpuFd) -> Option<u64> {
    let entry = kvm_msr_entry { index: TIME_STAMP_COUNTER, ..kvm_msr_entry::default() };
    let mut registers = Msrs::from_entries(&[entry]).ok()?;
    (vcpu.get_msrs(&mut registers).ok()? == 1).then(|| registers.as_slice()[0].data)
}

/// Interrupts as messages to the processors' local APICs.
fn by_message(vm: VmFd) -> Raise {
    Box::new(move |interrupt| {
        let address_lo = 0xfee0_0000 | interrupt.vp << 12;
        let message = kvm_msi { address_lo, data: u32::from(interrupt.vector), ..kvm_msi::default() };
        // An APIC that is off takes none; that is the guest's matter.
        let _ = vm.signal_msi(message);
    })
}

/// Runs the machine; the process ends with it, with the guest's own word.
///
/// # Errors
/// What cannot be had, or how the guest ended badly.
pub fn run(options: &Options) -> Result<Infallible> {
    let kvm = open()?;
    let (mut target, mut ide) = (Target::new(), Vec::new());
    for (index, disk) in options.disks.iter().enumerate() {
        let unit = disks::open(disk)?;
        match disk.ide {
            Some((channel @ 0..=1, number @ 0..=1)) => {
                ide.push(Controller::ide(channel, number, Target::new().with(0, unit)))
            }
            Some(_) => bail!("{}: an IDE controller has channels 0 and 1 with disks 0 and 1", disk.file.display()),
            None => target = target.with(disk.lun.unwrap_or_else(|| disks::number(index)), unit),
        }
    }
    let vm = kvm.create_vm().context("KVM makes no machine")?;
    let memory = memory::make(&vm, options.memory << 20)?;
    vm.set_tss_address(TSS).context("KVM has no room for itself")?;
    vm.create_irq_chip().context("KVM makes no interrupt controllers")?;
    vm.create_pit2(kvm_pit_config::default()).context("KVM makes no timer")?;
    take_registers(&vm)?;
    let entry = boot::load(&memory, options)?;

    let vcpus: Vec<VcpuFd> = (0..options.cpus)
        .map(|number| vm.create_vcpu(u64::from(number)).with_context(|| format!("KVM makes no processor {number}")))
        .collect::<Result<_>>()?;
    let clock = Clock::start();
    let kilohertz = vcpus[0].get_tsc_khz().unwrap_or(0);
    let tsc = stamp(&vcpus[0]).and_then(|stamp| clock::page(kilohertz, stamp, clock.now()));
    let mut settings =
        Settings { vps: options.cpus, hypercall_code: HYPERCALL_CODE.to_vec(), tsc, ..Settings::default() };
    if kilohertz > 0 {
        settings.tell_frequencies(u64::from(kilohertz) * 1000, 1_000_000_000);
    }
    let mut model = Hyperv::new(settings);
    model.knobs = Knobs { version: options.vmbus, sub_channels: options.sub_channels, ..Knobs::default() };
    model.add_controller(Controller::scsi(1, target));
    ide.into_iter().for_each(|disk| _ = model.add_controller(disk));
    for (number, vcpu) in (0..).zip(&vcpus) {
        vcpu.set_cpuid2(&cpuid::leaves(&kvm, &model, number)?).context("KVM does not take the CPUID leaves")?;
    }
    boot::enter(&vcpus[0], entry)?;

    let serial = Port::new(&vm)?;
    let host = Arc::new(Host::new(model, Ram { memory, clock }, by_message(vm)));
    if let Some(socket) = &options.control {
        control::listen(socket, &host, &Arc::new(Mutex::new(options.disks.len())))?;
    }
    serial.listen();
    let served = Arc::clone(&host);
    thread::spawn(move || served.serve());
    let mut all = (0..).zip(vcpus).map(|(number, vcpu)| Processor {
        vcpu,
        number,
        host: Arc::clone(&host),
        serial: serial.clone(),
        counts: options.counts,
    });
    let first = all.next().context("no processor")?;
    for other in all.collect::<Vec<_>>() {
        thread::spawn(move || {
            let Err(error) = other.run();
            eprintln!("undercroft-vmm: {error:#}");
            std::process::exit(1);
        });
    }
    first.run()
}
