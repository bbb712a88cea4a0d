//! The runtime of what goes on beside the requests and the paid calls: the admin listener, the watcher and the
//! reload. Its one thread may be slow, and delays nobody there.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

/// See the module's page. What still runs in it when it is dropped is cut off.
pub(super) struct Chores {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
    handle: Handle,
}

impl Chores {
    /// Starts its thread.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("chores").enable_all().build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Where its tasks are spawned.
    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Chores {
    /// In the background, because another runtime's task may not wait for it.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
