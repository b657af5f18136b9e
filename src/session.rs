//! A guest from its first boot to its end: the console around it, resets, and what is said about
//! it afterwards.

use crate::boot_protocol::{Start, explain_bios};
use crate::cli::{Engine, MachineArgs, MediaArgs, Serial};
use crate::console::{Console, Copy};
use crate::display::{self, Display};
use ::display::Source;
use anyhow::{Context, Result};
use machine::{Config, EngineKind, Machine, StopReason, VgaDevice};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What to run, and how.
pub(crate) struct Session<'a> {
    /// Without one, firmware boots from the drives.
    pub(crate) kernel: Option<Start>,
    pub(crate) media: &'a MediaArgs,
    pub(crate) machine: &'a MachineArgs,
    pub(crate) serial: Serial,
    pub(crate) no_reboot: bool,
    /// Where a copy of the guest's output goes.
    pub(crate) copy: Option<Copy>,
}

impl Session<'_> {
    /// Runs the guest, again after each reset, until something else ends it. A signal that asked
    /// the process to end is carried out here.
    pub(crate) fn run(self) -> Result<StopReason> {
        let engine = engine(self.machine.engine);
        // A time that the host's clock cannot count to never passes.
        let deadline = self.machine.timeout.and_then(|time| Instant::now().checked_add(time));
        let media = match &self.kernel {
            Some(kernel) if kernel.by_bios => explain_bios(self.media.open(true))?,
            Some(_) => self.media.open(false)?,
            None => self.media.open(true)?,
        };
        let direct = self.kernel.as_ref().is_some_and(|kernel| !kernel.by_bios);
        let display = &self.media.display;
        let source = Source::default();
        let _server = match display {
            Display::Vnc(address) => {
                Some(display::serve(address, self.media.vnc_anywhere, source.clone())?)
            }
            Display::None | Display::Text => None,
        };
        let screen = (*display == Display::Text).then(|| source.clone());
        let console = Console::open(&self.serial, self.copy, screen)?;
        let reason = loop {
            let config = Config {
                memory: self.machine.memory,
                cpus: self.machine.cpus,
                cpu: self.machine.cpu.clone(),
                engine,
                kernel: self.kernel.as_ref().map(|k| k.kernel.clone()).unwrap_or_default(),
                serial_output: console.line(),
                // An expired deadline stops the next machine at once.
                timeout: deadline
                    .map(|at| at.saturating_duration_since(Instant::now()).max(Duration::ZERO)),
                count: self.machine.stats,
            };
            let mut machine = if direct {
                Machine::with_peripherals(config, media.peripherals())?
            } else {
                Machine::with_firmware(config, media.firmware())?
            };
            if let Some(refusal) = machine.refusal() {
                eprintln!(
                    "ringshift: warning: {refusal}; guest code is interpreted, many times slower"
                );
            }
            let display = machine.display();
            let control = machine.control();
            let power_button = Arc::new(move || control.press_power_button());
            source.attach(display.clone(), machine.keyboard(), power_button);
            console.attach(&machine);
            if self.machine.strict {
                machine.set_strict();
            }
            let outcome = machine.run()?;
            console.drain();
            if let Some(stale) = &outcome.stale {
                eprint!("{stale}");
            }
            if self.machine.stats {
                eprint!("{}", outcome.stats);
            }
            if let (Some(path), Some(display)) = (&self.media.screenshot, display) {
                screenshot(path, &display)?;
            }
            match outcome.reason {
                StopReason::Reset if !self.no_reboot => {}
                reason => break reason,
            }
        };
        // Finishes and flushes what the guest wrote, before a signal may end the process.
        drop(media);
        console.close().context("standard output")?;
        Ok(reason)
    }
}

/// Writes what the screen shows to a PNG file.
fn screenshot(path: &Path, display: &Mutex<VgaDevice>) -> Result<()> {
    let frame = display.lock().unwrap_or_else(PoisonError::into_inner).vga().frame();
    let name = || format!("screenshot {}", path.display());
    let file = std::fs::File::create(path).with_context(name)?;
    frame.write_png(std::io::BufWriter::new(file)).with_context(name)
}

fn engine(engine: Engine) -> EngineKind {
    match engine {
        Engine::Interp => EngineKind::Interp,
        Engine::Jit => EngineKind::Jit,
    }
}

/// Says on standard error why the guest ended, where the guest cannot have said it itself.
pub(crate) fn report(reason: &StopReason) {
    match reason {
        StopReason::TripleFault(words) => eprint!("ringshift: {words}"),
        StopReason::Timeout => eprintln!("ringshift: the timeout passed"),
        StopReason::PowerOff | StopReason::Reset | StopReason::DebugExit(_) | StopReason::Quit => {}
    }
}
