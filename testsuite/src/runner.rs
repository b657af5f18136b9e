//! Runs a guest in this process, and keeps what it says.

use crate::screen::Screen;
use machine::guests::{self, initramfs::Initramfs};
use machine::{
    Config, Control, EngineKind, Firmware, Kernel, KernelModule, Machine, MachineError, Model,
    Peripherals, Stats, StopReason,
};
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a guest may take unless its test says otherwise, on a slow host that runs other tests
/// beside it.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A guest to be run.
#[must_use]
pub struct Guest {
    kernel: Kernel,
    /// Where it boots from, if not from the kernel alone.
    firmware: Option<Firmware>,
    /// Whether a kernel without firmware finds a VGA adapter.
    vga: bool,
    engine: EngineKind,
    memory: u64,
    cpus: u32,
    cpu: Model,
    timeout: Duration,
}

/// How a guest ended.
#[derive(Debug)]
pub struct End {
    /// Why.
    pub reason: StopReason,
    /// What it wrote to the first serial port, as text.
    pub output: String,
    /// Counters.
    pub stats: Stats,
}

impl Guest {
    /// A kernel image, with 64 MiB of memory. `name` is for messages.
    pub fn kernel(name: &str, image: Vec<u8>) -> Guest {
        let kernel = Kernel { image, name: name.into(), ..Kernel::default() };
        Guest {
            kernel,
            firmware: None,
            vga: false,
            engine: EngineKind::default(),
            memory: 64 << 20,
            cpus: 1,
            cpu: Model::default(),
            timeout: TIMEOUT,
        }
    }

    /// A PC that boots through firmware, with 64 MiB of memory.
    pub fn firmware(firmware: Firmware) -> Guest {
        Guest { firmware: Some(firmware), ..Guest::kernel("firmware", Vec::new()) }
    }

    /// Ringshift's own guest.
    pub fn embedded(image: &guest::Image) -> Guest {
        Guest::kernel("the embedded guest", image.bytes.clone())
    }

    /// A Debian kernel whose init runs the shell script `script` and powers off, with 256 MiB of
    /// memory. `None`, with the reason on standard error, where it cannot be had.
    pub fn debian(guest: guests::Guest, script: &str) -> Option<Guest> {
        Guest::linux(guest, |busybox| Initramfs::script(busybox, script).build())
    }

    /// As [`Guest::debian`], with programs in the initial RAM disk, by path and content.
    pub fn debian_with(
        guest: guests::Guest,
        script: &str,
        programs: &[(&str, &[u8])],
    ) -> Option<Guest> {
        Guest::linux(guest, |busybox| {
            let initramfs = Initramfs::script(busybox, script);
            programs
                .iter()
                .fold(initramfs, |initramfs, (path, content)| initramfs.file(path, 0o755, content))
                .build()
        })
    }

    /// A Debian kernel with a shell on its console, as [`Guest::debian`].
    pub fn debian_shell(guest: guests::Guest) -> Option<Guest> {
        Guest::linux(guest, |busybox| Initramfs::shell(busybox).build())
    }

    fn linux<E: std::fmt::Debug>(
        guest: guests::Guest,
        initramfs: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
    ) -> Option<Guest> {
        let files = match guests::available(guest) {
            Ok(files) => files,
            Err(skipped) => {
                eprintln!("{skipped}");
                return None;
            }
        };
        let read = |path| std::fs::read(path).expect("a fetched file is readable");
        let initrd = initramfs(&read(&files.busybox)).expect("the initramfs is well formed");
        let kernel = Kernel {
            image: read(&files.kernel),
            name: format!("{guest:?}"),
            initrd: Some(initrd),
            command_line: "console=ttyS0 panic=-1".into(),
            ..Kernel::default()
        };
        let engine = EngineKind::default();
        Some(Guest {
            kernel,
            firmware: None,
            vga: false,
            engine,
            memory: 256 << 20,
            cpus: 1,
            cpu: Model::default(),
            timeout: TIMEOUT,
        })
    }

    /// What executes its code; the translator if nothing is said.
    pub fn engine(mut self, engine: EngineKind) -> Guest {
        self.engine = engine;
        self
    }

    /// With this much memory, in bytes.
    pub fn memory(mut self, bytes: u64) -> Guest {
        self.memory = bytes;
        self
    }

    /// A kernel started by its 16-bit setup code, through SeaBIOS, which shows its screen on the first
    /// serial port too. `None`, with the reason on standard error, where there is no SeaBIOS.
    pub fn by_setup_code(mut self) -> Option<Guest> {
        let firmware = crate::media::seabios()?;
        self.firmware = Some(Firmware { serial_console: true, ..firmware });
        Some(self)
    }

    /// On this kind of processor.
    ///
    /// # Panics
    /// If there is no such model.
    pub fn cpu(mut self, model: &str) -> Guest {
        self.cpu = model.parse().expect("the model is known");
        self
    }

    /// With a VGA adapter, where firmware would not bring it anyway.
    pub fn vga(mut self) -> Guest {
        self.vga = true;
        self
    }

    /// With this initial RAM disk.
    pub fn initrd(mut self, content: Vec<u8>) -> Guest {
        self.kernel.initrd = Some(content);
        self
    }

    /// With a further Multiboot module: its content, and the string that goes with it.
    pub fn module(mut self, data: Vec<u8>, command_line: &str) -> Guest {
        self.kernel.modules.push(KernelModule { data, command_line: command_line.into() });
        self
    }

    /// With `words` at the end of the command line.
    pub fn append(mut self, words: &str) -> Guest {
        self.kernel.command_line =
            format!("{} {words}", self.kernel.command_line).trim_start().to_owned();
        self
    }

    /// On this many virtual CPUs instead of one.
    pub fn cpus(mut self, cpus: u32) -> Guest {
        self.cpus = cpus;
        self
    }

    /// Stopped after this time.
    pub fn timeout(mut self, timeout: Duration) -> Guest {
        self.timeout = timeout;
        self
    }

    /// Builds the machine, without running it.
    ///
    /// # Errors
    /// [`MachineError`], for tests that expect one.
    pub fn build(self) -> Result<Running, MachineError> {
        let output = Arc::new(Captured::default());
        let config = Config {
            memory: self.memory,
            cpus: self.cpus,
            cpu: self.cpu,
            engine: self.engine,
            kernel: self.kernel,
            serial_output: Box::new(Tap(output.clone())),
            timeout: Some(self.timeout),
            count: true,
        };
        let machine = match self.firmware {
            Some(firmware) => Machine::with_firmware(config, firmware)?,
            None if self.vga => {
                // The ROM has the font; texts can be read without.
                let rom = crate::media::seabios().and_then(|firmware| firmware.vga_bios);
                let vga_bios = Some(rom.unwrap_or_default());
                Machine::with_peripherals(config, Peripherals { vga_bios, ..Default::default() })?
            }
            None => Machine::new(config)?,
        };
        let (control, serial) = (machine.control(), machine.serial());
        let screen = Screen::new(machine.display(), machine.keyboard());
        let done = output.clone();
        let thread = std::thread::spawn(move || {
            let outcome = machine.run();
            done.finish();
            outcome
        });
        Ok(Running { output, control, serial, screen, thread, timeout: self.timeout, seen: 0 })
    }

    /// Starts the guest.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn start(self) -> Running {
        let name = self.kernel.name.clone();
        self.build().unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Runs the guest to its end.
    ///
    /// # Panics
    /// If it cannot be built.
    pub fn run(self) -> End {
        self.start().finish()
    }
}

/// A guest that is running. Dropped without [`Running::finish`], it is left to its timeout.
pub struct Running {
    output: Arc<Captured>,
    control: Arc<Control>,
    serial: Arc<Mutex<machine::Serial>>,
    screen: Screen,
    thread: JoinHandle<Result<machine::Outcome, MachineError>>,
    timeout: Duration,
    /// Bytes of output before which [`Running::wait_for`] does not look.
    seen: usize,
}

impl Running {
    /// Waits until the guest has written `text`, after what was waited for before.
    ///
    /// # Panics
    /// If it ends, or the timeout passes, without having done so.
    pub fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + self.timeout;
        let mut state = self.output.lock();
        loop {
            let rest = state.bytes.get(self.seen..).unwrap_or_default();
            if let Some(at) = rest.windows(text.len()).position(|part| part == text.as_bytes()) {
                self.seen += at + text.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let everything = String::from_utf8_lossy(&state.bytes).into_owned();
            assert!(!state.ended, "the guest ended before {text:?}; it wrote:\n{everything}");
            assert!(!left.is_zero(), "no {text:?} in time; the guest wrote:\n{everything}");
            state = self.output.wait(state, left);
        }
    }

    /// The text on the screen, lines from the top; empty where there is no text mode.
    pub fn screen(&self) -> String {
        self.screen.text()
    }

    /// Waits until the screen shows `text`.
    ///
    /// # Panics
    /// If the guest ends, or the timeout passes, without having shown it.
    pub fn wait_for_screen(&self, text: &str) {
        self.wait_for_any_screen(&[text]);
    }

    /// Waits until the screen shows one of `texts`; returns its index.
    ///
    /// # Panics
    /// If the guest ends, or the timeout passes, without having shown any.
    pub fn wait_for_any_screen(&self, texts: &[&str]) -> usize {
        let deadline = Instant::now() + self.timeout;
        loop {
            // Looked at before the screen, which does not change after the end.
            let ended = self.output.lock().ended;
            let screen = self.screen();
            if let Some(index) = texts.iter().position(|text| screen.contains(text)) {
                self.screen.keep_picture();
                return index;
            }
            if ended || Instant::now() >= deadline {
                self.screen.keep_picture();
                let serial = String::from_utf8_lossy(&self.output.lock().bytes).into_owned();
                let why = if ended { "the guest ended" } else { "time is over" };
                panic!("{why}, and none of {texts:?} is on the screen:\n{screen}\n\n{serial}");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses the keys of a US keyboard that type `text`, at the guest's pace.
    ///
    /// # Panics
    /// If there is no such key, or the guest takes nothing until the timeout passes.
    pub fn press(&self, text: &str) {
        let deadline = Instant::now() + self.timeout;
        for character in text.chars() {
            while !self.screen.press(character) {
                assert!(Instant::now() < deadline, "the guest does not read its keyboard");
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    /// Types `text` and a carriage return, at the guest's pace.
    ///
    /// # Panics
    /// If the guest takes nothing until the timeout passes.
    pub fn type_line(&self, text: &str) {
        let deadline = Instant::now() + self.timeout;
        let line = format!("{text}\r");
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let mut serial = self.serial.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = serial.enqueue_input(rest);
            drop(serial);
            rest = &rest[taken..];
            if taken == 0 {
                assert!(Instant::now() < deadline, "the guest does not read its serial port");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// Presses the machine's power button.
    pub fn press_power_button(&self) {
        self.control.press_power_button();
    }

    /// Stops the guest, as the user does with Ctrl-A X.
    pub fn quit(&self) {
        self.control.stop(StopReason::Quit);
    }

    /// Waits for the guest's end.
    ///
    /// # Panics
    /// If the machine panicked.
    pub fn finish(self) -> End {
        let result = self.thread.join();
        let output = String::from_utf8_lossy(&self.output.lock().bytes).into_owned();
        match result {
            Ok(Ok(outcome)) => End { reason: outcome.reason, output, stats: outcome.stats },
            Ok(Err(error)) => panic!("{error}; the guest wrote:\n{output}"),
            Err(_) => panic!("the machine panicked; the guest wrote:\n{output}"),
        }
    }
}

#[derive(Default)]
struct State {
    bytes: Vec<u8>,
    ended: bool,
}

#[derive(Default)]
struct Captured {
    state: Mutex<State>,
    changed: Condvar,
}

impl Captured {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, limit) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }

    fn finish(&self) {
        self.lock().ended = true;
        self.changed.notify_all();
    }
}

/// The serial port's end of the capture.
struct Tap(Arc<Captured>);

impl Write for Tap {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().bytes.extend_from_slice(data);
        if data.contains(&b'\n') {
            self.0.changed.notify_all();
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.changed.notify_all();
        Ok(())
    }
}
