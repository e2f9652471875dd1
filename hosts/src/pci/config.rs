//! Configuration space: a type 0 header, BARs that can be sized, a capability list (PCI 3.0, 6.1 to 6.7).

const BYTES: usize = 256;
const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const FIRST_CAPABILITY: usize = 0x40;

const IO_SPACE: u16 = 1 << 0;
const MEMORY_SPACE: u16 = 1 << 1;
const BUS_MASTER: u16 = 1 << 2;
const INTX_DISABLE: u16 = 1 << 10;
const HAS_CAPABILITIES: u8 = 1 << 4;

/// What a function says it is.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Vendor id.
    pub vendor: u16,
    /// Device id.
    pub device: u16,
    /// Revision.
    pub revision: u8,
    /// Class, subclass, programming interface.
    pub class: (u8, u8, u8),
    /// Subsystem vendor and device id.
    pub subsystem: (u16, u16),
}

/// What a BAR looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BarKind {
    /// 32-bit.
    Memory32,
    /// 64-bit, prefetchable; takes this index and the next.
    Memory64,
    /// Ports.
    Io,
}

#[derive(Debug, Clone, Copy)]
struct Bar {
    index: u8,
    kind: BarKind,
    len: u64,
}

/// A function's configuration space.
#[derive(Debug, Clone)]
pub struct ConfigSpace {
    bytes: [u8; BYTES],
    /// Which bits the guest can write.
    writable: [u8; BYTES],
    bars: Vec<Bar>,
    end: usize,
    last_pointer: usize,
}

impl ConfigSpace {
    /// A space with interrupt pin A, no BARs and no capabilities; decoding and bus mastering off.
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; BYTES],
            writable: [0; BYTES],
            bars: Vec::new(),
            end: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES,
        };
        space.set(0x00, &identity.vendor.to_le_bytes());
        space.set(0x02, &identity.device.to_le_bytes());
        let (class, subclass, interface) = identity.class;
        space.set(0x08, &[identity.revision, interface, subclass, class]);
        space.set(0x2c, &identity.subsystem.0.to_le_bytes());
        space.set(0x2e, &identity.subsystem.1.to_le_bytes());
        space.set(0x3d, &[1]);
        space.writable[COMMAND..COMMAND + 2]
            .copy_from_slice(&(IO_SPACE | MEMORY_SPACE | BUS_MASTER | INTX_DISABLE).to_le_bytes());
        // Cache line size and interrupt line are the software's to keep.
        space.writable[0x0c] = 0xff;
        space.writable[0x3c] = 0xff;
        space
    }

    /// Overwrites bytes, whatever the guest may write.
    ///
    /// # Panics
    /// If they are outside.
    pub fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Lets the guest write bits.
    ///
    /// # Panics
    /// If they are outside.
    pub fn allow(&mut self, offset: usize, mask: &[u8]) {
        self.writable[offset..offset + mask.len()].copy_from_slice(mask);
    }

    /// Adds a BAR of `len` bytes, a power of two of at least 16 (4 of ports).
    ///
    /// # Panics
    /// If the index or the length cannot be.
    pub fn add_bar(&mut self, index: u8, kind: BarKind, len: u64) {
        let least = if kind == BarKind::Io { 4 } else { 16 };
        assert!(index < 6 && len.is_power_of_two() && len >= least, "BAR {index} of {len} bytes cannot be");
        let at = BARS + 4 * usize::from(index);
        let mask = !(len - 1);
        self.allow(at, &(mask as u32).to_le_bytes());
        if kind == BarKind::Io {
            self.set(at, &[1]);
        }
        if kind == BarKind::Memory64 {
            self.set(at, &[0b1100]);
            self.allow(at + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        self.bars.push(Bar { index, kind, len });
    }

    /// Appends a capability with the bytes after its two-byte header; returns its offset.
    ///
    /// # Panics
    /// If there is no room.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let at = self.end;
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.set(self.last_pointer, &[at as u8]);
        self.bytes[STATUS] |= HAS_CAPABILITIES;
        self.last_pointer = at + 1;
        self.end = (at + 2 + body.len()).next_multiple_of(4);
        at
    }

    /// The four bytes at `offset`, a multiple of 4; all ones beyond the space.
    pub fn read(&self, offset: u16) -> u32 {
        let at = usize::from(offset);
        self.bytes.get(at..at + 4).map_or(u32::MAX, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The guest writes the four bytes at `offset`.
    pub fn write(&mut self, offset: u16, value: u32) {
        for (at, new) in (usize::from(offset)..).zip(value.to_le_bytes()) {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = *byte & !mask | new & mask;
            }
        }
    }

    fn command(&self) -> u16 {
        self.read(COMMAND as u16) as u16
    }

    /// Whether the function may use memory and send messages.
    pub fn bus_master(&self) -> bool {
        self.command() & BUS_MASTER != 0
    }

    /// Whether the function must not assert its interrupt pin.
    pub fn intx_disabled(&self) -> bool {
        self.command() & INTX_DISABLE != 0
    }

    fn bar_base(&self, bar: Bar) -> u64 {
        let at = BARS as u16 + 4 * u16::from(bar.index);
        let low = u64::from(self.read(at) & !0xf);
        match bar.kind {
            BarKind::Memory32 => low,
            BarKind::Memory64 => low | u64::from(self.read(at + 4)) << 32,
            BarKind::Io => u64::from(self.read(at) & !3),
        }
    }

    /// The BAR that a physical address falls in, and the offset there; none while memory decoding is off.
    pub fn bar_at(&self, addr: u64) -> Option<(u8, u64)> {
        if self.command() & MEMORY_SPACE == 0 {
            return None;
        }
        self.find(addr, |bar| bar.kind != BarKind::Io)
    }

    /// The BAR that a port falls in, and the offset there; none while I/O decoding is off.
    pub fn port_at(&self, port: u16) -> Option<(u8, u64)> {
        if self.command() & IO_SPACE == 0 {
            return None;
        }
        self.find(u64::from(port), |bar| bar.kind == BarKind::Io)
    }

    fn find(&self, addr: u64, of: impl Fn(&Bar) -> bool) -> Option<(u8, u64)> {
        self.bars.iter().filter(|bar| of(bar)).find_map(|&bar| {
            let offset = addr.checked_sub(self.bar_base(bar)).filter(|offset| *offset < bar.len)?;
            Some((bar.index, offset))
        })
    }

    /// Places the I/O BARs from port `next` upwards, as firmware does; returns the first port after them.
    pub fn assign_ports(&mut self, next: u16) -> u16 {
        self.bars.clone().into_iter().filter(|bar| bar.kind == BarKind::Io).fold(next, |next, bar| {
            let base = next.next_multiple_of(bar.len as u16);
            self.write(BARS as u16 + 4 * u16::from(bar.index), u32::from(base));
            base + bar.len as u16
        })
    }

    /// Places the BARs from `next` upwards, as firmware does; returns the first address after them.
    pub fn assign_bars(&mut self, next: u64) -> u64 {
        self.bars.clone().into_iter().filter(|bar| bar.kind != BarKind::Io).fold(next, |next, bar| {
            let base = next.next_multiple_of(bar.len);
            let at = BARS as u16 + 4 * u16::from(bar.index);
            self.write(at, base as u32);
            if bar.kind == BarKind::Memory64 {
                self.write(at + 4, (base >> 32) as u32);
            }
            base + bar.len
        })
    }
}
