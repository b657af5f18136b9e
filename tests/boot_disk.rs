//! A disk that boots by itself: SeaBIOS, GRUB, Debian's cloud kernel, a login prompt. What its guest
//! has synced is there after the whole process was killed.

use machine::block::image::{ImageFormat, create_qcow2};
use machine::guests::debian::Cache;
use machine::guests::disk::{self, DiskError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long a guest may take for anything, on a slow host that runs other tests beside it.
const PATIENCE: Duration = Duration::from_secs(600);

/// The disk's image, a new one for each test. `None`, with the reason on standard error, where what
/// it is made of cannot be had.
fn disk(name: &str) -> Option<PathBuf> {
    if let Err(reason) = machine::Firmware::seabios() {
        eprintln!("SKIPPED: {reason}");
        return None;
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let built = Cache::open()
        .map_err(DiskError::from)
        .and_then(|cache| disk::build(&path, &cache.for_tests(), &|line| eprintln!("{line}")));
    match built {
        Ok(()) => Some(path),
        Err(reason) if reason.is_unavailable() => {
            eprintln!("SKIPPED: {reason}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// `ringshift run` with its console.
struct Console {
    program: Child,
    input: ChildStdin,
    output: Receiver<Vec<u8>>,
    said: String,
    seen: usize,
}

impl Console {
    fn boot(arguments: &[&str]) -> Console {
        let mut program = Command::new(env!("CARGO_BIN_EXE_ringshift"))
            .args(["run", "--memory", "192M"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let input = program.stdin.take().expect("a pipe");
        let mut stdout = program.stdout.take().expect("a pipe");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut part) {
                if sender.send(part[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Console { program, input, output, said: String::new(), seen: 0 }
    }

    /// Waits for `text` after what was waited for before; returns what came up to it.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.said[self.seen..].find(text) {
                let before = self.said[self.seen..self.seen + at].to_owned();
                self.seen += at + text.len();
                return before;
            }
            match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(part) => self.said.push_str(&String::from_utf8_lossy(&part)),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in time:\n{}", self.said),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended before {text:?}:\n{}", self.said)
                }
            }
        }
    }

    fn type_line(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the program reads");
    }

    fn log_in(&mut self) {
        self.wait_for(disk::LOGIN_PROMPT);
        self.type_line("root");
        self.wait_for("Password: ");
        self.type_line(disk::PASSWORD);
        self.wait_for("# ");
    }

    /// Runs a command in the guest's shell; what it prints on its last line.
    fn run(&mut self, command: &str) -> String {
        // The echo of the command does not have the sum in it.
        self.type_line(&format!("{command}; echo done-$((40 + 2))"));
        let printed = self.wait_for("done-42");
        self.wait_for("# ");
        printed.trim_end().lines().last().unwrap_or_default().trim().to_owned()
    }

    /// Takes the whole process away, as a crash does.
    fn kill(mut self) {
        self.program.kill().expect("the program is there");
        self.program.wait().expect("it has ended");
    }

    fn power_off(mut self) {
        self.type_line("poweroff -f");
        let deadline = Instant::now() + PATIENCE;
        while self.program.try_wait().expect("a child").is_none() {
            assert!(Instant::now() < deadline, "no power-off:\n{}", self.said);
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(self.program.wait().expect("it has ended").success());
    }
}

const SUM: &str = "md5sum < /root/data";

/// Writes to the disk, syncs, and dies at once; then the disk boots again with everything on it.
fn synced_writes_survive(image: &Path) {
    let image = image.to_str().expect("a plain name");
    let mut console = Console::boot(&[image]);
    console.log_in();
    console.run("dd if=/dev/urandom of=/root/data bs=1024 count=3000 2>/dev/null");
    let written = console.run(SUM);
    assert!(written.len() > 30, "{written}");
    console.run("echo kept > /root/note; sync");
    // Not synced: it may be lost, but the file system must bear it.
    console.type_line("dd if=/dev/zero of=/root/more bs=1024 count=8000 2>/dev/null &");
    console.kill();

    let mut console = Console::boot(&[image]);
    console.log_in();
    assert_eq!(console.run("cat /root/note"), "kept");
    assert_eq!(console.run(SUM), written);
    console.run("rm /root/note; sync");
    console.power_off();
}

#[test]
fn a_raw_disk_boots_and_keeps_what_was_synced() {
    let Some(image) = disk("boot-disk.img") else { return };
    synced_writes_survive(&image);
    // A snapshot sees it and changes nothing. Interpreted, for the sake of the other engine.
    let before = std::fs::read(&image).unwrap();
    let argument = format!("{},snapshot=on", image.display());
    let mut console = Console::boot(&["--engine", "interp", "--disk", &argument]);
    console.log_in();
    assert_eq!(console.run("ls /root/note 2>/dev/null | wc -l"), "0");
    console.run("echo gone > /root/note; sync");
    console.power_off();
    assert!(std::fs::read(&image).unwrap() == before);
    std::fs::remove_file(image).unwrap();
}

#[test]
fn a_qcow2_disk_over_a_raw_one_keeps_what_was_synced() {
    let Some(base) = disk("boot-base.img") else { return };
    let image = base.with_file_name("boot-disk.qcow2");
    if image.exists() {
        std::fs::remove_file(&image).unwrap();
    }
    let size = std::fs::metadata(&base).unwrap().len();
    create_qcow2(&image, size, Some(("boot-base.img", ImageFormat::Raw))).unwrap();
    let before = std::fs::read(&base).unwrap();
    synced_writes_survive(&image);
    // Clusters may be left over from the crash (status 3), but nothing may be corrupt.
    match Command::new("qemu-img").args(["check", "-q"]).arg(&image).output() {
        Ok(check) => assert!(matches!(check.status.code(), Some(0 | 3)), "{check:?}"),
        Err(reason) => eprintln!("not checked with qemu-img (Debian: qemu-utils): {reason}"),
    }
    assert!(std::fs::read(&base).unwrap() == before, "the backing file stays as it is");
    for path in [image, base] {
        std::fs::remove_file(path).unwrap();
    }
}

/// Kernel and initrd by their own options, the root file system on the disk beside them; entered
/// directly, and through the BIOS.
#[test]
fn a_kernel_finds_its_root_on_a_disk() {
    let Some(image) = disk("boot-root.img") else { return };
    let cache = Cache::open().unwrap();
    let (kernel, initrd) = disk::kernel_and_initrd(&cache, &|line| eprintln!("{line}")).unwrap();
    let initrd_file = image.with_extension("initrd");
    std::fs::write(&initrd_file, initrd).unwrap();
    let [image_name, kernel, initrd] =
        [&image, &kernel, &initrd_file].map(|path| path.to_str().expect("a plain name"));
    for (protocol, note) in [("auto", "one"), ("16", "two")] {
        let arguments = [
            "--boot-protocol",
            protocol,
            "--kernel",
            kernel,
            "--initrd",
            initrd,
            "--disk",
            image_name,
            "--append",
            "root=/dev/sda1 console=ttyS0 panic=-1",
        ];
        let mut console = Console::boot(&arguments);
        console.log_in();
        assert_eq!(console.run("mount | grep -c '/dev/sda1 on / type ext4'"), "1");
        console.run(&format!("echo {note} >> /root/notes; sync"));
        console.power_off();
    }
    let mut console = Console::boot(&[image_name]);
    console.log_in();
    assert_eq!(console.run("cat /root/notes | tr '\\n' ' '"), "one two");
    console.power_off();
    for path in [&image, &initrd_file] {
        std::fs::remove_file(path).unwrap();
    }
}
