//! From the first Rust instruction to the program's main.

use core::arch::asm;

use super::machine::{self, Handover};
use super::power::{self, Exit};
use super::{
    apic, backed, clock, console, copy, descriptors, firmware, interrupts, ioapic, layout, memory, paging, pci, percpu,
    processors, registers, stacks, stop, vectors, xen,
};
use crate::context::Task;
use crate::dispatch;
use crate::firmware::acpi::{self, Tables};
use crate::firmware::memory_map::{MemoryMap, Range};
use crate::firmware::pvh::{self, StartInfo};

/// RAM below which the image does not start: its own size, page tables, stacks, and heap and DMA memory for a few disks.
const LEAST_MEMORY: u64 = 24 << 20;
/// Entries of the memory map that are looked at.
const MAX_MEMMAP: u32 = 512;

unsafe extern "Rust" {
    /// Defined by `x86_64_main!`.
    safe fn undercroft_main(task: &Task) -> Exit;
}

/// Continues from the entry code, on the boot stack, with the temporary page tables.
pub(super) extern "C" fn start(start_info: u64) -> ! {
    percpu::adopt(0);
    copy::init();
    xen::init();
    console::init();
    // SAFETY: the boot processor, alone, interrupts off; no fault stacks yet.
    unsafe { vectors::fill(false) };
    vectors::load();

    let info = read_start_info(start_info);
    // SAFETY: nothing has been mapped or written yet; the copies made here are what is used later.
    let (ram, modules) = unsafe { memory_map(&info) };
    let mut free = ram.clone();
    let [image, .., image_end] = layout::image();
    free.remove(Range { start: image, end: image_end });
    for module in modules.iter() {
        free.remove(module);
    }
    let low_page = low_page(&free);
    // The first MiB is left alone otherwise: firmware's data.
    free.remove(Range { start: 0, end: 1 << 20 });
    if free.bytes() < LEAST_MEMORY {
        let needed = (LEAST_MEMORY >> 20) + (image_end >> 20) + 1;
        let usable = ram.bytes() >> 20;
        stop::fatal(format_args!("too little memory: {usable} MiB usable, the image needs {needed} MiB"));
    }
    memory::init(&ram, &free);
    // SAFETY: as above.
    let command_line = unsafe { firmware::early(info.command_line, machine::COMMAND_LINE_BYTES) };
    machine::set_command_line(command_line.unwrap_or(&[]));
    if paging::init(&free).is_err() {
        stop::fatal(format_args!("too little memory for the page tables"));
    }
    memory::ready();
    console::connect();
    backed::init();

    let Ok(set) = stacks::make_set(0) else { no_memory() };
    percpu::set_bottom_half_stack(0, set.bottom_half);
    let mut handed = Handed { root_pointer: info.rsdp, low_page, fault_stacks: set.faults };
    // SAFETY: the stack is mapped and nobody's; nothing on the boot stack is referred to any more but `handed`: that
    // stack lies in the image and is used no more, and `on_own_stack` takes a copy first of all.
    unsafe {
        asm!(
            "mov rsp, {top}",
            "xor ebp, ebp",
            "call {next}",
            "ud2",
            top = in(reg) set.task,
            next = sym on_own_stack,
            in("rdi") &raw mut handed,
            options(noreturn)
        )
    }
}

/// What goes from the boot stack to the processor's own.
#[derive(Clone, Copy)]
struct Handed {
    root_pointer: u64,
    /// A free page frame below 1 MiB, where other processors can begin.
    low_page: Option<u64>,
    fault_stacks: [u64; descriptors::FAULT_STACKS],
}

/// Continues on the boot processor's own stack, with the final page tables.
extern "C" fn on_own_stack(handed: &Handed) -> ! {
    let Handed { root_pointer, low_page, fault_stacks } = *handed;
    // SAFETY: processor 0 is this one, and the stacks are new. The segments name them before the vectors do.
    unsafe {
        descriptors::load(0, fault_stacks);
        vectors::fill(true);
    }
    registers::enable_machine_checks();

    let root_pointer = if root_pointer == 0 { acpi::find_root_pointer(&firmware::Window) } else { Some(root_pointer) };
    let tables = root_pointer.map(|address| Tables::read(&firmware::Window, address));
    if let Some(Err(error)) = &tables {
        console::print(format_args!("undercroft: {error}; going on without\n"));
    }
    let tables = tables.and_then(Result::ok);

    let tables = tables.as_ref();
    if let Some(tables) = tables {
        power::init(tables);
    }
    apic::silence_8259();
    let madt = tables.and_then(|tables| tables.madt.as_ref());
    let local = madt.map_or(0xFEE0_0000, |madt| madt.local_apic);
    if apic::init(local).is_err() {
        stop::fatal(format_args!("this machine has no local APIC"));
    }
    percpu::set_apic_id(apic::id());
    ioapic::init(madt);
    pci::init(tables);
    if clock::init(tables).is_err() {
        stop::fatal(format_args!("this machine has no clock that the image knows"));
    }
    machine::set(Handover { tables });
    processors::start_all(madt, low_page);

    interrupts::connect_console();
    registers::interrupts_enable();
    // SAFETY: the boot processor, in no interrupt, once, with interrupts on.
    let exit = unsafe { dispatch::enter_task(undercroft_main) };
    power::off(exit)
}

fn no_memory() -> ! {
    stop::fatal(format_args!("too little memory for the stacks"))
}

/// A page frame where other processors can begin: above the BIOS data area and what loaders use, below the BIOS.
fn low_page(free: &MemoryMap) -> Option<u64> {
    const FIRST: u64 = 0x8000;
    const END: u64 = 0x9_F000;
    free.iter().map(|range| (range.start.max(FIRST), range.end.min(END))).find(|(start, end)| start < end).map(|r| r.0)
}

fn read_start_info(address: u64) -> StartInfo {
    // SAFETY: nothing has been mapped or written yet, and the result is a copy.
    let parsed = unsafe {
        let whole = firmware::early(address, pvh::START_INFO_BYTES);
        whole.and_then(pvh::start_info)
    };
    match parsed {
        Some(info) => info,
        None => stop::fatal(format_args!("the loader gave no PVH start information")),
    }
}

/// The loader's memory map and where its modules lie.
///
/// # Safety
/// As [`firmware::early`]; the results are copies.
unsafe fn memory_map(info: &StartInfo) -> (MemoryMap, MemoryMap) {
    let entries = info.memmap_entries.min(MAX_MEMMAP) as usize;
    // SAFETY: passed on.
    let map = unsafe { firmware::early(info.memmap, entries * pvh::MEMMAP_ENTRY_BYTES) };
    let ram = MemoryMap::from_entries(pvh::memmap(map.unwrap_or(&[])));
    let count = info.modules.min(16) as usize;
    // SAFETY: passed on.
    let list = unsafe { firmware::early(info.module_list, count * pvh::MODULE_ENTRY_BYTES) };
    let mut modules = MemoryMap::empty();
    for module in pvh::modules(list.unwrap_or(&[])) {
        // Outward to whole frames: a partial one must not be given away either.
        modules.add(Range { start: module.start & !0xFFF, end: module.end.saturating_add(0xFFF) & !0xFFF });
    }
    (ram, modules)
}
