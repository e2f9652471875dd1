//! Coming together with the other end, by xenstore. Task context.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use undercroft_hal::xen::{Domain, DomainId};
use undercroft_hal::{Task, cpu};

use super::error::ConnectError;
use super::pool::{Granted, MOST_PAGES};
use super::ring::Ring;
use super::shape::Told;
use crate::bus::{Backend, State};
use crate::store::{Store, StoreError, Transaction};

/// How long the other end may take for each of its steps: it may be a process that is only being started.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pages of a ring at most, as a power of two: 512 requests.
const MOST_ORDER: u32 = 4;

/// What of a device lies in xenstore before it is connected.
pub(crate) struct Device {
    /// Our end's place.
    pub(crate) path: String,
    pub(crate) backend_path: String,
    pub(crate) backend: DomainId,
    /// The number by which the protocol calls it.
    pub(crate) handle: u16,
    /// As people call it.
    pub(crate) name: String,
    pub(crate) is_disk: bool,
}

/// Names the path in an error.
pub(crate) fn at<T>(path: &str, result: Result<T, StoreError>) -> Result<T, ConnectError> {
    result.map_err(|error| ConnectError::Store(path.into(), error))
}

/// Reads what is known of device `number`.
pub(crate) fn device(cx: &Task, store: &Store, number: &str) -> Result<Device, ConnectError> {
    let path = format!("device/vbd/{number}");
    let text = |name: &str| {
        let path = format!("{path}/{name}");
        at(&path, store.read_text(cx, Transaction::NONE, &path))
    };
    let count = |name: &str| {
        let path = format!("{path}/{name}");
        at(&path, store.read_number(cx, Transaction::NONE, &path))
    };
    let backend = match count("backend-id") {
        Err(ConnectError::Store(_, StoreError::NotFound)) => return Err(ConnectError::Leaving),
        other => other?,
    };
    let device = count("virtual-device").or_else(|_| number.parse().map_err(|_| ConnectError::Bad("its number", 0)))?;
    let backend_path = text("backend")?;
    if !cx.block_on(is_online(store, &backend_path))? {
        return Err(ConnectError::Leaving);
    }
    Ok(Device {
        backend_path,
        backend: DomainId(u16::try_from(backend).map_err(|_| ConnectError::Bad("its domain", backend))?),
        // Numbers of more than 16 bits are cut: there is one device to a ring, and nobody looks.
        handle: device as u16,
        name: name(device),
        is_disk: text("device-type").is_ok_and(|kind| kind == "disk"),
        path,
    })
}

/// Whether the tool stack wants the device to be there.
pub(crate) async fn is_online(store: &Store, backend: &str) -> Result<bool, ConnectError> {
    let path = format!("{backend}/online");
    Ok(at(&path, store.number_or(&path, 1).await)? != 0)
}

/// The name of a device by its number (`docs/man/xen-vbd-interface.7`).
fn name(number: u64) -> String {
    const EXTENDED: u64 = 1 << 28;
    let letters = |mut index: u64| {
        let mut name = String::new();
        loop {
            name.insert(0, char::from(b'a' + (index % 26) as u8));
            if index < 26 {
                return name;
            }
            index = index / 26 - 1;
        }
    };
    let with_partition = |prefix: &str, disk: u64, partition: u64| match partition {
        0 => format!("{prefix}{}", letters(disk)),
        _ => format!("{prefix}{}{partition}", letters(disk)),
    };
    match (number & EXTENDED != 0, number >> 8) {
        (true, _) => with_partition("xvd", (number & !EXTENDED) >> 8, number & 0xFF),
        (false, 202) => with_partition("xvd", number >> 4 & 0xF, number & 0xF),
        (false, 3) => with_partition("hd", number >> 6 & 3, number & 0x3F),
        (false, 22) => with_partition("hd", 2 + (number >> 6 & 3), number & 0x3F),
        (false, 8) => with_partition("sd", number >> 4 & 0xF, number & 0xF),
        _ => format!("vbd{number}"),
    }
}

/// Waits for the other end to be ready for our rings, or until `is_over`.
pub(crate) async fn wait_ready(backend: &Backend, is_over: impl Fn() -> bool) -> Result<(), ConnectError> {
    let ready = [State::INIT_WAIT, State::INITIALISED, State::CONNECTED];
    let state = at(&backend.path, backend.wait_for(&ready, PATIENCE, is_over).await)?;
    if ready.contains(&state) { Ok(()) } else { Err(ConnectError::Gone(state.0)) }
}

/// What this end asks for, as far as the other can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Rings; no more than processors.
    pub queues: u16,
    /// Pages of a ring, as a power of two, 4 at most: 32 requests in the first page, 512 in sixteen.
    pub ring_order: u32,
}

impl Default for Config {
    /// A ring for each processor, each of two pages: 64 requests. Linux's backend sets memory aside for each that could be.
    fn default() -> Self {
        Self { queues: u16::MAX, ring_order: 1 }
    }
}

/// How many rings, and how large: what both ends can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) queues: u16,
    pub(crate) order: u32,
}

/// Reads what the other end can do before it knows of us, and takes of that what we want: as many queues as `cpus` at most.
pub(crate) async fn agree(
    store: &Store,
    backend: &str,
    (config, cpus): (Config, usize),
) -> Result<Agreed, ConnectError> {
    let path = format!("{backend}/multi-queue-max-queues");
    let most = cpus.min(usize::from(config.queues)).clamp(1, 64) as u64;
    let queues = at(&path, store.number_or(&path, 1).await)?.clamp(1, most);
    let path = format!("{backend}/max-ring-page-order");
    let order = at(&path, store.number_or(&path, 0).await)?.min(u64::from(config.ring_order.min(MOST_ORDER)));
    Ok(Agreed { queues: queues as u16, order: order as u32 })
}

/// Makes a ring of `1 << order` pages that the other end may reach. Returns it with the pages' references.
pub(crate) fn new_ring(
    cx: &Task,
    domain: &Arc<Domain>,
    other: DomainId,
    order: u32,
) -> Result<(Ring<Granted>, Vec<u32>), ConnectError> {
    let memory = Granted::new(Some(cx), domain, other, 1 << order)?;
    let references = memory.references().collect();
    Ok((Ring::new(memory), references))
}

/// Makes the pages for the data of one queue: as many as all its entries can use, within bounds.
pub(crate) fn new_pool(
    cx: &Task,
    domain: &Arc<Domain>,
    other: DomainId,
    entries: u32,
) -> Result<Vec<Granted>, ConnectError> {
    /// 2 MiB.
    const MOST: usize = 512;
    let wanted = (entries as usize * MOST_PAGES).clamp(MOST_PAGES, MOST);
    (0..wanted).map(|_| Granted::new(Some(cx), domain, other, 1)).collect()
}

/// Tells the other end of our rings, each by its references and its event channel. It looks when the state changes, which comes last.
pub(crate) async fn tell(
    store: &Store,
    device: &str,
    rings: &[(Vec<u32>, u32)],
    agreed: Agreed,
) -> Result<(), ConnectError> {
    let mut values: Vec<(String, String)> = Vec::new();
    let mut add = |name: String, value: u64| values.push((name, value.to_string()));
    for (index, (references, port)) in rings.iter().enumerate() {
        // One queue's are where there was one only.
        let place = if rings.len() == 1 { String::new() } else { format!("queue-{index}/") };
        match references.as_slice() {
            [one] => add(format!("{place}ring-ref"), u64::from(*one)),
            several => {
                for (at, reference) in several.iter().enumerate() {
                    add(format!("{place}ring-ref{at}"), u64::from(*reference));
                }
            }
        }
        add(format!("{place}event-channel"), u64::from(*port));
    }
    if rings.len() > 1 {
        add("multi-queue-num-queues".into(), rings.len() as u64);
    }
    if agreed.order > 0 {
        add("ring-page-order".into(), u64::from(agreed.order));
    }
    // Our grants outlive requests: a host that keeps them mapped saves itself work.
    add("feature-persistent".into(), 1);
    values.push(("protocol".into(), "x86_64-abi".into()));
    for (name, value) in values {
        let path = format!("{device}/{name}");
        at(&path, store.set(&path, &value).await)?;
    }
    set_state(store, device, State::INITIALISED).await
}

/// Waits until the other end has taken our rings, and reads what it then says of the disk.
pub(crate) async fn wait_connected(
    store: &Store,
    backend: &Backend,
    is_over: impl Fn() -> bool,
) -> Result<Told, ConnectError> {
    // On the way there it may be in any state but those of the end.
    let wanted = [State::CONNECTED, State::CLOSING, State::CLOSED];
    let state = at(&backend.path, backend.wait_for(&wanted, PATIENCE, is_over).await)?;
    if state != State::CONNECTED {
        return Err(ConnectError::Gone(state.0));
    }
    told(store, &backend.path).await
}

/// Reads what a connected end says of the disk.
async fn told(store: &Store, backend: &str) -> Result<Told, ConnectError> {
    let number = async |name: &str, otherwise: Option<u64>| {
        let path = format!("{backend}/{name}");
        let result = match otherwise {
            Some(otherwise) => store.number_or(&path, otherwise).await,
            None => store.number(&path).await,
        };
        at(&path, result)
    };
    let sector_size = number("sector-size", Some(512)).await?;
    Ok(Told {
        sectors: number("sectors", None).await?,
        sector_size,
        physical_sector_size: number("physical-sector-size", Some(sector_size)).await?,
        info: number("info", Some(0)).await?,
        flush: number("feature-flush-cache", Some(0)).await? != 0,
        barrier: number("feature-barrier", Some(0)).await? != 0,
        discard: number("feature-discard", Some(0)).await? != 0,
        indirect_segments: number("feature-max-indirect-segments", Some(0)).await?,
    })
}

/// Says what state our end is in.
pub(crate) async fn set_state(store: &Store, device: &str, state: State) -> Result<(), ConnectError> {
    let path = format!("{device}/state");
    at(&path, store.set(&path, &state.0.to_string()).await)
}

/// Which queue the calling CPU uses.
pub(crate) fn queue_here(queues: usize) -> usize {
    cpu::current() % queues.max(1)
}

/// Ends the connection from our side. Returns the state that the other end is in then, which has let go if that is CLOSED, or UNKNOWN: it is
/// gone altogether.
pub(crate) async fn part(
    store: &Store,
    device: &str,
    backend: &Backend,
    is_over: impl Fn() -> bool,
) -> Result<State, ConnectError> {
    let gone = [State::CLOSED, State::UNKNOWN, State::INITIALISING];
    // The other end follows: first it wants to end, and when we have ended, it lets go and has ended, too.
    set_state(store, device, State::CLOSING).await?;
    let going = [State::CLOSING, State::CLOSED, State::UNKNOWN, State::INITIALISING];
    let state = at(&backend.path, backend.wait_for(&going, PATIENCE, &is_over).await)?;
    if !going.contains(&state) {
        return Ok(state);
    }
    set_state(store, device, State::CLOSED).await?;
    at(&backend.path, backend.wait_for(&gone, PATIENCE, is_over).await)
}

/// Whether an end in this state has let go of everything.
pub(crate) fn has_let_go(state: State) -> bool {
    [State::CLOSED, State::UNKNOWN, State::INITIALISING].contains(&state)
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn devices_are_named_by_their_numbers() {
        for (number, text) in [
            (51712, "xvda"),
            (51728, "xvdb"),
            (51713, "xvda1"),
            (1 << 28 | 26 << 8, "xvdaa"),
            (1 << 28 | 701 << 8 | 3, "xvdzz3"),
            (768, "hda"),
            (5632, "hdc"),
            (2048, "sda"),
            (2064, "sdb"),
            (7, "vbd7"),
        ] {
            assert_eq!(name(number), text, "{number}");
        }
    }
}
