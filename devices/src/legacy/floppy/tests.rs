use std::io;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::*;
use crate::block::BlockDevice;
use crate::bus::lock;
use crate::dma::ProbeMemory;
use crate::interrupt::ProbeIrq;
use proptest::prelude::*;

struct Bench {
    floppy: Arc<Mutex<Floppy>>,
    dma: Arc<Mutex<DmaDevice>>,
    memory: Arc<ProbeMemory>,
    irq: Arc<ProbeIrq>,
}

fn bench() -> Bench {
    bench_with(|image| Medium::inline(Box::new(image)))
}

fn bench_with(medium: impl Fn(Vec<u8>) -> Medium) -> Bench {
    let memory = ProbeMemory::new(0x1_0000);
    let dma = Arc::new(Mutex::new(DmaDevice::new(memory.clone())));
    let irq = Arc::new(ProbeIrq::new());
    let image: Vec<u8> = (0..1_474_560u32).map(|i| (i / 512) as u8).collect();
    let disks = [Some(medium(image)), None];
    let floppy = Floppy::shared(disks, Box::new(irq.clone()), dma.clone());
    Bench { floppy, dma, memory, irq }
}

impl Bench {
    fn command(&mut self, bytes: &[u8]) -> Vec<u8> {
        for byte in bytes {
            assert_eq!(lock(&self.floppy).main_status() & (RQM | DIO), RQM);
            lock(&self.floppy).write(0x3f5, &[*byte]);
        }
        let mut results = Vec::new();
        while lock(&self.floppy).main_status() & DIO != 0 {
            let mut byte = [0];
            lock(&self.floppy).read(0x3f5, &mut byte);
            results.push(byte[0]);
        }
        results
    }

    fn program_dma(&self, mode: u8, address: u16, count: u16) {
        let mut dma = lock(&self.dma);
        dma.write(0x0c, &[0]);
        dma.write(0x0b, &[mode | 2]);
        for (port, value) in [(4, address), (5, count - 1)] {
            for byte in value.to_le_bytes() {
                dma.write(port, &[byte]);
            }
        }
        dma.write(0x0a, &[2]);
    }
}

#[test]
fn reset_interrupts_and_is_sensed_four_times() {
    let mut bench = bench();
    lock(&bench.floppy).write(0x3f2, &[0]);
    assert_eq!(lock(&bench.floppy).main_status(), 0);
    lock(&bench.floppy).write(0x3f2, &[0x1c]);
    assert!(bench.irq.level());
    for drive in 0..4 {
        assert_eq!(bench.command(&[8]), [0xc0 | drive, 0]);
    }
    assert_eq!(bench.command(&[8]), [0x80]);
    assert!(!bench.irq.level());
}

#[test]
fn sectors_are_read_across_heads_and_written() {
    let mut bench = bench();
    assert!(bench.command(&[0x0f, 0, 1]).is_empty());
    assert!(bench.irq.level());
    assert_eq!(bench.command(&[8]), [0x20, 1]);
    // Cylinder 1, head 0, sectors 17 and 18, then head 1, sector 1.
    bench.program_dma(0x44, 0x1000, 3 * 512);
    let results = bench.command(&[0xe6, 0, 1, 0, 17, 2, 18, 0x1b, 0xff]);
    assert_eq!(results, [0, 0, 0, 1, 1, 2, 2]);
    let memory = lock(&bench.memory.0);
    assert_eq!([memory[0x1000], memory[0x1200], memory[0x1400]], [52, 53, 54]);
    drop(memory);
    bench.program_dma(0x48, 0x1000, 512);
    assert_eq!(bench.command(&[0xc5, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[0], 0);
    bench.program_dma(0x44, 0x2000, 512);
    assert_eq!(bench.command(&[0xe6, 0, 0, 0, 1, 2, 18, 0x1b, 0xff])[0], 0);
    assert_eq!(lock(&bench.memory.0)[0x2000], 52);
}

/// A disk that carries nothing out before it is let.
struct Gated(Vec<u8>, Receiver<()>);

impl BlockDevice for Gated {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.1.recv().map_err(io::Error::other)?;
        self.0.read_at(offset, data)
    }

    fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.1.recv().map_err(io::Error::other)?;
        self.0.write_at(offset, data)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn resets_pile_up_no_requests() {
    let (open, gate) = channel();
    let gate = Mutex::new(Some(gate));
    let mut bench = bench_with(|image| {
        let gate = lock(&gate).take().unwrap();
        Medium::threaded(Box::new(Gated(image, gate)), "gated").unwrap()
    });
    // Dropped before the disk, whose thread waits for it, should this test fail.
    let open = open;
    for _ in 0..50 {
        bench.program_dma(0x48, 0x1000, 18 * 512);
        assert!(bench.command(&[0xc5, 0, 2, 0, 1, 2, 18, 0x1b, 0xff]).is_empty());
        assert_eq!(lock(&bench.floppy).main_status(), BUSY);
        lock(&bench.floppy).write(0x3f2, &[0x08]);
        lock(&bench.floppy).write(0x3f2, &[0x1c]);
        assert_eq!(lock(&bench.floppy).main_status(), RQM);
    }
    bench.program_dma(0x44, 0x2000, 512);
    bench.command(&[0xe6, 0, 0, 0, 5, 2, 18, 0x1b, 0xff]);
    // One is for the first write, which had begun, and one for the read.
    open.send(()).unwrap();
    open.send(()).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while lock(&bench.floppy).main_status() & RQM == 0 {
        assert!(Instant::now() < deadline, "the controller stays busy");
        std::thread::yield_now();
    }
    assert_eq!(bench.command(&[])[..3], [0, 0, 0]);
    assert_eq!(lock(&bench.memory.0)[0x2000], 4);
}

#[test]
fn what_is_not_there_fails() {
    let mut bench = bench();
    bench.program_dma(0x44, 0x1000, 512);
    assert_eq!(bench.command(&[0xe6, 0, 0, 0, 19, 2, 18, 0x1b, 0xff])[..2], [0x40, 4]);
    assert_eq!(bench.command(&[0xe6, 1, 0, 0, 1, 2, 18, 0x1b, 0xff])[..2], [0x41, 1]);
    assert_eq!(bench.command(&[0x1f]), [0x80]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn random_accesses(accesses in prop::collection::vec(
        (0u8..3, 0x3f0u64..0x3f8, any::<u8>()), 0..300,
    )) {
        let bench = bench();
        for (kind, port, value) in accesses {
            match kind {
                0 => lock(&bench.floppy).read(port, &mut [value]),
                1 => lock(&bench.floppy).write(port, &[value]),
                _ => bench.program_dma(value, 0xff00, u16::from(value) * 64 + 1),
            }
        }
        let saved = serde_json::to_string(lock(&bench.floppy).state()).unwrap();
        lock(&bench.floppy).restore(serde_json::from_str(&saved).unwrap());
    }
}
