//! The terminal in raw mode, and back however the process ends.

use rustix::stdio::{stdin, stdout};
use rustix::termios::{self, OptionalActions, OutputModes, Termios};
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Puts the terminal back as it was found, once; from any thread, as often as one likes.
#[derive(Clone)]
pub(crate) struct Restorer(Arc<Mutex<Option<Saved>>>);

/// The terminal as it was found.
struct Saved {
    modes: Termios,
    /// The alternate screen is to be left.
    screen: bool,
}

impl Restorer {
    /// Puts the terminal back.
    pub(crate) fn restore(&self) {
        let saved = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(saved) = saved {
            // Nobody to tell: the terminal is gone.
            if saved.screen {
                // Not by way of the standard library, whose lock a painter may hold.
                let _ = rustix::io::write(stdout(), display::text::LEAVE.as_bytes());
            }
            let _ = termios::tcsetattr(stdin(), OptionalActions::Drain, &saved.modes);
        }
    }

    /// Whether that was done.
    pub(crate) fn is_restored(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// Raw mode, for as long as it lives: every key goes to the guest, Ctrl-C too.
pub(crate) struct RawTerminal(Restorer);

impl RawTerminal {
    /// Puts the terminal at standard input into raw mode. `None` if there is none, or if it
    /// belongs to another job at the moment.
    ///
    /// Output processing stays on, so that a guest's bare line feeds, and this process's own
    /// messages, begin at the left.
    ///
    /// # Errors
    /// The terminal's.
    pub(crate) fn enter() -> io::Result<Option<RawTerminal>> {
        RawTerminal::enter_as(false)
    }

    /// As [`RawTerminal::enter`], and shows the alternate screen at standard output. `None` also if
    /// that is no terminal.
    ///
    /// # Errors
    /// The terminal's.
    pub(crate) fn enter_screen() -> io::Result<Option<RawTerminal>> {
        if !termios::isatty(stdout()) {
            return Ok(None);
        }
        RawTerminal::enter_as(true)
    }

    fn enter_as(screen: bool) -> io::Result<Option<RawTerminal>> {
        if !is_ours() {
            return Ok(None);
        }
        let saved = termios::tcgetattr(stdin())?;
        let mut raw = saved.clone();
        raw.make_raw();
        raw.output_modes = saved.output_modes | OutputModes::OPOST;
        let saved = Saved { modes: saved, screen };
        let restorer = Restorer(Arc::new(Mutex::new(Some(saved))));
        restore_before_panic_message(restorer.clone());
        let guard = RawTerminal(restorer);
        termios::tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        if screen {
            let mut output = io::stdout().lock();
            output.write_all(display::text::ENTER.as_bytes())?;
            output.flush()?;
        }
        Ok(Some(guard))
    }

    /// The way back, for others.
    pub(crate) fn restorer(&self) -> Restorer {
        self.0.clone()
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.0.restore();
    }
}

/// Whether standard input is a terminal with this process in its foreground. (A job in the
/// background would be stopped for touching it.)
fn is_ours() -> bool {
    termios::isatty(stdin())
        && match termios::tcgetpgrp(stdin()) {
            Ok(foreground) => foreground == rustix::process::getpgrp(),
            // Not the controlling terminal: there are no jobs on it.
            Err(_) => true,
        }
}

fn restore_before_panic_message(restorer: Restorer) {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restorer.restore();
        previous(info);
    }));
}
