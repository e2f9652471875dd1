//! [`Guard`]: the connection, as long as anybody needs it.

use alloc::sync::Arc;

use undercroft_hal::Task;
use undercroft_hal::hyperv::MESSAGES_CPU;
use undercroft_hal::work::{TaskWork, Turn};

use super::Core;

/// Keeps a bus connected. Dropping the last (task or bottom-half context) unloads the bus and gives the hypervisor's interface back, from
/// the run queue.
pub(crate) struct Guard {
    core: Arc<Core>,
    farewell: Option<TaskWork>,
}

impl Guard {
    pub(crate) fn new(core: Arc<Core>) -> Arc<Self> {
        let owned = Arc::clone(&core);
        let farewell = TaskWork::new(MESSAGES_CPU, move |cx: &Task| {
            owned.leave(cx);
            Turn::Done
        });
        Arc::new(Self { core, farewell: Some(farewell) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(farewell) = self.farewell.take() else { return };
        farewell.schedule();
        farewell.detach();
    }
}

impl Core {
    /// Unloads the bus and stops the interface. `false`: what the host does not let go of stays allocated.
    pub(crate) fn leave(&self, cx: &Task) -> bool {
        self.unload(cx) && self.partition.stop(cx)
    }
}
