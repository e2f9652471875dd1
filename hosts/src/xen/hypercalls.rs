//! Hypercalls: memory, the grant table, event channels, parameters, timers.

use super::breach::Breach;
use super::consts::{BACKEND, SELF, call, errno, event, grant, hvm, memory as mem, vcpu};
use super::events::End;
use super::memory::{put, u16_at, u32_at, u64_at};
use super::{STORE_FRAME, Xen};
use crate::Bus;

impl Xen {
    /// A hypercall with a command and a structure.
    pub fn call(&mut self, bus: &Bus<'_>, number: u32, command: u32, argument: &mut [u8]) -> i64 {
        self.log.counts.calls += 1;
        let result = match (number, command) {
            (call::MEMORY, mem::ADD_TO_PHYSMAP) => self.add_to_physmap(bus, argument),
            (call::VERSION, 0) => Ok(i64::from(self.settings.version.0) << 16 | i64::from(self.settings.version.1)),
            (call::GRANT_TABLE, _) => self.grant_table(command, argument),
            (call::EVENT_CHANNEL, _) => self.event_channel(bus, command, argument),
            (call::HVM, _) => self.hvm(command, argument),
            _ => Err(Breach::UnknownCall(number, command)),
        };
        result.unwrap_or_else(|breach| {
            self.log.breach(breach);
            if matches!(breach, Breach::UnknownCall(..)) { errno::ENOSYS } else { errno::EINVAL }
        })
    }

    fn add_to_physmap(&mut self, bus: &Bus<'_>, argument: &[u8]) -> Result<i64, Breach> {
        let (domain, space) = (u16_at(argument, 0), u32_at(argument, 4));
        let (index, frame) = (u64_at(argument, 8), u64_at(argument, 16));
        if argument.len() != 24 || domain != SELF {
            return Err(Breach::Argument("add_to_physmap: its size or its domain"));
        }
        if frame == 0 || bus.read(frame.saturating_mul(4096), &mut [0]).is_ok() {
            return Err(Breach::Argument("add_to_physmap: a frame in use"));
        }
        match space {
            mem::SPACE_SHARED_INFO if index == 0 => {
                bus.frames().put(frame);
                self.ports.map(bus, frame, &mut self.log);
            }
            mem::SPACE_GRANT_TABLE => {
                if index >= u64::from(self.knobs.grant_frames) {
                    return Ok(errno::EINVAL);
                }
                self.grants.add_frame(bus, index, frame);
            }
            _ => return Err(Breach::Argument("add_to_physmap: a space")),
        }
        Ok(0)
    }

    fn grant_table(&mut self, command: u32, argument: &mut [u8]) -> Result<i64, Breach> {
        match command {
            grant::SET_VERSION if argument.len() == 4 && u32_at(argument, 0) == 1 => Ok(0),
            grant::SET_VERSION => Ok(errno::ENOSYS),
            grant::GET_VERSION => {
                put(argument, 4, &1u32.to_le_bytes());
                Ok(0)
            }
            grant::QUERY_SIZE => {
                if argument.len() != 16 || u16_at(argument, 0) != SELF {
                    return Err(Breach::Argument("query_size: its size or its domain"));
                }
                put(argument, 4, &self.grants.frames().max(1).to_le_bytes());
                put(argument, 8, &self.knobs.grant_frames.to_le_bytes());
                put(argument, 12, &0u16.to_le_bytes());
                Ok(0)
            }
            _ => Err(Breach::UnknownCall(call::GRANT_TABLE, command)),
        }
    }

    fn event_channel(&mut self, bus: &Bus<'_>, command: u32, argument: &mut [u8]) -> Result<i64, Breach> {
        let length = match command {
            event::ALLOC_UNBOUND | event::BIND_VCPU | event::BIND_IPI => 8,
            event::BIND_VIRQ => 12,
            event::CLOSE | event::SEND | event::UNMASK => 4,
            _ => return Err(Breach::UnknownCall(call::EVENT_CHANNEL, command)),
        };
        if argument.len() != length {
            return Err(Breach::Argument("event_channel_op: its size"));
        }
        let first = u32_at(argument, 0);
        let known =
            |this: &Self| if this.ports.ports.contains_key(&first) { Ok(()) } else { Err(Breach::NoSuchPort(first)) };
        match command {
            event::ALLOC_UNBOUND => {
                if u16_at(argument, 0) != SELF {
                    return Err(Breach::Argument("alloc_unbound: another domain"));
                }
                let end = End::Unbound(u16_at(argument, 2));
                Ok(self.add_port(end, 0, argument, 4))
            }
            event::BIND_VIRQ => {
                self.check_vcpu(u32_at(argument, 4))?;
                let taken =
                    |port: &super::events::Port| port.end == End::Virtual(first) && port.vcpu == u32_at(argument, 4);
                if self.ports.ports.values().any(taken) {
                    return Ok(-17);
                }
                let vcpu = u32_at(argument, 4);
                Ok(self.add_port(End::Virtual(first), vcpu, argument, 8))
            }
            event::BIND_IPI => {
                self.check_vcpu(first)?;
                Ok(self.add_port(End::Processor, first, argument, 4))
            }
            event::BIND_VCPU => {
                known(self)?;
                let vcpu = u32_at(argument, 4);
                self.check_vcpu(vcpu)?;
                if let Some(port) = self.ports.ports.get_mut(&first) {
                    if matches!(port.end, End::Virtual(_) | End::Processor) {
                        return Err(Breach::Argument("bind_vcpu: a port that stays where it is"));
                    }
                    port.vcpu = vcpu;
                }
                Ok(0)
            }
            event::UNMASK => {
                known(self)?;
                self.ports.unmask(bus, first, &mut self.log);
                Ok(0)
            }
            event::CLOSE => {
                known(self)?;
                self.ports.close(bus, first);
                Ok(0)
            }
            _ => {
                known(self)?;
                Ok(self.send(bus, first))
            }
        }
    }

    fn add_port(&mut self, end: End, vcpu: u32, argument: &mut [u8], at: usize) -> i64 {
        match self.ports.add(end, vcpu, self.knobs.ports) {
            Some(port) => {
                put(argument, at, &port.to_le_bytes());
                0
            }
            None => errno::ENOSPC,
        }
    }

    fn check_vcpu(&self, vcpu: u32) -> Result<(), Breach> {
        if vcpu < self.settings.vcpus { Ok(()) } else { Err(Breach::Argument("a virtual processor that there is not")) }
    }

    fn send(&mut self, bus: &Bus<'_>, port: u32) -> i64 {
        self.log.counts.sends += 1;
        if self.is_needless(bus, port) {
            self.log.counts.needless_sends += 1;
        }
        if !self.ports.sent.contains(&port) {
            self.ports.sent.push(port);
        }
        0
    }

    fn hvm(&mut self, command: u32, argument: &mut [u8]) -> Result<i64, Breach> {
        match command {
            hvm::GET_PARAM | hvm::SET_PARAM if argument.len() != 16 || u16_at(argument, 0) != SELF => {
                Err(Breach::Argument("hvm_param: its size or its domain"))
            }
            hvm::GET_PARAM => {
                let value: u64 = match u32_at(argument, 4) {
                    hvm::STORE_PFN => STORE_FRAME,
                    hvm::STORE_PORT => u64::from(self.store_port),
                    // The callback, the console's.
                    0 | 17 | 18 => 0,
                    _ => return Ok(errno::EINVAL),
                };
                put(argument, 8, &value.to_le_bytes());
                Ok(0)
            }
            hvm::SET_PARAM => Ok(0),
            hvm::SET_UPCALL_VECTOR => {
                let (vcpu, vector) = (u32_at(argument, 0), argument.get(4).copied().unwrap_or(0));
                if argument.len() != 8 {
                    return Err(Breach::Argument("set_evtchn_upcall_vector: its size"));
                }
                if vcpu >= self.settings.vcpus {
                    return Ok(errno::ENOENT);
                }
                if vector < 0x10 {
                    return Err(Breach::Vector(vector));
                }
                if !self.settings.upcall_vector {
                    return Ok(errno::ENOSYS);
                }
                self.ports.vectors.insert(vcpu, vector);
                Ok(0)
            }
            _ => Err(Breach::UnknownCall(call::HVM, command)),
        }
    }

    /// `vcpu_op`.
    pub fn vcpu_call(&mut self, bus: &Bus<'_>, command: u32, vcpu: u32, argument: &mut [u8]) -> i64 {
        self.log.counts.calls += 1;
        if vcpu >= self.settings.vcpus {
            self.log.breach(Breach::Argument("a virtual processor that there is not"));
            return errno::ENOENT;
        }
        match command {
            vcpu::STOP_PERIODIC => 0,
            vcpu::STOP_SINGLESHOT => {
                self.ports.timers.remove(&vcpu);
                0
            }
            vcpu::SET_SINGLESHOT => {
                let (at, flags) = (u64_at(argument, 0), u32_at(argument, 8));
                if flags & vcpu::FUTURE != 0 && at < bus.now() {
                    return vcpu::ETIME;
                }
                self.ports.timers.insert(vcpu, at);
                0
            }
            _ => {
                self.log.breach(Breach::UnknownCall(24, command));
                errno::ENOSYS
            }
        }
    }

    /// Xen's CPUID leaves, counted from the first.
    pub fn cpuid(&self, bus: &Bus<'_>, leaf: u32) -> Option<[u32; 4]> {
        const VCPU_PRESENT: u32 = 1 << 3;
        const DOMAIN_PRESENT: u32 = 1 << 4;
        const UPCALL_VECTOR: u32 = 1 << 6;
        let upcall = if self.settings.upcall_vector { UPCALL_VECTOR } else { 0 };
        Some(match leaf {
            0x4000_0000 => [0x4000_0005, 0x566e_6558, 0x6558_4d4d, 0x4d4d_566e],
            0x4000_0001 => [u32::from(self.settings.version.0) << 16 | u32::from(self.settings.version.1), 0, 0, 0],
            0x4000_0002 => [1, 0x4000_0000, 0, 0],
            0x4000_0003 => [4, 2, 1_000_000, 0],
            0x4000_0004 => {
                [VCPU_PRESENT | DOMAIN_PRESENT | upcall, bus.cpu() as u32, u32::from(self.settings.domain), 0]
            }
            0x4000_0005 => [0; 4],
            _ => return None,
        })
    }

    pub(super) const fn backend_domain() -> u16 {
        BACKEND
    }
}
