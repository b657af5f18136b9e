//! The program on a terminal: keys to the guest and to Ringshift, and the terminal as it was found.

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use testsuite::{EngineKind, kernels};

testsuite::both_engines! {
    keys_reach_the_guest_one_by_one,
    leaving_a_guest_that_does_not_listen,
    signals_restore_the_terminal,
    the_text_display_shows_the_screen_and_types,
    leaving_the_text_display,
    the_power_button_under_the_text_display,
}

/// How long anything may take, on a slow host that runs other tests beside it.
const LIMIT: Duration = Duration::from_secs(300);

/// A program on a pseudoterminal.
struct Session {
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
    terminal: OwnedFd,
    before: Termios,
    child: Child,
}

impl Session {
    fn start(engine: EngineKind, name: &str, image: &[u8]) -> Session {
        Session::with(engine, name, image, &[])
    }

    fn with(engine: EngineKind, name: &str, image: &[u8], arguments: &[&str]) -> Session {
        let engine = match engine {
            EngineKind::Interp => "interp",
            EngineKind::Jit => "jit",
        };
        // Tests run beside one another.
        let name = format!("{name}-{engine}");
        let kernel = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&kernel, image).unwrap();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap();
        let terminal =
            rustix::fs::open(path, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let end = || terminal.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_ringshift"))
            .args(["run", "--engine", engine, "--memory", "32M", "--timeout", "300", "--kernel"])
            .arg(&kernel)
            .args(arguments)
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(master);
        let mut display = keyboard.try_clone().unwrap();
        let (shows, screen) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(read @ 1..) = display.read(&mut buffer) {
                if shows.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Session { keyboard, screen, shown: String::new(), terminal, before, child }
    }

    fn press(&mut self, keys: &[u8]) {
        self.keyboard.write_all(keys).unwrap();
    }

    /// Waits until `text` is on the screen, and forgets what came before.
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(at) = self.shown.find(text) {
                self.shown.drain(..at + text.len());
                return;
            }
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no {text:?}; the screen shows {:?}", self.shown)
                }
            }
        }
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.terminal).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits for the end; the terminal must be as it was.
    fn finish(mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill().unwrap();
                panic!("no end; the screen shows {:?}", self.shown);
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        status
    }
}

fn keys_reach_the_guest_one_by_one(engine: EngineKind) {
    let mut session = Session::start(engine, "tty-echo", &kernels::echo());
    session.wait_for("ready");
    assert!(session.is_raw());
    // Without a line's end, and Ctrl-C too: the guest's terminal decides what they mean.
    session.press(b"ab\x03");
    session.wait_for("ab\x03");
    session.press(b"\x01\x01.");
    session.wait_for("\x01.");
    session.press(b"q");
    assert_eq!(session.finish().code(), Some(0));
}

fn leaving_a_guest_that_does_not_listen(engine: EngineKind) {
    let mut session = Session::start(engine, "tty-halted", &kernels::halted());
    session.wait_for("halted");
    session.press(&[b'k'; 100]);
    session.press(b"\x01h");
    session.wait_for("leave Ringshift");
    session.press(b"\x01s");
    session.wait_for("CPU time");
    session.press(b"\x01x");
    assert_eq!(session.finish().code(), Some(0));
}

fn signals_restore_the_terminal(engine: EngineKind) {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let mut session = Session::start(engine, &format!("tty-{signal:?}"), &kernels::halted());
        session.wait_for("halted");
        assert!(session.is_raw());
        let pid = Pid::from_child(&session.child);
        kill_process(pid, signal).unwrap();
        assert_eq!(session.finish().signal(), Some(signal.as_raw()));
    }
}

const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

fn the_text_display_shows_the_screen_and_types(engine: EngineKind) {
    let image = kernels::screen();
    let mut session = Session::with(engine, "tty-screen", &image, &["--display", "text"]);
    session.wait_for(ENTER);
    session.wait_for("On");
    session.wait_for("screen");
    assert!(session.is_raw());
    session.press(b"\x01h");
    session.wait_for("Ctrl-Alt-Delete");
    // The key that ends the help is not for the guest.
    session.press(b"a");
    session.wait_for("screen");
    session.press(b"b\x1b[Aa");
    session.wait_for(LEAVE);
    assert_eq!(session.finish().code(), Some(0));
}

fn leaving_the_text_display(engine: EngineKind) {
    use rustix::process::{Pid, Signal, kill_process};
    use std::os::unix::process::ExitStatusExt;
    let start = |name| Session::with(engine, name, &kernels::screen(), &["--display", "text"]);
    let mut session = start("tty-screen-left");
    session.wait_for("screen");
    session.press(b"\x01x");
    session.wait_for(LEAVE);
    assert_eq!(session.finish().code(), Some(0));
    let mut session = start("tty-screen-killed");
    session.wait_for("screen");
    kill_process(Pid::from_child(&session.child), Signal::TERM).unwrap();
    session.wait_for(LEAVE);
    assert_eq!(session.finish().signal(), Some(Signal::TERM.as_raw()));
}

fn the_power_button_under_the_text_display(engine: EngineKind) {
    let image = kernels::suspend(kernels::Wakener::PowerButton, kernels::Waking::Real);
    let name = format!("tty-power-{engine:?}.serial");
    let serial = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let option = format!("file:{}", serial.display());
    let arguments = ["--display", "text", "--serial", option.as_str()];
    let mut session = Session::with(engine, "tty-power", &image, &arguments);
    let deadline = Instant::now() + LIMIT;
    while std::fs::read_to_string(&serial).unwrap_or_default() != "sleep\r\n" {
        assert!(Instant::now() < deadline, "it does not sleep");
        std::thread::sleep(Duration::from_millis(10));
    }
    session.wait_for(ENTER);
    // Awake, it would take the press for nothing.
    std::thread::sleep(Duration::from_millis(300));
    session.press(b"\x01p");
    session.wait_for(LEAVE);
    assert_eq!(session.finish().code(), Some(0));
    assert_eq!(std::fs::read_to_string(&serial).unwrap(), "sleep\r\nkept\r\n");
}
