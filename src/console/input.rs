//! Standard input to the guest's serial port.
//!
//! One thread reads, so that Ctrl-A works while the guest does not listen; another feeds, at the
//! guest's pace.

use super::escape::{Action, Escape, Key};
use super::lock;
use machine::Serial;
use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex};

/// Bytes that wait for the guest before reading pauses.
const QUEUE_LIMIT: usize = 64 << 10;
/// A 16550A's FIFO: more is never taken at once.
const BURST: usize = 16;

/// What goes down the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Byte(u8),
    Break,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Signal>,
    port: Option<Arc<Mutex<Serial>>>,
    /// The port may have room: set by the port, cleared before each attempt.
    room: bool,
}

/// The queue between the two threads.
#[derive(Default)]
pub(crate) struct Input {
    state: Mutex<State>,
    changed: Condvar,
}

impl Input {
    /// Starts the thread that feeds.
    ///
    /// # Errors
    /// The host has no thread.
    pub(crate) fn start() -> io::Result<Arc<Input>> {
        let input = Arc::new(Input::default());
        let feeder = input.clone();
        std::thread::Builder::new().name("input".into()).spawn(move || feeder.feed())?;
        Ok(input)
    }

    /// Feeds this port from now on.
    pub(crate) fn attach(self: &Arc<Self>, port: Arc<Mutex<Serial>>) {
        // Weak, or port and queue would keep each other alive.
        let input = Arc::downgrade(self);
        lock(&port).on_input_ready(Box::new(move || {
            if let Some(input) = input.upgrade() {
                input.wake();
            }
        }));
        lock(&self.state).port = Some(port);
        self.wake();
    }

    fn wake(&self) {
        lock(&self.state).room = true;
        self.changed.notify_all();
    }

    /// Queues `signals`, as soon as there is room.
    fn push(&self, signals: &[Signal]) {
        let state = lock(&self.state);
        let mut state = self
            .changed
            .wait_while(state, |state| state.queue.len() >= QUEUE_LIMIT)
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state.queue.extend(signals);
        drop(state);
        self.changed.notify_all();
    }

    fn feed(&self) {
        loop {
            let mut state = self
                .changed
                .wait_while(lock(&self.state), |state| {
                    state.queue.is_empty() || state.port.is_none() || !state.room
                })
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            state.room = false;
            let Some(port) = state.port.clone() else { continue };
            let burst: Vec<Signal> = state.queue.iter().take(BURST).copied().collect();
            // The port's lock comes before this one.
            drop(state);
            let sent = send(&mut lock(&port), &burst);
            let mut state = lock(&self.state);
            state.queue.drain(..sent);
            // Only a full port calls when it has room.
            state.room |= sent == burst.len();
            drop(state);
            self.changed.notify_all();
        }
    }
}

/// Sends as much of `burst` as the port takes; returns how much that is.
fn send(port: &mut Serial, burst: &[Signal]) -> usize {
    let mut sent = 0;
    for signal in burst {
        match *signal {
            Signal::Byte(byte) if port.enqueue_input(&[byte]) == 1 => {}
            Signal::Break if port.input_room() > 0 => port.send_break(),
            Signal::Byte(_) | Signal::Break => break,
        }
        sent += 1;
    }
    sent
}

/// Starts the thread that reads standard input, to its end. Where `escapes` is set, Ctrl-A speaks
/// to `act`.
///
/// # Errors
/// The host has no thread.
pub(crate) fn read_standard_input(
    input: Arc<Input>,
    escapes: bool,
    act: impl Fn(Action) + Send + 'static,
) -> io::Result<()> {
    let body = move || {
        let mut escape = Escape::default();
        let mut buffer = [0; 4096];
        loop {
            // The end of input does not end the guest.
            let read = match io::stdin().lock().read(&mut buffer) {
                Ok(0) => return,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return,
            };
            let mut signals = Vec::with_capacity(read);
            for &byte in &buffer[..read] {
                let key = if escapes { escape.key(byte) } else { Some(Key::Byte(byte)) };
                match key {
                    Some(Key::Byte(byte)) => signals.push(Signal::Byte(byte)),
                    Some(Key::Break) => signals.push(Signal::Break),
                    Some(Key::Action(action)) => act(action),
                    None => {}
                }
            }
            input.push(&signals);
        }
    };
    std::thread::Builder::new().name("stdin".into()).spawn(body)?;
    Ok(())
}
