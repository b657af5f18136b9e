use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::block::Medium;
use crate::bus::{BusDevice, lock};
use crate::dma::ProbeMemory;
use crate::interrupt::ProbeIrq;

const SECTORS: usize = 2000;

struct Bench {
    channel: Arc<Mutex<Channel>>,
    ports: BusMasterPorts,
    irq: Arc<ProbeIrq>,
    memory: Arc<ProbeMemory>,
}

fn pattern(sectors: usize) -> Vec<u8> {
    (0..sectors * 512).map(|i| (i / 512 + i % 251) as u8).collect()
}

fn bench() -> Bench {
    bench_with(|image| Medium::inline(Box::new(image)))
}

fn bench_with(medium: impl Fn(Vec<u8>) -> Medium) -> Bench {
    let irq = Arc::new(ProbeIrq::new());
    let memory = ProbeMemory::new(0x4_0000);
    let media = [
        Some(Media::Disk(medium(pattern(SECTORS)))),
        Some(Media::Cdrom(Some(medium(pattern(400))))),
    ];
    let channel = Channel::shared(0x1f0, media, Box::new(irq.clone()), memory.clone());
    let ports = BusMasterPorts::new([channel.clone(), channel.clone()]);
    Bench { channel, ports, irq, memory }
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

    fn data(&self, bytes: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for _ in 0..bytes / 2 {
            let mut data = [0; 2];
            lock(&self.channel).read(0x1f0, &mut data);
            all.extend(data);
        }
        all
    }

    fn command(&self, device: u8, lba: u32, count: u8, command: u8) {
        self.out(6, device | (lba >> 24) as u8 & 0xf);
        self.out(2, count);
        for (register, byte) in (3..=5).zip(lba.to_le_bytes()) {
            self.out(register, byte);
        }
        self.out(7, command);
    }

    fn packet(&self, features: u8, limit: u16, packet: [u8; 12]) {
        self.out(6, 0xb0);
        self.out(1, features);
        let [low, high] = limit.to_le_bytes();
        self.out(4, low);
        self.out(5, high);
        self.out(7, 0xa0);
        assert_eq!((self.inb(7) & 0x89, self.inb(2)), (0x08, 1));
        for pair in packet.chunks(2) {
            lock(&self.channel).write(0x1f0, pair);
        }
    }
}

#[test]
fn signatures_tell_the_drives_apart() {
    let bench = bench();
    bench.out(0x206, 4);
    bench.out(0x206, 0);
    assert_eq!([bench.inb(2), bench.inb(3), bench.inb(4), bench.inb(5)], [1, 1, 0, 0]);
    bench.out(6, 0xb0);
    assert_eq!([bench.inb(4), bench.inb(5)], [0x14, 0xeb]);
    bench.out(7, 0xec);
    assert_eq!(bench.inb(7) & 1, 1, "a CD-ROM drive aborts IDENTIFY DEVICE");
}

#[test]
fn identify_tells_size_and_name() {
    let bench = bench();
    bench.command(0xe0, 0, 0, 0xec);
    assert!(bench.irq.level());
    assert_eq!(bench.inb(7), 0x58);
    assert!(!bench.irq.level(), "status takes the interrupt back");
    let data = bench.data(512);
    assert_eq!(bench.inb(7), 0x50);
    let word = |i: usize| u16::from_le_bytes([data[2 * i], data[2 * i + 1]]);
    assert_eq!(u32::from(word(60)) | u32::from(word(61)) << 16, SECTORS as u32);
    assert_eq!(word(27).to_be_bytes(), *b"RI");
}

#[test]
fn sectors_are_read_one_interrupt_each() {
    let bench = bench();
    bench.command(0xe0, 5, 3, 0x20);
    let image = pattern(SECTORS);
    for sector in 5..8 {
        assert!(bench.irq.level());
        assert_eq!(bench.inb(7), 0x58);
        assert_eq!(bench.data(512), &image[sector * 512..(sector + 1) * 512]);
    }
    assert_eq!(bench.inb(7), 0x50);
    assert_eq!(bench.irq.rising_edges(), 3);
}

#[test]
fn sectors_are_written_and_read_back_by_cylinder_head_sector() {
    let bench = bench();
    bench.command(0xe0, 63, 2, 0x30);
    assert!(!bench.irq.level(), "the first block is asked for without an interrupt");
    for _ in 0..512 {
        lock(&bench.channel).write(0x1f0, &[0xa5, 0x5a]);
    }
    assert_eq!(bench.inb(7), 0x50);
    // Cylinder 0, head 1, sector 2.
    bench.out(6, 0xa1);
    bench.out(2, 1);
    bench.out(3, 2);
    bench.out(4, 0);
    bench.out(5, 0);
    bench.out(7, 0x20);
    assert_eq!(bench.data(512), [0xa5, 0x5a].repeat(256));
}

#[test]
fn sectors_beyond_the_end_are_not_found() {
    let bench = bench();
    for command in [0x20, 0x30, 0xc8, 0xca] {
        bench.command(0xe0, SECTORS as u32 - 1, 2, command);
        assert_eq!((bench.inb(7), bench.inb(1)), (0x51, 0x10), "{command:#x}");
    }
}

#[test]
fn dma_scatters_over_the_table() {
    let mut bench = bench();
    {
        let mut memory = lock(&bench.memory.0);
        memory[0x100..0x108].copy_from_slice(&[0, 0x10, 0, 0, 0, 2, 0, 0]);
        memory[0x108..0x110].copy_from_slice(&[0, 0x20, 0, 0, 0, 2, 0, 0x80]);
    }
    bench.ports.write(4, &0x100u32.to_le_bytes());
    bench.command(0xe0, 9, 2, 0xc8);
    bench.ports.write(0, &[0x09]);
    assert!(bench.irq.level());
    let mut status = [0];
    bench.ports.read(2, &mut status);
    assert_eq!(status[0] & 7, 4, "interrupt, not active, no error");
    let image = pattern(SECTORS);
    assert_eq!(lock(&bench.memory.0)[0x1000..0x1200], image[9 * 512..10 * 512]);
    assert_eq!(lock(&bench.memory.0)[0x2000..0x2200], image[10 * 512..11 * 512]);

    bench.ports.write(0, &[0]);
    bench.ports.write(2, &[6]);
    bench.command(0xe0, 100, 2, 0xca);
    bench.ports.write(0, &[0x01]);
    assert_eq!(bench.inb(7), 0x50);
    bench.command(0xe0, 101, 1, 0x20);
    assert_eq!(bench.data(512), &image[10 * 512..11 * 512]);
}

#[test]
fn a_table_without_room_is_an_error() {
    let mut bench = bench();
    lock(&bench.memory.0)[0x100..0x108].copy_from_slice(&[0, 0x10, 0, 0, 0, 1, 0, 0x80]);
    bench.ports.write(4, &0x100u32.to_le_bytes());
    bench.command(0xe0, 0, 1, 0xc8);
    bench.ports.write(0, &[0x09]);
    let mut status = [0];
    bench.ports.read(2, &mut status);
    assert_eq!(status[0] & 3, 2);
    assert_eq!(bench.inb(7) & 1, 1);
}

#[test]
fn packets_read_blocks_within_the_byte_count() {
    let bench = bench();
    bench.packet(0, 4096, [0x28, 0, 0, 0, 0, 2, 0, 0, 3, 0, 0, 0]);
    let image = pattern(400);
    assert_eq!((bench.inb(7) & 0x89, bench.inb(2)), (0x08, 2));
    assert_eq!([bench.inb(4), bench.inb(5)], [0, 0x10]);
    assert_eq!(bench.data(4096), image[2 * 2048..4 * 2048]);
    assert_eq!([bench.inb(4), bench.inb(5)], [0, 0x08]);
    assert_eq!(bench.data(2048), image[4 * 2048..5 * 2048]);
    assert_eq!((bench.inb(7), bench.inb(2)), (0x50, 3));
    assert!(!bench.irq.level());
}

#[test]
fn packets_that_fail_leave_sense() {
    let bench = bench();
    bench.packet(0, 2048, [0x28, 0, 0, 0, 0, 100, 0, 0, 1, 0, 0, 0]);
    assert_eq!((bench.inb(7) & 1, bench.inb(1) >> 4), (1, 5));
    bench.packet(0, 18, [3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0]);
    let sense = bench.data(18);
    assert_eq!((sense[2], sense[12]), (5, 0x21));
    bench.packet(0, 18, [0; 12]);
    assert_eq!(bench.inb(7), 0x50);
}

#[test]
fn packets_by_dma() {
    let mut bench = bench();
    lock(&bench.memory.0)[0x100..0x108].copy_from_slice(&[0, 0x10, 0, 0, 0, 8, 0, 0x80]);
    bench.ports.write(4, &0x100u32.to_le_bytes());
    bench.packet(1, 0, [0x28, 0, 0, 0, 0, 7, 0, 0, 1, 0, 0, 0]);
    bench.ports.write(0, &[0x09]);
    assert_eq!(bench.inb(7), 0x50);
    let image = pattern(400);
    assert_eq!(lock(&bench.memory.0)[0x1000..0x1800], image[7 * 2048..8 * 2048]);
}

#[test]
fn a_channel_without_drives_floats() {
    let irq = Arc::new(ProbeIrq::new());
    let channel = Channel::shared(0x170, [None, None], Box::new(irq), ProbeMemory::new(0x1000));
    let mut status = [0];
    lock(&channel).read(0x177, &mut status);
    assert_eq!(status, [0x7f]);
}

proptest! {
    #[test]
    fn random_accesses(accesses in prop::collection::vec(
        (any::<bool>(), any::<bool>(), 0u64..16, prop::sample::select(vec![1usize, 2, 4]), any::<u32>()),
        0..300,
    )) {
        let mut bench = bench();
        for (bus_master, write, offset, len, value) in accesses {
            let mut data = value.to_le_bytes();
            let port = if offset == 8 { 0x3f6 } else { 0x1f0 + (offset & 7) };
            match (bus_master, write) {
                (true, true) => bench.ports.write(offset, &data[..len]),
                (true, false) => bench.ports.read(offset, &mut data[..len]),
                (false, true) => lock(&bench.channel).write(port, &data[..len]),
                (false, false) => lock(&bench.channel).read(port, &mut data[..len]),
            }
        }
        let mut channel = lock(&bench.channel);
        let saved = serde_json::to_string(channel.state()).unwrap();
        channel.restore(serde_json::from_str(&saved).unwrap());
        prop_assert_eq!(serde_json::to_string(channel.state()).unwrap(), saved);
    }
}
