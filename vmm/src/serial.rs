//! The console: a 16550 at port 0x3F8, its output on standard output and its input from standard input.

use std::io::{self, Read, Stdout};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use kvm_ioctls::VmFd;
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial};
use vmm_sys_util::eventfd::EventFd;

pub const PORT: u16 = 0x3f8;
const LINE: u32 = 4;
/// How long what the guest has no room for waits.
const PAUSE: Duration = Duration::from_millis(2);

/// The port's interrupt line.
pub struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The port. Any processor may use it.
#[derive(Clone)]
pub struct Port(Arc<Mutex<Serial<Line, NoEvents, Stdout>>>);

impl Port {
    /// The port, with its line at the machine's interrupt controller.
    pub fn new(vm: &VmFd) -> Result<Self> {
        let event = EventFd::new(0).context("no event")?;
        vm.register_irqfd(&event, LINE).context("KVM does not take the console's line")?;
        Ok(Self(Arc::new(Mutex::new(Serial::new(Line(event), io::stdout())))))
    }

    fn with<R>(&self, work: impl FnOnce(&mut Serial<Line, NoEvents, Stdout>) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn read(&self, offset: u8) -> u8 {
        self.with(|serial| serial.read(offset))
    }

    pub fn write(&self, offset: u8, value: u8) {
        // A console that nobody listens to any more is no reason to stop the machine.
        let _ = self.with(|serial| serial.write(offset, value));
    }

    /// Hands standard input on, from a thread of its own.
    pub fn listen(&self) {
        let port = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok(len @ 1..) = io::stdin().read(&mut buffer) {
                let mut rest = &buffer[..len];
                while !rest.is_empty() {
                    let taken = port.with(|serial| {
                        let room = serial.fifo_capacity().min(rest.len());
                        serial.enqueue_raw_bytes(&rest[..room]).unwrap_or(0)
                    });
                    rest = &rest[taken..];
                    if taken == 0 {
                        thread::sleep(PAUSE);
                    }
                }
            }
        });
    }
}
