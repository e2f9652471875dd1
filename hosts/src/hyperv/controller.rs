//! A storage device on the bus: what is behind its channels.

use std::collections::BTreeMap;

use super::consts::guid;
use super::stor::Init;
use crate::scsi::Target;

/// A SCSI controller, or a disk of an IDE controller's that is reached past it.
#[derive(Debug)]
pub struct Controller {
    /// The targets, by number.
    pub targets: BTreeMap<u8, Target>,
    /// The instance's GUID, as it lies in memory.
    pub instance: [u8; 16],
    /// Channel and device, for an IDE disk.
    pub(super) ide: Option<(u8, u8)>,
    pub(super) init: Init,
    pub(super) version: u16,
    /// Not offered: it was taken out.
    pub(super) gone: bool,
}

impl Controller {
    /// A SCSI controller with one target, number 0. `number` makes its GUID.
    pub fn scsi(number: u8, target: Target) -> Self {
        let mut instance = *b"\0\0undercroft-hv\0";
        instance[0] = number;
        Self { targets: [(0, target)].into(), instance, ide: None, init: Init::default(), version: 0, gone: false }
    }

    /// The disk `device` (0 or 1) of IDE channel `channel` (0 or 1), by its accelerated path.
    pub fn ide(channel: u8, device: u8, target: Target) -> Self {
        let mut controller = Self::scsi(channel * 2 + device, target);
        // The instance's first two numbers say which disk it is.
        controller.instance[..8].copy_from_slice(&[channel, 0, 0, 0, device, 0, 0, 0]);
        controller.ide = Some((channel, device));
        controller
    }

    /// The vstor version that was agreed; 0 before.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Whether initialisation has ended.
    pub fn is_ready(&self) -> bool {
        self.init == Init::Ready
    }

    pub(super) fn interface(&self) -> [u8; 16] {
        if self.ide.is_some() { guid::IDE } else { guid::SCSI }
    }

    /// What an offer says about it to the driver.
    pub(super) fn user_bytes(&self) -> [u8; 120] {
        let mut bytes = [0; 120];
        if let Some((channel, device)) = self.ide {
            (bytes[2], bytes[3], bytes[8]) = (channel, device, 2);
        }
        bytes
    }

    /// As if nobody had used it.
    pub(super) fn reset(&mut self) {
        self.init = Init::default();
        self.version = 0;
    }
}
