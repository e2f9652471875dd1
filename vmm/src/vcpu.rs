//! A processor: it runs, and comes back for what user space does.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kvm_ioctls::{VcpuExit, VcpuFd};

use crate::host::Host;
use crate::serial::{self, Port};

/// Where the hypercall page writes.
pub const HYPERCALL: u8 = 0xe8;
/// Where the guest writes to end the machine, as at QEMU's `isa-debug-exit`.
const EXIT: u16 = 0xf4;

/// The hypercall page: `out HYPERCALL, al; ret`.
pub const HYPERCALL_CODE: [u8; 3] = [0xe6, HYPERCALL, 0xc3];

/// A processor and what it needs.
pub struct Processor {
    pub vcpu: VcpuFd,
    pub number: u32,
    pub host: Arc<Host>,
    pub serial: Port,
    pub counts: bool,
}

/// What has to be done once the exit's own data is no longer borrowed.
enum After {
    Nothing,
    Hypercall,
    Exit(u32),
}

impl Processor {
    /// Runs until the machine ends; the process ends with it.
    pub fn run(mut self) -> Result<std::convert::Infallible> {
        loop {
            match self.step()? {
                After::Nothing => {}
                After::Hypercall => self.hypercall()?,
                After::Exit(value) => self.exit(value),
            }
        }
    }

    fn step(&mut self) -> Result<After> {
        let number = self.number;
        let exit = match self.vcpu.run() {
            Ok(exit) => exit,
            Err(error) if matches!(error.errno(), nix::libc::EINTR | nix::libc::EAGAIN) => return Ok(After::Nothing),
            Err(error) => return Err(error).context("KVM cannot run the processor"),
        };
        match exit {
            VcpuExit::IoOut(port, data) => match port {
                port if port == u16::from(HYPERCALL) => return Ok(After::Hypercall),
                EXIT => {
                    let value = data.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte));
                    return Ok(After::Exit(value));
                }
                serial::PORT..=0x3ff => {
                    data.iter().for_each(|byte| self.serial.write((port - serial::PORT) as u8, *byte));
                }
                _ => {}
            },
            VcpuExit::IoIn(port @ serial::PORT..=0x3ff, data) => {
                data.iter_mut().for_each(|byte| *byte = self.serial.read((port - serial::PORT) as u8));
            }
            VcpuExit::IoIn(_, data) | VcpuExit::MmioRead(_, data) => data.fill(0xff),
            VcpuExit::MmioWrite(..) => {}
            VcpuExit::X86Rdmsr(read) => match self.host.with(|model, guest| model.rdmsr(guest, number, read.index)) {
                Ok(value) => (*read.data, *read.error) = (value, 0),
                Err(_) => *read.error = 1,
            },
            VcpuExit::X86Wrmsr(write) => {
                let result = self.host.with(|model, guest| model.wrmsr(guest, number, write.index, write.data));
                *write.error = u8::from(result.is_err());
            }
            VcpuExit::Hlt | VcpuExit::Intr | VcpuExit::IrqWindowOpen => {}
            VcpuExit::Shutdown => bail!("the guest's processor {number} shut down: a fault in a fault in a fault"),
            VcpuExit::SystemEvent(kind, _) => bail!("the guest asks for system event {kind}"),
            VcpuExit::FailEntry(reason, _) => bail!("KVM cannot enter the guest: reason {reason:#x}"),
            VcpuExit::InternalError => bail!("KVM has an internal error with the guest's processor {number}"),
            other => bail!("KVM came back with {other:?}"),
        }
        Ok(After::Nothing)
    }

    fn hypercall(&mut self) -> Result<()> {
        let mut registers = self.vcpu.get_regs().context("no registers")?;
        let (control, input, output) = (registers.rcx, registers.rdx, registers.r8);
        let number = self.number;
        registers.rax = self.host.with(|model, guest| model.hypercall(guest, number, control, input, output));
        self.vcpu.set_regs(&registers).context("no registers")
    }

    fn exit(&self, value: u32) -> ! {
        if self.counts {
            eprintln!("undercroft-vmm: {}", self.host.counts());
        }
        let _ = std::io::stdout().flush();
        // As QEMU's device has it.
        std::process::exit((value << 1 | 1) as i32)
    }
}
