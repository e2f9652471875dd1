//! What the guest's `hal` asks of the machine.

use undercroft_hal::dma::{DmaBlock, DmaError, DmaLayout};
use undercroft_hal::hosted;
use undercroft_hal::irq::{IrqError, IrqLine, MsiMessage, Slot};
use undercroft_hal::mmio::{MmioError, Width};
use undercroft_hal::pci::Address;
use undercroft_hal::xen::SharedPage;

use super::{Machine, Place, Space, WINDOW_LEN};

/// ENOSYS: there is no Xen.
const NO_SUCH_CALL: i64 = -38;

impl Machine {
    /// The device and register range at a physical address.
    fn registers_at(&self, phys: u64) -> Option<(usize, Space, u64)> {
        let devices = self.devices.borrow();
        devices.iter().enumerate().find_map(|(index, attached)| {
            let attached = attached.as_ref()?;
            match attached.place {
                Place::Window(base) => {
                    let offset = phys.checked_sub(base).filter(|offset| *offset < WINDOW_LEN)?;
                    Some((index, Space::Window, offset))
                }
                Place::Pci(_) => {
                    let (bar, offset) = attached.device.borrow().bar_at(phys)?;
                    Some((index, Space::Bar(bar), offset))
                }
            }
        })
    }

    /// The device and register range at a port.
    fn port_at(&self, port: u16) -> Option<(usize, Space, u64)> {
        let devices = self.devices.borrow();
        devices.iter().enumerate().find_map(|(index, attached)| {
            let (space, offset) = attached.as_ref()?.device.borrow().port_at(port)?;
            Some((index, space, offset))
        })
    }

    /// The first answer that a device gives.
    fn ask_all<R>(&self, mut ask: impl FnMut(&mut dyn super::Device, &super::Bus<'_>) -> Option<R>) -> Option<R> {
        let count = self.devices.borrow().len();
        (0..count).find_map(|index| self.with_device(index, 0, |device, bus| ask(device, bus)).flatten())
    }

    fn function_at(&self, address: Address) -> Option<usize> {
        let devices = self.devices.borrow();
        devices.iter().position(|attached| attached.as_ref().is_some_and(|a| a.place == Place::Pci(address)))
    }
}

impl hosted::Machine for Machine {
    fn cpu(&self) -> usize {
        self.current.get()
    }

    fn cpu_count(&self) -> usize {
        self.cpus.len()
    }

    fn irq_save(&self) -> bool {
        // The last moment before interrupts go off is one at which they may arrive.
        self.step();
        self.cpu_state().interrupts_on.replace(false)
    }

    fn irq_restore(&self, were_on: bool) {
        self.cpu_state().interrupts_on.set(were_on);
        if were_on {
            self.step();
        }
    }

    fn halt(&self) {
        self.wait();
    }

    fn relax(&self) {
        self.spin();
    }

    fn kick(&self, cpu: usize) {
        if let Some(cpu) = self.cpus.get(cpu) {
            cpu.kicked.set(true);
        }
        self.step();
    }

    fn now(&self) -> u64 {
        self.step();
        self.now.get()
    }

    fn set_alarm(&self, at: Option<u64>) {
        self.cpu_state().alarm.set(at);
    }

    fn dma_alloc(&self, layout: DmaLayout) -> Result<DmaBlock, DmaError> {
        self.step();
        match self.dma_until_failure.get() {
            Some(0) => {
                self.dma_until_failure.set(None);
                return Err(DmaError::NoMemory);
            }
            left => self.dma_until_failure.set(left.map(|left| left - 1)),
        }
        match self.reach.get() {
            u64::MAX => self.ram.alloc(layout),
            last => self.ram.alloc_from(layout, last + 1).or_else(|_| self.ram.alloc(layout)),
        }
    }

    fn dma_free(&self, block: DmaBlock) {
        self.ram.free(block);
        self.step();
    }

    fn map_mmio(&self, phys: u64, len: usize) -> Result<(), MmioError> {
        let last = phys.checked_add(len as u64 - 1).ok_or(MmioError::BadRange)?;
        let (first, last) = (self.registers_at(phys), self.registers_at(last));
        match (first, last) {
            (Some((a, space, _)), Some((b, other, _))) if a == b && space == other => Ok(()),
            _ => Err(MmioError::BadRange),
        }
    }

    fn mmio_read(&self, phys: u64, width: Width) -> u64 {
        self.step();
        self.accesses.set(self.accesses.get() + 1);
        let Some((index, space, offset)) = self.registers_at(phys) else { return u64::MAX };
        self.with_device(index, 0, |device, bus| device.read(bus, space, offset, width)).unwrap_or(u64::MAX)
    }

    fn mmio_write(&self, phys: u64, width: Width, value: u64) {
        self.accesses.set(self.accesses.get() + 1);
        if let Some((index, space, offset)) = self.registers_at(phys) {
            self.with_device(index, 0, |device, bus| device.write(bus, space, offset, width, value));
        }
        self.step();
    }

    fn port_read(&self, port: u16, width: Width) -> u32 {
        self.step();
        self.accesses.set(self.accesses.get() + 1);
        let Some((index, space, offset)) = self.port_at(port) else { return u32::MAX };
        self.with_device(index, 0, |device, bus| device.read(bus, space, offset, width)).map_or(u32::MAX, |v| v as u32)
    }

    fn port_write(&self, port: u16, width: Width, value: u32) {
        self.accesses.set(self.accesses.get() + 1);
        if let Some((index, space, offset)) = self.port_at(port) {
            self.with_device(index, 0, |device, bus| device.write(bus, space, offset, width, u64::from(value)));
        }
        self.step();
    }

    fn pci_read(&self, address: Address, offset: u16) -> u32 {
        self.step();
        let Some(index) = self.function_at(address) else { return u32::MAX };
        self.with_device(index, 0, |device, bus| device.config_read(bus, offset)).unwrap_or(u32::MAX)
    }

    fn pci_write(&self, address: Address, offset: u16, value: u32) {
        if let Some(index) = self.function_at(address) {
            self.with_device(index, 0, |device, bus| device.config_write(bus, offset, value));
        }
        self.step();
    }

    fn msi_route(&self, slot: Slot, cpu: usize) -> Result<MsiMessage, IrqError> {
        if cpu >= self.cpus.len() {
            return Err(IrqError::NoCpu);
        }
        Ok(self.interrupts.borrow_mut().route_message(slot, cpu))
    }

    fn line_route(&self, line: IrqLine, slot: Slot) -> Result<(), IrqError> {
        let known = self.interrupts.borrow_mut().route_line(line.number, Some(slot));
        self.step();
        if known { Ok(()) } else { Err(IrqError::NoLine) }
    }

    fn line_mask(&self, line: IrqLine) {
        self.interrupts.borrow_mut().route_line(line.number, None);
    }

    fn pci_line(&self, address: Address, pin: u8) -> Option<IrqLine> {
        let index = self.function_at(address).filter(|_| pin == 1)?;
        self.devices.borrow()[index].as_ref().map(|attached| attached.line)
    }

    fn cpuid(&self, leaf: u32) -> [u32; 4] {
        self.ask_all(|device, bus| device.cpuid(bus, leaf)).unwrap_or([0; 4])
    }

    fn read_msr(&self, register: u32) -> u64 {
        let cpu = self.current.get();
        self.ask_all(|device, bus| device.read_msr(bus, cpu, register)).unwrap_or(0)
    }

    fn write_msr(&self, register: u32, value: u64) {
        let cpu = self.current.get();
        self.ask_all(|device, bus| device.write_msr(bus, cpu, register, value).then_some(()));
        self.step();
    }

    fn hypercall(&self, control: u64, input: u64, output: u64) -> u64 {
        /// There is no hypervisor.
        const INVALID_CODE: u64 = 2;
        let (cpu, registers) = (self.current.get(), [control, input, output]);
        let answer = self.ask_all(|device, bus| device.hypercall(bus, cpu, registers)).unwrap_or(INVALID_CODE);
        self.step();
        answer
    }
    fn xen_call(&self, number: u32, command: u32, argument: &mut [u8]) -> i64 {
        let answer = self.ask_all(|device, bus| device.xen_call(bus, number, command, argument));
        self.step();
        answer.unwrap_or(NO_SUCH_CALL)
    }

    fn xen_vcpu_call(&self, command: u32, vcpu: u32, argument: &mut [u8]) -> i64 {
        let answer = self.ask_all(|device, bus| device.xen_vcpu_call(bus, command, vcpu, argument));
        self.step();
        answer.unwrap_or(NO_SUCH_CALL)
    }

    fn spare_frame(&self) -> Option<u64> {
        Some(self.frames.spare())
    }

    fn map_page(&self, frame: u64) -> Option<SharedPage> {
        self.frames.page(frame)
    }
}
