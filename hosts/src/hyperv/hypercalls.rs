//! Hypercalls: post a message, signal an event.

use super::consts::{PAGE, call, slot};
use super::guest::u32_at;
use super::{Breach, Guest, Hyperv, PostFault, SignalFault};

/// The connection that a contact of version 5.0 or later may use, and the one of all other messages.
pub(super) const CONTACT_CONNECTION: u32 = 4;
pub(super) const MESSAGE_CONNECTION: u32 = 1;

impl Hyperv {
    /// The processor `vp` calls the hypercall page: the registers RCX, RDX and R8. Returns RAX.
    pub fn hypercall(&mut self, guest: &dyn Guest, vp: u32, control: u64, input: u64, output: u64) -> u64 {
        let _ = output;
        if self.hypercall_page & 1 == 0 {
            self.breaches.push(Breach::HypercallPageOff);
            return u64::from(call::BAD_CODE);
        }
        let status = match (control as u16, control & !0xffff) {
            (call::POST, 0) => self.post_message(guest, vp, input),
            (call::SIGNAL, call::FAST) => self.signal_event(guest, input, 0),
            (call::SIGNAL, 0) => self.signal_from_memory(guest, input),
            (call::POST | call::SIGNAL, _) => {
                self.breaches.push(Breach::HypercallControl(control));
                call::BAD_INPUT
            }
            (code, _) => {
                self.breaches.push(Breach::UnknownHypercall(code));
                call::BAD_CODE
            }
        };
        u64::from(status)
    }

    fn input(&mut self, guest: &dyn Guest, at: u64, into: &mut [u8]) -> Result<(), u16> {
        let end = at % PAGE + into.len() as u64;
        if !at.is_multiple_of(8) || end > PAGE {
            self.breaches.push(Breach::HypercallInput(at));
            return Err(if at.is_multiple_of(8) { call::BAD_INPUT } else { call::ALIGNMENT });
        }
        guest.read(at, into).map_err(|bad| {
            self.breaches.push(bad.into());
            call::BAD_INPUT
        })
    }

    fn wrong(&mut self, what: &'static str) -> u16 {
        self.breaches.push(Breach::HypercallParameter(what));
        call::PARAMETER
    }

    fn post_message(&mut self, guest: &dyn Guest, vp: u32, at: u64) -> u16 {
        self.counts.posts += 1;
        let mut block = [0; 256];
        if let Err(status) = self.input(guest, at, &mut block) {
            return status;
        }
        let (connection, kind, size) = (u32_at(&block, 0), u32_at(&block, 8), u32_at(&block, 12) as usize);
        if u32_at(&block, 4) != 0 {
            return self.wrong("a reserved word that is not zero");
        }
        if kind != slot::VMBUS {
            return self.wrong("a message type that is not VMBus's");
        }
        if size > slot::PAYLOAD {
            return self.wrong("a message longer than 240 bytes");
        }
        if connection != MESSAGE_CONNECTION && connection != CONTACT_CONNECTION {
            self.breaches.push(Breach::PostConnection(connection));
            return call::INVALID_CONNECTION;
        }
        let faults = self.faults.posts.next().unwrap_or_default();
        if let Some(PostFault::Status(status)) = faults.first() {
            return *status;
        }
        self.receive(guest, vp, connection, &block[16..16 + size]);
        call::OK
    }

    fn signal_from_memory(&mut self, guest: &dyn Guest, at: u64) -> u16 {
        let mut block = [0; 8];
        match self.input(guest, at, &mut block) {
            Ok(()) => self.signal_event(guest, u64::from_le_bytes(block), 0),
            Err(status) => status,
        }
    }

    fn signal_event(&mut self, guest: &dyn Guest, input: u64, _output: u64) -> u16 {
        self.counts.signals += 1;
        if input >> 32 != 0 {
            return self.wrong("a flag number that is not 0");
        }
        if self.faults.signals.next().unwrap_or_default().contains(&SignalFault::Lost) {
            return call::OK;
        }
        self.signalled(guest, input as u32)
    }
}
