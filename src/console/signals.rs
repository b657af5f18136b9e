//! Signals that ask the process to end: the guest is stopped and the terminal restored first.

use super::Current;
use crate::terminal::Restorer;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Incoming};
use signal_hook::low_level::emulate_default_handler;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// The watch on signals, until dropped.
pub(crate) struct Signals {
    handle: Handle,
    /// The first signal, 0 for none.
    caught: Arc<AtomicI32>,
}

impl Signals {
    /// Starts the thread that waits. The first signal stops the machine; the second, or one with no
    /// machine to stop, ends the process at once.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn watch(current: Current, restorer: Option<Restorer>) -> io::Result<Signals> {
        let mut incoming = Incoming::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
        let handle = incoming.handle();
        let caught = Arc::new(AtomicI32::new(0));
        let first = caught.clone();
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in incoming.forever() {
                let is_first =
                    first.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
                if !is_first || !current.quit() {
                    if let Some(restorer) = &restorer {
                        restorer.restore();
                    }
                    let _ = emulate_default_handler(signal);
                }
            }
        })?;
        Ok(Signals { handle, caught })
    }

    /// The first signal that came.
    pub(crate) fn caught(&self) -> Option<i32> {
        Some(self.caught.load(Ordering::SeqCst)).filter(|&signal| signal != 0)
    }

    /// Ends the process by the signal that came, if one did, so that its parent sees it.
    pub(crate) fn carry_out(&self) {
        if let Some(signal) = self.caught() {
            let _ = emulate_default_handler(signal);
        }
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}
