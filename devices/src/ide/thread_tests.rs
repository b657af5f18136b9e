//! Drives whose media answer from threads of their own.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::block::{BlockDevice, Medium};
use crate::bus::{BusDevice, lock};
use crate::dma::ProbeMemory;
use crate::interrupt::ProbeIrq;

const BSY: u8 = 0x80;
const SECTORS: usize = 600;

/// A medium that carries nothing out before it is let.
struct Gated {
    image: Vec<u8>,
    gate: Receiver<()>,
}

impl BlockDevice for Gated {
    fn size(&self) -> u64 {
        self.image.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.gate.recv().map_err(io::Error::other)?;
        self.image.read_at(offset, data)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.gate.recv().map_err(io::Error::other)?;
        self.image.write_at(offset, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.gate.recv().map_err(io::Error::other)
    }
}

struct Bench {
    channel: Arc<Mutex<Channel>>,
    ports: BusMasterPorts,
    irq: Arc<ProbeIrq>,
    memory: Arc<ProbeMemory>,
}

fn image() -> Vec<u8> {
    (0..SECTORS * 512).map(|i| (i / 512 + i % 253) as u8).collect()
}

fn bench(disk: Medium) -> Bench {
    let irq = Arc::new(ProbeIrq::new());
    let memory = ProbeMemory::new(0x8_0000);
    let media = [Some(Media::Disk(disk)), None];
    let channel = Channel::shared(0x1f0, media, Box::new(irq.clone()), memory.clone());
    let ports = BusMasterPorts::new([channel.clone(), channel.clone()]);
    Bench { channel, ports, irq, memory }
}

fn gated() -> (Bench, Sender<()>) {
    let (open, gate) = channel();
    let medium = Medium::threaded(Box::new(Gated { image: image(), gate }), "gated").unwrap();
    (bench(medium), open)
}

impl Bench {
    fn out(&self, register: u64, value: u8) {
        lock(&self.channel).write(0x1f0 + register, &[value]);
    }

    fn inb(&self, register: u64) -> u8 {
        let mut data = [0];
        lock(&self.channel).read(0x1f0 + register, &mut data);
        data[0]
    }

    fn alternate_status(&self) -> u8 {
        self.inb(0x206)
    }

    fn command(&self, lba: u32, count: u8, command: u8) {
        self.out(6, 0xe0 | (lba >> 24) as u8 & 0xf);
        self.out(2, count);
        for (register, byte) in (3..=5).zip(lba.to_le_bytes()) {
            self.out(register, byte);
        }
        self.out(7, command);
    }

    fn sector(&self) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..256 {
            let mut data = [0; 2];
            lock(&self.channel).read(0x1f0, &mut data);
            all.extend(data);
        }
        all
    }

    fn wait(&self) -> u8 {
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.alternate_status() & BSY != 0 {
            assert!(Instant::now() < deadline, "the drive stays busy");
            std::thread::yield_now();
        }
        self.alternate_status()
    }

    /// A table of one entry at 0x100, for `bytes` at 0x1000.
    fn table(&mut self, bytes: u16) {
        let [low, high] = bytes.to_le_bytes();
        lock(&self.memory.0)[0x100..0x108].copy_from_slice(&[0, 0x10, 0, 0, low, high, 0, 0x80]);
        self.ports.write(4, &0x100u32.to_le_bytes());
    }

    fn bus_master_status(&mut self) -> u8 {
        let mut status = [0];
        self.ports.read(2, &mut status);
        status[0]
    }
}

#[test]
fn a_drive_is_busy_until_its_medium_answers() {
    let (bench, open) = gated();
    bench.command(7, 2, 0x20);
    assert_eq!(bench.alternate_status(), 0xd0);
    assert!(!bench.irq.level());
    // Busy drives take no registers and no command.
    bench.out(3, 99);
    bench.out(7, 0x91);
    assert_eq!(bench.alternate_status(), 0xd0);
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x58);
    assert!(bench.irq.level());
    assert_eq!(bench.inb(3), 7);
    let image = image();
    assert_eq!(bench.sector(), image[7 * 512..8 * 512]);
    assert_eq!(bench.sector(), image[8 * 512..9 * 512]);
    assert_eq!(bench.inb(7), 0x50);
    assert_eq!(bench.irq.rising_edges(), 1, "the status register was not read in between");
}

#[test]
fn a_flush_is_waited_for() {
    let (bench, open) = gated();
    bench.command(0, 0, 0xe7);
    assert_eq!((bench.alternate_status(), bench.irq.level()), (0xd0, false));
    open.send(()).unwrap();
    assert_eq!((bench.wait(), bench.irq.level()), (0x50, true));
    drop(open);
    bench.command(0, 0, 0xe7);
    assert_eq!(bench.wait(), 0x71, "device fault: the host could not flush");
}

#[test]
fn a_reset_drops_the_answer_and_what_follows_comes_after_it() {
    let (bench, open) = gated();
    bench.command(3, 1, 0x30);
    for byte in 0..256u16 {
        lock(&bench.channel).write(0x1f0, &byte.to_le_bytes());
    }
    assert_eq!(bench.alternate_status(), 0xd0);
    bench.out(0x206, 4);
    bench.out(0x206, 0);
    assert_eq!((bench.alternate_status(), bench.irq.level()), (0x50, false));
    assert_eq!([bench.inb(2), bench.inb(3), bench.inb(4)], [1, 1, 0]);
    bench.command(3, 1, 0x20);
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x58);
    // The write had begun: it was carried out before the read.
    let expected: Vec<u8> = (0..256u16).flat_map(u16::to_le_bytes).collect();
    assert_eq!(bench.sector(), expected);
    assert_eq!(bench.irq.rising_edges(), 1);
}

#[test]
fn resets_pile_up_no_requests() {
    let (mut bench, open) = gated();
    bench.table(0x400);
    for _ in 0..50 {
        bench.command(20, 2, 0xca);
        bench.ports.write(0, &[0x01]);
        assert_eq!(bench.alternate_status(), 0xd0);
        bench.out(0x206, 4);
        bench.out(0x206, 0);
        bench.ports.write(0, &[0x00]);
        assert_eq!(bench.alternate_status(), 0x50, "a reset does not wait");
    }
    bench.command(3, 1, 0x20);
    // One is for the first write, which had begun, and one for the read.
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x58);
    assert_eq!(bench.sector(), image()[3 * 512..4 * 512]);
}

#[test]
fn dma_is_active_until_the_last_byte_is_in_memory() {
    let (mut bench, open) = gated();
    bench.table(0x400);
    bench.command(20, 2, 0xc8);
    assert_eq!(bench.alternate_status(), 0x58, "waits for the engine");
    bench.ports.write(0, &[0x09]);
    assert_eq!(bench.alternate_status(), 0xd0);
    assert_eq!(bench.bus_master_status() & 7, 1);
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x50);
    assert_eq!(bench.bus_master_status() & 7, 4);
    assert!(bench.irq.level());
    assert_eq!(lock(&bench.memory.0)[0x1000..0x1400], image()[20 * 512..22 * 512]);
}

#[test]
fn a_stopped_engine_leaves_memory_alone_and_may_start_again() {
    let (mut bench, open) = gated();
    bench.table(0x200);
    bench.command(20, 1, 0xc8);
    bench.ports.write(0, &[0x09]);
    bench.ports.write(0, &[0x08]);
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x58);
    assert_eq!(lock(&bench.memory.0)[0x1000..0x1200], [0; 512]);
    bench.ports.write(0, &[0x09]);
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x50);
    assert_eq!(lock(&bench.memory.0)[0x1000..0x1200], image()[20 * 512..21 * 512]);
}

#[test]
fn a_drive_may_go_while_its_medium_works() {
    let (bench, open) = gated();
    bench.command(0, 1, 0x20);
    let irq = bench.irq.clone();
    let channel = Arc::downgrade(&bench.channel);
    // The bench's medium is dropped by this thread, which waits for the answer.
    let opener = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        // One for the read, one for the flush at the end.
        open.send(()).unwrap();
        open.send(()).unwrap();
    });
    drop(bench);
    opener.join().unwrap();
    assert!(channel.upgrade().is_none() && !irq.level());
}

#[test]
fn a_saved_drive_asks_again() {
    let (bench, open) = gated();
    bench.command(9, 1, 0x20);
    let mut channel = lock(&bench.channel);
    let saved = serde_json::to_string(channel.state()).unwrap();
    channel.restore(serde_json::from_str(&saved).unwrap());
    drop(channel);
    open.send(()).unwrap();
    open.send(()).unwrap();
    assert_eq!(bench.wait(), 0x58);
    assert_eq!(bench.sector(), image()[9 * 512..10 * 512]);
}

/// Writes to registers, each with the wait for the drive that a host would do.
#[derive(Clone, Debug)]
enum Step {
    Command { command: u8, lba: u32, count: u8 },
    Data { words: u16, write: bool },
    BusMaster { command: u8 },
    Multiple(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let command = prop::sample::select(vec![
        0x20, 0x30, 0xc4, 0xc5, 0xc8, 0xca, 0x25, 0x35, 0x40, 0xe7, 0xec, 0xf8, 0x08, 0x90,
    ]);
    prop_oneof![
        (command, 0..SECTORS as u32 + 5, 0u8..20).prop_map(|(command, lba, count)| Step::Command {
            command,
            lba,
            count
        }),
        (0u16..2000, any::<bool>()).prop_map(|(words, write)| Step::Data { words, write }),
        prop::sample::select(vec![0u8, 1, 8, 9]).prop_map(|command| Step::BusMaster { command }),
        prop::sample::select(vec![0u8, 2, 16]).prop_map(Step::Multiple),
    ]
}

/// What a host sees of the steps.
fn play(medium: Medium, steps: &[Step]) -> Vec<u8> {
    let mut bench = bench(medium);
    bench.table(0x2000);
    let mut seen = Vec::new();
    for step in steps {
        match *step {
            Step::Command { command, lba, count } => bench.command(lba, count, command),
            Step::Multiple(count) => bench.command(0, count, 0xc6),
            Step::BusMaster { command } => bench.ports.write(0, &[command]),
            Step::Data { words, write } => {
                for word in 0..words {
                    let mut data = word.to_le_bytes();
                    if write {
                        lock(&bench.channel).write(0x1f0, &data);
                    } else {
                        lock(&bench.channel).read(0x1f0, &mut data);
                    }
                    bench.wait();
                    seen.extend(data);
                }
            }
        }
        bench.wait();
        seen.push(bench.bus_master_status());
        seen.extend((1..8).map(|register| bench.inb(register)));
    }
    seen.extend(lock(&bench.memory.0).iter());
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_host_that_waits_sees_no_difference(steps in prop::collection::vec(step(), 1..25)) {
        let inline = play(Medium::inline(Box::new(image())), &steps);
        let medium = Medium::threaded(Box::new(image()), "disk").unwrap();
        prop_assert!(inline == play(medium, &steps));
    }
}
