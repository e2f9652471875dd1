//! The PCI function: configuration space, and which port is which register.

use undercroft_hal::mmio::Width;

use super::{Breach, Channel};
use crate::pci::{BarKind, ConfigSpace, Identity};
use crate::{Bus, Device, Space};

/// Where the command and control blocks are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// At the traditional ports, with interrupts 14 and 15.
    Compatible,
    /// In BARs 0 to 3, with the function's interrupt pin.
    Native,
}

const LEGACY: [(u16, u16); 2] = [(0x1f0, 0x3f6), (0x170, 0x376)];
const ISA: [u8; 2] = [14, 15];
const ENABLED: u16 = 0x8000;

/// A bus-master IDE function with two channels.
#[derive(Debug)]
pub struct Piix {
    /// The primary and the secondary channel.
    pub channels: [Channel; 2],
    config: ConfigSpace,
    mode: Mode,
}

impl Piix {
    /// A PIIX3 at the traditional ports.
    pub fn new(primary: Channel, secondary: Channel) -> Self {
        Self::with_mode(primary, secondary, Mode::Compatible, true)
    }

    /// A controller with its registers where `mode` says, and a bus master or not.
    pub fn with_mode(primary: Channel, secondary: Channel, mode: Mode, bus_master: bool) -> Self {
        let native = mode == Mode::Native;
        let interface = if native { 0x05 } else { 0 } | if bus_master { 0x80 } else { 0 };
        let mut config = ConfigSpace::new(Identity {
            vendor: 0x8086,
            device: if native { 0x2651 } else { 0x7010 },
            revision: 0,
            class: (0x01, 0x01, interface),
            subsystem: (0x1af4, 0x1100),
        });
        if native {
            for (bar, len) in [8, 4, 8, 4].into_iter().enumerate() {
                config.add_bar(bar as u8, BarKind::Io, len);
            }
        } else {
            // The function has no pin of its own in use.
            config.set(0x3d, &[0]);
        }
        if bus_master {
            config.add_bar(4, BarKind::Io, 16);
        }
        for channel in 0..2 {
            config.set(0x40 + 2 * channel, &ENABLED.to_le_bytes());
            config.allow(0x40 + 2 * channel, &[0xff; 2]);
        }
        Self { channels: [primary, secondary], config, mode }
    }

    /// Firmware left a channel without decoding (IDETIM, bit 15).
    pub fn disable_channel(&mut self, channel: usize) {
        self.config.set(0x40 + 2 * channel, &[0, 0]);
    }

    /// Whether firmware, or the driver, has left a channel's decoding on.
    pub fn enabled(&self, channel: usize) -> bool {
        self.config.read(0x40) >> (16 * channel) & u32::from(ENABLED) != 0
    }

    /// What the driver did wrong, on either channel.
    pub fn breaches(&self) -> Vec<Breach> {
        self.channels.iter().flat_map(|channel| channel.breaches().to_vec()).collect()
    }

    fn drive_lines(&mut self, bus: &Bus<'_>) {
        match self.mode {
            Mode::Compatible => {
                for (channel, number) in self.channels.iter_mut().zip(ISA) {
                    if std::mem::take(&mut channel.pulse) {
                        bus.set_isa_line(number, false);
                        bus.set_isa_line(number, true);
                    }
                    bus.set_isa_line(number, channel.line);
                }
            }
            Mode::Native => bus.set_line(self.channels.iter().any(|channel| channel.line)),
        }
    }

    /// The channel, and the register of it, at a place: 0 to 7 the command block, 8 the control block, from 16 the bus master.
    fn register(&self, space: Space, offset: u64) -> Option<(usize, u64)> {
        match space {
            Space::Legacy => {
                let port = offset as u16;
                LEGACY.iter().enumerate().find_map(|(channel, &(command, control))| {
                    if (command..command + 8).contains(&port) {
                        Some((channel, u64::from(port - command)))
                    } else {
                        (port == control).then_some((channel, 8))
                    }
                })
            }
            Space::Bar(bar @ 0..=3) => {
                let channel = usize::from(bar / 2);
                match bar % 2 {
                    0 => Some((channel, offset)),
                    // The control register is the third of its block.
                    _ => (offset == 2).then_some((channel, 8)),
                }
            }
            Space::Bar(4) => Some((offset as usize / 8, 16 + offset % 8)),
            _ => None,
        }
    }
}

impl Device for Piix {
    fn read(&mut self, bus: &Bus<'_>, space: Space, offset: u64, width: Width) -> u64 {
        let Some((channel, register)) = self.register(space, offset) else { return u64::MAX };
        let channel = &mut self.channels[channel];
        let value = match register {
            0..=7 => channel.read(bus, register as u8, width),
            8 => channel.alternate(bus),
            _ => (0..width.bytes() as u64)
                .fold(0, |value, byte| value | u32::from(channel.bus_master.read(register - 16 + byte)) << (8 * byte)),
        };
        self.drive_lines(bus);
        u64::from(value)
    }

    fn write(&mut self, bus: &Bus<'_>, space: Space, offset: u64, width: Width, value: u64) {
        let Some((channel, register)) = self.register(space, offset) else { return };
        let master = self.config.bus_master();
        let channel = &mut self.channels[channel];
        match register {
            0..=7 => channel.write(bus, register as u8, width, value as u32),
            8 => channel.control(bus, value as u8),
            _ => {
                for byte in 0..width.bytes() as u64 {
                    channel.write_master(bus, register - 16 + byte, (value >> (8 * byte)) as u8, master);
                }
            }
        }
        self.drive_lines(bus);
    }

    fn work(&mut self, bus: &Bus<'_>) -> bool {
        let mut progress = false;
        for channel in &mut self.channels {
            progress |= channel.work(bus);
        }
        self.drive_lines(bus);
        progress
    }

    fn due(&self) -> Option<u64> {
        self.channels.iter().filter_map(Channel::due).min()
    }

    fn config_read(&mut self, _bus: &Bus<'_>, offset: u16) -> u32 {
        self.config.read(offset)
    }

    fn config_write(&mut self, _bus: &Bus<'_>, offset: u16, value: u32) {
        self.config.write(offset, value);
    }

    fn port_at(&self, port: u16) -> Option<(Space, u64)> {
        if let Some((bar, offset)) = self.config.port_at(port) {
            return Some((Space::Bar(bar), offset));
        }
        let legacy = self.mode == Mode::Compatible
            && self.register(Space::Legacy, u64::from(port)).is_some_and(|(channel, _)| self.enabled(channel));
        legacy.then_some((Space::Legacy, u64::from(port)))
    }

    fn assign_ports(&mut self, next: u16) -> u16 {
        self.config.assign_ports(next)
    }

    fn isa_lines(&self) -> &'static [u8] {
        if self.mode == Mode::Compatible { &ISA } else { &[] }
    }

    fn diagnose(&self, _bus: &Bus<'_>) -> String {
        let [primary, secondary] = &self.channels;
        format!("ide: primary {}; secondary {}", primary.diagnose(), secondary.diagnose())
    }
}
