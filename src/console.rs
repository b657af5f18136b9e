//! The host's end of the first serial port: the terminal or a pipe, or a file.
//!
//! Threads: one reads standard input, one feeds the guest, one writes output, one waits for
//! signals. Lock order: a serial port's lock before any lock here, never the other way.

mod escape;
mod input;
mod output;
mod signals;

use crate::cli::Serial;
use crate::display;
use crate::terminal::RawTerminal;
use ::display::Source;
use anyhow::{Context, Result};
use escape::Action;
use input::Input;
use machine::{Control, Machine, StopReason};
pub(crate) use output::Copy;
use output::Output;
use signals::Signals;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const HELP: &str = "\
\r\nCtrl-A H  this help\
\r\nCtrl-A X  leave Ringshift\
\r\nCtrl-A S  time and memory used so far\
\r\nCtrl-A P  press the power button\
\r\nCtrl-A B  send a break (SysRq of a Linux console)\
\r\nCtrl-A Ctrl-A  send one Ctrl-A\r\n";

/// Locks, whatever happened to another thread that held the lock.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine that runs at the moment, if any; after a reset it is another one.
#[derive(Clone, Default)]
struct Current {
    control: Arc<Mutex<Option<Arc<Control>>>>,
    /// The user has left: a machine that comes later is stopped too.
    left: Arc<AtomicBool>,
}

impl Current {
    /// Stops the machine for the user. Returns false if there is none.
    fn quit(&self) -> bool {
        self.left.store(true, Ordering::SeqCst);
        let control = lock(&self.control).clone();
        control.inspect(|control| control.stop(StopReason::Quit)).is_some()
    }

    fn press_power_button(&self) {
        if let Some(control) = lock(&self.control).clone() {
            control.press_power_button();
        }
    }

    fn is_stopping(&self) -> bool {
        lock(&self.control).as_ref().is_some_and(|control| control.is_stopping())
    }
}

/// The console of a session.
pub(crate) struct Console {
    current: Current,
    input: Option<Arc<Input>>,
    output: Option<Output>,
    copy: Option<Copy>,
    signals: Signals,
    /// Restores the terminal when the console is dropped.
    terminal: Option<RawTerminal>,
}

impl Console {
    /// Opens the host's end of the line.
    ///
    /// # Errors
    /// The file's, or the terminal's.
    ///
    /// With `screen`, the terminal shows that, not the line.
    pub(crate) fn open(
        serial: &Serial,
        copy: Option<Copy>,
        screen: Option<Source>,
    ) -> Result<Console> {
        let current = Current::default();
        let sink = match serial {
            Serial::Stdio => Some(File::from(io::stdout().as_fd().try_clone_to_owned()?)),
            Serial::None => None,
            Serial::File(path) => Some(
                File::create(path).with_context(|| format!("serial output {}", path.display()))?,
            ),
        };
        let output = sink.map(|sink| Output::start(sink, current.clone())).transpose()?;
        let terminal = match serial {
            Serial::Stdio if screen.is_none() => RawTerminal::enter().context("terminal")?,
            Serial::None | Serial::File(_) if screen.is_some() => {
                let terminal = RawTerminal::enter_screen().context("terminal")?;
                Some(terminal.context("--display text needs a terminal")?)
            }
            Serial::Stdio | Serial::None | Serial::File(_) => None,
        };
        let signals = Signals::watch(current.clone(), terminal.as_ref().map(|t| t.restorer()))?;
        if let (Some(source), Some(terminal)) = (screen, &terminal) {
            let current = current.clone();
            let quit = move || {
                current.quit();
            };
            display::show_text(source, terminal.restorer(), quit).context("text display")?;
        }
        let input = match serial {
            Serial::Stdio => Some(Input::start()?),
            Serial::None | Serial::File(_) => None,
        };
        if let Some(input) = &input {
            let feed = input.clone();
            let act = Actor { current: current.clone(), start: Instant::now() };
            let escapes = terminal.is_some();
            input::read_standard_input(feed, escapes, move |action| act.carry_out(action))?;
        }
        Ok(Console { current, input, output, copy, signals, terminal })
    }

    /// Where a machine's serial port writes.
    pub(crate) fn line(&self) -> Box<dyn Write + Send> {
        let line: Box<dyn Write + Send> = match &self.output {
            Some(output) => Box::new(output.line()),
            None => Box::new(io::sink()),
        };
        match &self.copy {
            Some(copy) => Box::new(output::Tee(line, copy.clone())),
            None => line,
        }
    }

    /// Makes `machine` the one that the console talks to.
    pub(crate) fn attach(&self, machine: &Machine) {
        *lock(&self.current.control) = Some(machine.control());
        if let Some(input) = &self.input {
            input.attach(machine.serial());
        }
        // A signal, or a key, may have come while there was nothing to stop.
        if self.signals.caught().is_some() || self.current.left.load(Ordering::SeqCst) {
            self.current.quit();
        }
    }

    /// Waits until what the guest wrote is out, within reason.
    pub(crate) fn drain(&self) {
        if let Some(output) = &self.output {
            output.drain();
        }
    }

    /// Restores the terminal, and carries out the signal that ended the guest, if it was one.
    ///
    /// # Errors
    /// Why output could not be written.
    pub(crate) fn close(mut self) -> io::Result<()> {
        self.drain();
        self.terminal = None;
        self.signals.carry_out();
        match self.output.as_ref().and_then(Output::error) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

/// Carries out what the user asks of Ringshift itself.
struct Actor {
    current: Current,
    start: Instant,
}

impl Actor {
    fn carry_out(&self, action: Action) {
        match action {
            Action::Quit => {
                self.current.quit();
            }
            Action::Help => eprint!("{HELP}"),
            Action::PowerButton => self.current.press_power_button(),
            Action::Stats => eprint!("\r\n{}\r\n", usage(self.start)),
        }
    }
}

/// Time and memory of this process so far.
fn usage(start: Instant) -> String {
    let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident: u64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    format!(
        "{:.1} s of wall time, {cpu:.1} s of CPU time, {} MiB of memory",
        start.elapsed().as_secs_f64(),
        resident / 1024
    )
}
