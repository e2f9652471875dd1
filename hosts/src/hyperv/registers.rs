//! CPUID leaves and synthetic registers.

use super::consts::{PAGE, msr, privilege, sint};
use super::{Breach, Guest, Hyperv};

/// A general protection fault: the access did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault;

/// What the hypervisor is like.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Virtual processors.
    pub vps: u32,
    /// Leaf 0x40000003: EAX, EBX, ECX, EDX.
    pub privileges: [u32; 4],
    /// What the hypercall page begins with. `vmcall; ret`, and whoever runs the guest may have another way to be called.
    pub hypercall_code: Vec<u8>,
    /// Scale and offset of the reference TSC page; without, the page says that it cannot be used.
    pub tsc: Option<(u64, i64)>,
    /// Rates of the time-stamp counter and of the local timers, in hertz.
    pub frequencies: (u64, u64),
}

impl Default for Settings {
    fn default() -> Self {
        let registers = privilege::REFERENCE_COUNT | privilege::SYNIC | privilege::TIMERS;
        let eax = registers | privilege::HYPERCALLS | privilege::VP_INDEX | privilege::REFERENCE_TSC;
        Self {
            vps: 1,
            privileges: [eax, privilege::POST | privilege::SIGNAL, 0, privilege::DIRECT_TIMERS],
            hypercall_code: vec![0x0f, 0x01, 0xc1, 0xc3],
            tsc: None,
            frequencies: (1_000_000_000, 1_000_000_000),
        }
    }
}

impl Settings {
    /// Has registers tell the rates of the time-stamp counter and of the local timers, in hertz.
    pub fn tell_frequencies(&mut self, tsc: u64, timer: u64) {
        self.frequencies = (tsc, timer);
        self.privileges[0] |= privilege::FREQUENCIES;
        self.privileges[3] |= privilege::TELLS_FREQUENCIES;
    }
}

impl Hyperv {
    /// The hypervisor's CPUID leaves: EAX, EBX, ECX, EDX. `None` for any other leaf; but leaf 1 has to say, in bit 31 of ECX, that there is a
    /// hypervisor.
    pub fn cpuid(&self, leaf: u32, _sub: u32) -> Option<[u32; 4]> {
        Some(match leaf {
            0x4000_0000 => [0x4000_0005, 0x7263_694d, 0x666f_736f, 0x7648_2074],
            0x4000_0001 => [0x3123_7648, 0, 0, 0],
            0x4000_0002 => [20348, 10 << 16, 0, 0],
            0x4000_0003 => self.settings.privileges,
            // Do not use automatic end of interrupt.
            0x4000_0004 => [1 << 9, u32::MAX, 0, 0],
            0x4000_0005 => [self.settings.vps, 0, 0, 0],
            _ => return None,
        })
    }

    fn allows(&self, bits: u32) -> bool {
        self.settings.privileges[0] & bits != 0
    }

    /// Whether a register exists.
    fn exists(&self, register: u32) -> bool {
        match register {
            msr::OS_ID | msr::HYPERCALL => self.allows(privilege::HYPERCALLS),
            msr::VP_INDEX => self.allows(privilege::VP_INDEX),
            msr::REFERENCE_COUNT => self.allows(privilege::REFERENCE_COUNT),
            msr::REFERENCE_TSC => self.allows(privilege::REFERENCE_TSC),
            msr::TSC_HZ | msr::APIC_HZ => self.allows(privilege::FREQUENCIES),
            msr::SCONTROL..=msr::EOM | msr::SINT..=msr::SINT_LAST => self.allows(privilege::SYNIC),
            msr::STIMER..=msr::STIMER_LAST => self.allows(privilege::TIMERS),
            _ => false,
        }
    }

    /// The processor `vp` reads a register.
    ///
    /// # Errors
    /// [`Fault`], to be put into the guest.
    pub fn rdmsr(&mut self, guest: &dyn Guest, vp: u32, register: u32) -> Result<u64, Fault> {
        let Some(processor) = self.vps.get(vp as usize).filter(|_| self.exists(register) && register != msr::EOM)
        else {
            self.breaches.push(Breach::NoSuchRead(register));
            return Err(Fault);
        };
        Ok(match register {
            msr::OS_ID => self.os_id,
            msr::HYPERCALL => self.hypercall_page,
            msr::VP_INDEX => u64::from(vp),
            msr::REFERENCE_COUNT => guest.now(),
            msr::REFERENCE_TSC => self.tsc_page,
            msr::TSC_HZ => self.settings.frequencies.0,
            msr::APIC_HZ => self.settings.frequencies.1,
            msr::SCONTROL => processor.scontrol,
            msr::SVERSION => 1,
            msr::SIEFP => processor.siefp(),
            msr::SIMP => processor.simp(),
            msr::SINT..=msr::SINT_LAST => processor.sint((register - msr::SINT) as usize),
            _ => {
                let timer = processor.timer((register - msr::STIMER) as usize / 2);
                if register.is_multiple_of(2) { timer.config } else { timer.count }
            }
        })
    }

    /// The processor `vp` writes a register.
    ///
    /// # Errors
    /// [`Fault`], to be put into the guest.
    pub fn wrmsr(&mut self, guest: &dyn Guest, vp: u32, register: u32, value: u64) -> Result<(), Fault> {
        let result = self.write_register(guest, vp, register, value);
        if let Err(breach) = result {
            self.breaches.push(breach);
            return Err(Fault);
        }
        Ok(())
    }

    fn write_register(&mut self, guest: &dyn Guest, vp: u32, register: u32, value: u64) -> Result<(), Breach> {
        if !self.exists(register) || vp as usize >= self.vps.len() {
            return Err(Breach::NoSuchWrite(register));
        }
        let require = |holds: bool| if holds { Ok(()) } else { Err(Breach::RegisterBits(register, value)) };
        match register {
            msr::OS_ID => {
                if value == 0 {
                    // The hypercall page goes with it.
                    self.hypercall_page = 0;
                } else if value >> 63 == 0 && !self.breaches.contains(&Breach::RegisterBits(register, value)) {
                    // Not the form of a free system: noticed, and taken.
                    self.breaches.push(Breach::RegisterBits(register, value));
                }
                self.os_id = value;
            }
            msr::HYPERCALL => {
                require(value & 0xffc == 0 && self.hypercall_page & 2 == 0)?;
                self.set_hypercall_page(guest, value)?;
            }
            msr::REFERENCE_TSC => {
                require(value & 0xffe == 0)?;
                self.set_tsc_page(guest, value)?;
            }
            msr::SCONTROL => {
                require(value & !1 == 0)?;
                self.set_scontrol(guest, vp, value);
            }
            msr::SIEFP | msr::SIMP => {
                require(value & 0xffe == 0)?;
                if register == msr::SIMP {
                    self.set_simp(guest, vp, value);
                } else {
                    self.set_siefp(guest, vp, value);
                }
            }
            msr::EOM => self.end_of_message(guest, vp),
            msr::SINT..=msr::SINT_LAST => {
                let masked = value & sint::MASKED != 0;
                require(value & !sint::KNOWN == 0 && (masked || value & 0xff >= 16))?;
                // Automatic end of interrupt is advised against, and polling may not be offered.
                let polls = value & sint::POLLING != 0 && self.settings.privileges[3] & privilege::POLLING == 0;
                if value & sint::AUTO_EOI != 0 || polls {
                    self.breaches.push(Breach::RegisterBits(register, value));
                }
                self.set_sint(guest, vp, (register - msr::SINT) as usize, value);
            }
            msr::STIMER..=msr::STIMER_LAST => {
                let number = (register - msr::STIMER) as usize;
                if number.is_multiple_of(2) {
                    let direct = value & 1 << 12 != 0;
                    require(!direct || self.settings.privileges[3] & privilege::DIRECT_TIMERS != 0)?;
                    require(value & 1 == 0 || direct || value >> 16 & 0xf != 0)?;
                    require(value >> 20 == 0 && value & 0xe000 == 0)?;
                }
                self.set_timer(guest, vp, number, value);
            }
            _ => return Err(Breach::NoSuchWrite(register)),
        }
        Ok(())
    }

    fn set_hypercall_page(&mut self, guest: &dyn Guest, value: u64) -> Result<(), Breach> {
        if value & 1 != 0 {
            if self.os_id == 0 {
                // The bit stays clear.
                self.breaches.push(Breach::NoOsId);
                self.hypercall_page = value & !1;
                return Ok(());
            }
            let mut page = vec![0; PAGE as usize];
            let code = &self.settings.hypercall_code;
            page[..code.len()].copy_from_slice(code);
            guest.write(value & !(PAGE - 1), &page)?;
        }
        self.hypercall_page = value;
        Ok(())
    }

    fn set_tsc_page(&mut self, guest: &dyn Guest, value: u64) -> Result<(), Breach> {
        if value & 1 != 0 {
            let mut page = vec![0; PAGE as usize];
            if let Some((scale, offset)) = self.settings.tsc {
                page[..4].copy_from_slice(&1u32.to_le_bytes());
                page[8..16].copy_from_slice(&scale.to_le_bytes());
                page[16..24].copy_from_slice(&offset.to_le_bytes());
            }
            guest.write(value & !(PAGE - 1), &page)?;
        }
        self.tsc_page = value;
        Ok(())
    }
}
