//! Random accesses to every device of the board, by port, memory, MSR and PCI configuration, while
//! time passes and drives answer: whatever a guest does to its devices, the process goes on.
//!
//! A failure says its seed. `RINGSHIFT_DEVICE_SEED` runs that one, `RINGSHIFT_DEVICE_STEPS` another
//! number of steps.

use super::Machine;
use crate::config::{Config, EngineKind, Kernel};
use crate::firmware::{BootOrder, Drives, Firmware};
use devices::ManualClock;
use devices::block::{BlockDevice, Medium};
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use x86::cpuid::Model;

const MEMORY: u64 = 4 << 20;
const STEPS: u64 = 60_000;
/// Far more than a run takes on the slowest host.
const LIMIT: Duration = Duration::from_secs(400);

/// Splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// Small numbers, single bits, addresses in RAM, and anything.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => self.below(16),
            1 => 1 << self.below(64),
            2 => self.below(MEMORY),
            3 => self.of(&[0, u64::MAX, 0x7FFF_FFFF, 0x8000_0000, 0xFF, 0xFFFF]),
            4 => self.below(256),
            _ => self.next(),
        }
    }
}

/// First and last port of what the board has, and the ports beside it.
const PORTS: &[(u16, u16)] = &[
    (0x00, 0x0F),
    (0x20, 0x21),
    (0x40, 0x43),
    (0x60, 0x64),
    (0x70, 0x73),
    (0x80, 0x92),
    (0xA0, 0xA1),
    (0xB2, 0xB3),
    (0xC0, 0xDF),
    (0xE0, 0xF4),
    (0x170, 0x177),
    (0x1CE, 0x1D0),
    (0x1F0, 0x1F7),
    (0x376, 0x376),
    (0x3B4, 0x3DA),
    (0x3F0, 0x3F7),
    (0x3F8, 0x3FF),
    (0x402, 0x402),
    (0x4D0, 0x4D1),
    (0x510, 0x51B),
    (0x600, 0x63F),
    (0xC000, 0xC00F),
    (0xCF8, 0xCFF),
    (0x2000, 0x2020),
];

/// Pages of memory-mapped registers, some of them only where a guest has put them.
const PAGES: &[u64] = &[
    0xA_0000,
    0xB_0000,
    0xB_8000,
    0xC_0000,
    0xF_0000,
    0xC000_0000,
    0xE000_0000,
    0xFD00_0000,
    0xFEB0_0000,
    0xFEC0_0000,
    0xFED0_0000,
    0xFEE0_0000,
    0xFFFF_0000,
    0x1_0000_0000,
    0xFF_FFFF_FFFF_F000,
];

/// The board's PCI functions, and one that is not there.
const FUNCTIONS: &[u32] = &[0x00, 0x08, 0x09, 0x0B, 0x10, 0x18];

struct Bench {
    machine: Machine,
    clock: Arc<ManualClock>,
    random: Random,
    /// The latest steps, for a report.
    log: Arc<Mutex<String>>,
}

fn medium(bytes: usize, threaded: bool) -> Medium {
    let image: Box<dyn BlockDevice> =
        Box::new((0..bytes).map(|i| (i / 512 + i) as u8).collect::<Vec<u8>>());
    if threaded { Medium::threaded(image, "fuzz").unwrap() } else { Medium::inline(image) }
}

impl Bench {
    fn new(seed: u64, log: Arc<Mutex<String>>) -> Bench {
        let mut random = Random(seed);
        let threaded = random.below(2) != 0;
        let clock = Arc::new(ManualClock::new(1_735_689_600_000_000_000));
        let mut config = Config {
            memory: MEMORY,
            cpus: 1 + random.below(2) as u32,
            cpu: Model::default(),
            engine: EngineKind::Interp,
            kernel: Kernel::default(),
            serial_output: Box::new(std::io::sink()),
            timeout: None,
            count: true,
        };
        let drives = Drives {
            disks: vec![medium(1 << 20, threaded), medium(3 << 18, false)],
            cdroms: vec![medium(1 << 19, threaded)],
            floppies: vec![medium(1440 << 10, threaded), medium(360 << 10, false)],
        };
        let (rom, peripherals) = Firmware {
            bios: vec![0xF4; 0x1_0000],
            vga_bios: Some([&[0x55, 0xAA, 0x40][..], &[0; 0x7FFD]].concat()),
            serial_console: true,
            drives,
            boot: BootOrder::Disk,
        }
        .split();
        let rom = (random.below(2) != 0).then_some(rom);
        if rom.is_none() {
            // A Multiboot kernel has the test device, too: magic, flags, checksum, addresses.
            let words: [u32; 8] = [
                0x1BAD_B002,
                0x1_0000,
                0xE451_4FFE,
                0x10_0000,
                0x10_0000,
                0x10_0021,
                0x10_1000,
                0x10_0020,
            ];
            config.kernel.image = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            config.kernel.image.push(0xF4);
            config.kernel.name = "kernel".into();
        }
        let policy = config.cpu.policy(config.cpus).unwrap();
        let machine = Machine::build(config, policy, clock.clone(), peripherals, rom).unwrap();
        Bench { machine, clock, random, log }
    }

    fn port(&mut self) -> u16 {
        if self.random.below(50) == 0 {
            return self.random.next() as u16;
        }
        let (first, last) = self.random.of(PORTS);
        first + self.random.below(u64::from(last - first) + 1) as u16
    }

    fn address(&mut self) -> u64 {
        if self.random.below(50) == 0 {
            return self.random.next() >> self.random.below(40);
        }
        let page = self.random.of(PAGES);
        match self.random.below(3) {
            0 => page.wrapping_add(self.random.below(0x400)),
            1 => page.wrapping_add(self.random.below(0x40) * 0x10),
            _ => page.wrapping_add(self.random.below(0x1_0000)),
        }
    }

    fn out(&self, port: u16, size: u8, value: u64) {
        self.machine.vcpus[0].mmu.bus.port_write(port, size, value as u32);
    }

    fn note(&self, step: std::fmt::Arguments<'_>) {
        let mut log = self.log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if log.len() > 2000 {
            let cut = log.len() - 1000;
            log.drain(..cut);
        }
        let _ = writeln!(log, "{step}");
    }

    fn step(&mut self) {
        let bus = self.machine.vcpus[self.random.below(self.machine.vcpus.len() as u64) as usize]
            .mmu
            .bus
            .clone();
        match self.random.below(16) {
            0..=4 => {
                let (port, size, value) =
                    (self.port(), self.random.of(&[1, 1, 1, 2, 4]), self.random.value());
                self.note(format_args!("out {port:#x}, {size}, {value:#x}"));
                self.out(port, size, value);
            }
            5..=6 => {
                let (port, size) = (self.port(), self.random.of(&[1, 1, 2, 4]));
                self.note(format_args!("in {port:#x}, {size}"));
                bus.port_read(port, size);
            }
            7..=8 => {
                let (address, len) = (self.address(), self.random.of(&[1, 2, 4, 4, 8]));
                let value = self.random.value();
                self.note(format_args!("write {address:#x}, {len}, {value:#x}"));
                bus.mmio_write(address, &value.to_le_bytes()[..len]);
            }
            9 => {
                let (address, len) = (self.address(), self.random.of(&[1, 2, 4, 8]));
                self.note(format_args!("read {address:#x}, {len}"));
                bus.mmio_read(address, &mut [0; 8][..len]);
            }
            10 => {
                let function = self.random.of(FUNCTIONS);
                let register = (self.random.below(0x40) * 4) as u32;
                let value = self.random.value();
                self.note(format_args!("pci {function:#x}, {register:#x}, {value:#x}"));
                self.out(0xCF8, 4, u64::from(0x8000_0000 | function << 8 | register));
                self.out(0xCFC, 4, value);
            }
            11 => {
                let msr = match self.random.below(3) {
                    0 => 0x800 + self.random.below(0x40) as u32,
                    1 => self.random.of(&[0x1B, 0x10, 0x6E0, 0x4B56_4D00, 0x4B56_4D01, 0x11, 0x12]),
                    _ => self.random.next() as u32,
                };
                let value = self.random.value();
                self.note(format_args!("wrmsr {msr:#x}, {value:#x}"));
                bus.write_msr(msr, value);
                bus.read_msr(msr);
                bus.set_task_priority((value & 15) as u8);
            }
            12 => {
                let at = self.random.below(MEMORY - 64);
                let mut data = [0; 64];
                for chunk in data.chunks_mut(8) {
                    chunk.copy_from_slice(&self.random.value().to_le_bytes());
                }
                let _ = self.machine.ram.write(at, &data);
            }
            13 => self.disk_command(),
            14 => self.floppy_command(),
            _ => {
                let nanoseconds = 1 << self.random.below(38);
                self.note(format_args!("wait {nanoseconds}"));
                self.clock.advance(nanoseconds);
                self.machine.run_timers();
            }
        }
    }

    /// A well-formed command now and then goes deeper than random bytes do.
    fn disk_command(&mut self) {
        let base = self.random.of(&[0x1F0, 0x170]);
        let bus_master: u16 = if base == 0x1F0 { 0xC000 } else { 0xC008 };
        let command = self.random.of(&[
            0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0xA0, 0xA1, 0xC4, 0xC5, 0xC6, 0xC8,
            0xCA, 0xE7, 0xEC, 0xEF, 0x08, 0x90,
        ]);
        self.note(format_args!("disk {base:#x}, {command:#x}"));
        // BAR 4, and bus mastering on.
        for (register, value) in [(0x20, 0xC001), (0x04, 0x05)] {
            self.out(0xCF8, 4, 0x8000_0900 | register);
            self.out(0xCFC, 4, value);
        }
        self.out(bus_master, 1, 0);
        let table = self.random.below(MEMORY);
        self.out(bus_master + 4, 4, table);
        let device = self.random.of(&[0xA0, 0xB0, 0xE0, 0xF0]);
        self.out(base + 6, 1, device);
        for register in 1..=5 {
            let value = if self.random.below(2) == 0 { 0 } else { self.random.below(256) };
            self.out(base + register, 1, value);
        }
        self.out(base + 7, 1, command);
        if command == 0xA0 {
            let opcode = self.random.of(&[
                0x00, 0x03, 0x12, 0x1B, 0x25, 0x28, 0x43, 0x46, 0x4A, 0x51, 0x5A, 0xA8, 0xBE,
            ]);
            self.out(base, 2, opcode);
            for _ in 0..5 {
                let value = if self.random.below(2) == 0 { 0 } else { self.random.value() };
                self.out(base, 2, value);
            }
        }
        if self.random.below(2) == 0 {
            let start = self.random.of(&[0x01, 0x09, 0x08]);
            self.out(bus_master, 1, start);
        }
        for _ in 0..self.random.below(600) {
            self.machine.vcpus[0].mmu.bus.port_read(base, 4);
        }
    }

    fn floppy_command(&mut self) {
        let command = self.random.of(&[
            0x03, 0x04, 0x45, 0xC5, 0x46, 0xE6, 0x07, 0x08, 0x4A, 0x4D, 0x0F, 0x0E, 0x10, 0x12,
            0x13, 0x14, 0x94,
        ]);
        self.note(format_args!("floppy {command:#x}"));
        let (mode, count) = (self.random.of(&[0x46, 0x4A, 0x42]), self.random.below(0x4000));
        let address = self.random.value();
        self.out(0x0C, 1, 0);
        self.out(0x0B, 1, mode);
        for (port, value) in [(0x04, address), (0x05, count)] {
            self.out(port, 1, value & 0xFF);
            self.out(port, 1, value >> 8 & 0xFF);
        }
        self.out(0x81, 1, address >> 16 & 0xFF);
        self.out(0x0A, 1, 2);
        self.out(0x3F2, 1, 0x1C);
        self.out(0x3F5, 1, command);
        let drive = self.random.below(8);
        let parameters =
            [drive, self.random.below(82), self.random.below(3), self.random.below(20)];
        for value in parameters.into_iter().chain([2, 18, 0x1B, 0xFF]) {
            self.out(0x3F5, 1, value);
        }
        for _ in 0..7 {
            self.machine.vcpus[0].mmu.bus.port_read(0x3F5, 1);
        }
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn survives(seed: u64) {
    let log = Arc::new(Mutex::new(String::new()));
    let (sender, result) = channel();
    let steps = variable("RINGSHIFT_DEVICE_STEPS").unwrap_or(STEPS);
    let shared = log.clone();
    std::thread::spawn(move || {
        let run = catch_unwind(AssertUnwindSafe(|| {
            let mut bench = Bench::new(seed, shared);
            for _ in 0..steps {
                bench.step();
            }
        }));
        let _ = sender.send(run.is_ok());
    });
    let ended = result.recv_timeout(LIMIT);
    let log = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match ended {
        Ok(true) => {}
        Ok(false) => panic!("RINGSHIFT_DEVICE_SEED={seed} panics after\n{log}"),
        Err(_) => panic!("RINGSHIFT_DEVICE_SEED={seed} hangs after\n{log}"),
    }
}

#[test]
fn devices_survive_random_accesses() {
    match variable("RINGSHIFT_DEVICE_SEED") {
        Some(seed) => survives(seed),
        None => (1..=6).for_each(survives),
    }
}
