//! Disks of other domains, where this is a domain of Xen. Task context.

use alloc::sync::Arc;

use undercroft_hal::Task;
use undercroft_hal::xen::Domain;
use undercroft_xen::blk::{self, Config, XenDisk};
use undercroft_xen::store::{ConnectError, Store};

use crate::report::Report;

/// Xen's interface in use, for as long as the image runs.
#[derive(Debug)]
pub struct Xen {
    domain: Arc<Domain>,
    store: Arc<Store>,
}

impl Xen {
    /// Connects to the domain's xenstore.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub fn new(cx: &Task, domain: Domain) -> Result<Self, ConnectError> {
        let domain = Arc::new(domain);
        Ok(Self { store: Store::connect(cx, &domain)?, domain })
    }

    /// Connects every disk that the tool stack has given this domain.
    pub(crate) fn disks(&self, cx: &Task, report: &Report, mut found: impl FnMut(Arc<XenDisk>)) {
        let numbers = match blk::find(cx, &self.store) {
            Ok(numbers) => numbers,
            Err(error) => return report.problem(&error, None),
        };
        for number in numbers {
            match XenDisk::connect(cx, &self.domain, &self.store, &number, Config::default()) {
                Ok(Some(disk)) => found(disk),
                Ok(None) => report.text(format_args!("device/vbd/{number} is no disk: left alone")),
                Err(error) => report.problem(&format_args!("device/vbd/{number}: {error}"), None),
            }
        }
    }
}
