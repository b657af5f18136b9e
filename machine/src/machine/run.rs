//! Running a machine: its threads, and its time limit.

use super::{Machine, MachineError, Outcome};
use crate::control::{Control, StopReason};
use crate::stats::Stats;
use std::sync::Arc;
use std::time::Instant;

impl Machine {
    /// Runs to the end.
    ///
    /// # Errors
    /// [`MachineError::Thread`] when the host gives no threads.
    pub fn run(mut self) -> Result<Outcome, MachineError> {
        let start = Instant::now();
        let timers = self.timers.clone();
        let control = self.control.clone();
        let timeout = self.timeout;
        std::thread::scope(|scope| {
            let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| {
                std::thread::Builder::new()
                    .name(name.into())
                    .spawn(body)
                    .map_err(MachineError::Thread)
            };
            let timer_thread = {
                let timers = timers.clone();
                spawn("timers", Box::new(move || timers.run()))?
            };
            let watchdog = timeout.map(|limit| Watchdog::start(control.clone(), limit));
            let mut started = Ok(());
            if let Some((boot, others)) = self.vcpus.split_first_mut() {
                for vcpu in others {
                    let name = format!("vcpu{}", vcpu.index());
                    let thread = std::thread::Builder::new().name(name);
                    if let Err(error) = thread.spawn_scoped(scope, move || vcpu.run()) {
                        // The threads started so far end, and the scope waits for them.
                        control.stop(StopReason::Quit);
                        started = Err(MachineError::Thread(error));
                        break;
                    }
                }
                boot.run();
            }
            drop(watchdog);
            timers.stop();
            let _ = timer_thread.join();
            started
        })?;
        let reason = control.reason().unwrap_or(StopReason::Quit);
        let stats = Stats::collect(&self.vcpus, &self.ram, start.elapsed());
        let stale = self.stale_uses();
        Ok(Outcome { reason, stats, stale })
    }
}

/// Stops the machine when its time is over, unless dropped before.
struct Watchdog {
    cancel: std::sync::mpsc::Sender<()>,
}

impl Watchdog {
    fn start(control: Arc<Control>, limit: std::time::Duration) -> Watchdog {
        let (cancel, cancelled) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            if let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = cancelled.recv_timeout(limit) {
                control.stop(StopReason::Timeout);
            }
        });
        Watchdog { cancel }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let _ = self.cancel.send(());
    }
}
