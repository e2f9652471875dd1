//! The random number device, through the `virtio-drivers` crate: the proof that other drivers of that crate work on this platform. Task
//! context.

use core::fmt;

use undercroft_hal::virtio_hal::VirtioHal;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::Transport;

use crate::json::{Object, Value};
use crate::report::Report;

const BYTES: usize = 32;

/// How many bytes came, and the first of them.
struct Detail<'a>(&'a [u8]);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} random bytes: ", self.0.len())?;
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("...")
    }
}

/// Takes random bytes from a device and reports them.
pub(crate) fn try_out<T: Transport, E: fmt::Display>(transport: Result<T, E>, place: &str, report: &Report) {
    let problem = |what: &dyn fmt::Display| report.problem(&format_args!("{place}: virtio-rng: {what}"), None);
    let transport = match transport {
        Ok(transport) => transport,
        Err(error) => return problem(&error),
    };
    let mut device = match VirtIORng::<VirtioHal, T>::new(transport) {
        Ok(device) => device,
        Err(error) => return problem(&error),
    };
    let mut bytes = [0u8; BYTES];
    let count = match device.request_entropy(&mut bytes) {
        // The device says how many it wrote; anything may be in that.
        Ok(count) => count.min(BYTES),
        Err(error) => return problem(&error),
    };
    let got = &bytes[..count];
    if count == 0 || got.iter().all(|byte| *byte == 0) {
        return problem(&"no random bytes");
    }
    if report.is_json() {
        report.json(&Object {
            event: Some("device"),
            fields: &[
                ("driver", Value::Text(&"virtio-rng")),
                ("controller", Value::Text(&place)),
                ("detail", Value::Text(&Detail(got))),
            ],
        });
    } else {
        report.text(format_args!("virtio-rng at {place}: {}", Detail(got)));
    }
}
