//! The image in memory, and the first processor at its entry.
//!
//! Source: Xen `docs/misc/pvh.pandoc`: 32-bit protected mode, paging off, `ebx` at the start information.

use std::fs::File;

use anyhow::{Context, Result, bail};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::options::Options;
use crate::{acpi, memory};

const START_INFO: u64 = 0x1000;
const MEMORY_MAP: u64 = 0x1100;
const COMMAND_LINE: u64 = 0x2000;
const COMMAND_LINE_BYTES: usize = 0x1000;
const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Puts the image and all that it is told into memory. Returns where it begins.
pub fn load(memory: &GuestMemoryMmap, options: &Options) -> Result<u64> {
    let name = options.kernel.display();
    let mut file = File::open(&options.kernel).with_context(|| format!("cannot open {name}"))?;
    let loaded = Elf::load(memory, None, &mut file, Some(GuestAddress(1 << 20)));
    let loaded = loaded.with_context(|| format!("{name} is no image that fits into the memory"))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        bail!("{name} has no PVH entry");
    };
    let line = options.append.as_bytes();
    if line.len() >= COMMAND_LINE_BYTES {
        bail!("the command line is longer than {} bytes", COMMAND_LINE_BYTES - 1);
    }
    memory.write_slice(&[line, &[0]].concat(), GuestAddress(COMMAND_LINE))?;
    memory.write_slice(&acpi::tables(options.cpus), GuestAddress(acpi::BASE))?;
    let map = memory_map(options.memory << 20);
    let info = hvm_start_info {
        magic: MAGIC,
        version: 1,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: acpi::BASE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    let mut parameters = BootParams::new(&info, GuestAddress(START_INFO));
    parameters.set_sections(&map, GuestAddress(MEMORY_MAP));
    PvhBootConfigurator::write_bootparams(&parameters, memory).context("no room for the start information")?;
    Ok(entry.0)
}

fn memory_map(bytes: u64) -> Vec<hvm_memmap_table_entry> {
    const LOW: u64 = 0xa_0000;
    const MIB: u64 = 1 << 20;
    let entry = |addr, size, kind| hvm_memmap_table_entry { addr, size, type_: kind, reserved: 0 };
    let mut map = vec![entry(0, LOW, RAM), entry(acpi::BASE, MIB - acpi::BASE, RESERVED)];
    for (at, bytes) in memory::ranges(bytes) {
        let start = at.max(MIB);
        map.push(entry(start, at + bytes - start, RAM));
    }
    map
}

/// Sets the first processor to the entry.
pub fn enter(vcpu: &VcpuFd, entry: u64) -> Result<()> {
    let flat = |selector, kind| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..kvm_segment::default()
    };
    let mut special = vcpu.get_sregs()?;
    special.cs = flat(0x8, 0xb);
    let data = flat(0x10, 0x3);
    (special.ds, special.es, special.ss) = (data, data, data);
    // A 32-bit task state segment that is busy.
    special.tr = kvm_segment { limit: 0x67, selector: 0x18, type_: 0xb, present: 1, ..kvm_segment::default() };
    // Protection on, paging off.
    special.cr0 = 0x11;
    special.cr4 = 0;
    vcpu.set_sregs(&special)?;
    vcpu.set_regs(&kvm_regs { rip: entry, rbx: START_INFO, rflags: 2, ..kvm_regs::default() })?;
    Ok(())
}
