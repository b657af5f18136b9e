//! The guest's serial port to standard output or a file.
//!
//! A serial port hands over one byte at a time. A thread collects what comes within a few
//! milliseconds and writes it with one system call.

use super::{Current, lock};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How long a byte may wait for others to go with.
const GATHER: Duration = Duration::from_millis(2);
/// Bytes that may wait before the guest does.
const LIMIT: usize = 64 << 10;
/// How often a guest that waits for a slow reader looks whether it is to stop.
const STOP_CHECK: Duration = Duration::from_millis(20);
/// How long the end waits for a slow reader.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    writing: bool,
    error: Option<io::Error>,
    failed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    written: Condvar,
}

/// The thread that writes, and what waits for it.
pub(crate) struct Output {
    shared: Arc<Shared>,
    current: Current,
}

impl Output {
    /// Starts the thread. When `sink` fails, as a pipe does whose reader is gone, the machine is
    /// stopped: nobody is listening.
    ///
    /// # Errors
    /// The host has no thread.
    pub(crate) fn start(sink: File, current: Current) -> io::Result<Output> {
        let shared = Arc::<Shared>::default();
        let writer = (shared.clone(), current.clone());
        std::thread::Builder::new()
            .name("output".into())
            .spawn(move || write_all_that_comes(&writer.0, &writer.1, sink))?;
        Ok(Output { shared, current })
    }

    /// An end for a serial port to write to.
    pub(crate) fn line(&self) -> Line {
        Line { shared: self.shared.clone(), current: self.current.clone() }
    }

    /// Waits until all is written, at most two seconds.
    pub(crate) fn drain(&self) {
        let busy =
            |state: &mut State| !state.failed && (state.writing || !state.pending.is_empty());
        let _ = self.shared.written.wait_timeout_while(lock(&self.shared.state), DRAIN_LIMIT, busy);
    }

    /// Why writing failed, once.
    pub(crate) fn error(&self) -> Option<io::Error> {
        lock(&self.shared.state).error.take()
    }
}

fn write_all_that_comes(shared: &Shared, current: &Current, mut sink: File) {
    loop {
        let state = shared
            .filled
            .wait_while(lock(&shared.state), |state| state.pending.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        drop(state);
        std::thread::sleep(GATHER);
        let chunk = {
            let mut state = lock(&shared.state);
            state.writing = true;
            std::mem::take(&mut state.pending)
        };
        let result = sink.write_all(&chunk);
        let mut state = lock(&shared.state);
        state.writing = false;
        let failed = result.is_err();
        if let Err(error) = result {
            state.failed = true;
            state.error = Some(error);
            state.pending.clear();
        }
        drop(state);
        shared.written.notify_all();
        if failed {
            current.quit();
            return;
        }
    }
}

/// The serial port's end.
pub(crate) struct Line {
    shared: Arc<Shared>,
    current: Current,
}

impl Write for Line {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut state = lock(&self.shared.state);
        while state.pending.len() >= LIMIT && !state.failed {
            if self.current.is_stopping() {
                return Ok(data.len());
            }
            state = match self.shared.written.wait_timeout(state, STOP_CHECK) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        if state.failed {
            return Ok(data.len());
        }
        let was_empty = state.pending.is_empty();
        state.pending.extend_from_slice(data);
        drop(state);
        if was_empty {
            self.shared.filled.notify_one();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a guest wrote, kept.
#[derive(Clone, Default)]
pub(crate) struct Copy(Arc<Mutex<Vec<u8>>>);

impl Copy {
    /// All of it so far, as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.0)).into_owned()
    }
}

/// Writes to a line and to a copy.
pub(crate) struct Tee(pub(crate) Box<dyn Write + Send>, pub(crate) Copy);

impl Write for Tee {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        lock(&self.1.0).extend_from_slice(data);
        self.0.write_all(data)?;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
