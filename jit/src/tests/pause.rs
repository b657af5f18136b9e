//! A guest that spins is heard of: it may wait for another that has no processor.

use super::kit::{Ended, Start, guests};
use softmmu::{MsrResult, PhysBus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Counts PAUSE instructions.
#[derive(Default)]
struct Pauses(AtomicU32);

impl PhysBus for Pauses {
    fn mmio_read(&self, _gpa: u64, _data: &mut [u8]) {}
    fn mmio_write(&self, _gpa: u64, _data: &[u8]) {}
    fn port_read(&self, _port: u16, _size: u8) -> u32 {
        0
    }
    fn port_write(&self, _port: u16, _size: u8, _value: u32) {}
    fn read_msr(&self, _msr: u32) -> MsrResult<u64> {
        MsrResult::Unknown
    }
    fn write_msr(&self, _msr: u32, _value: u64) -> MsrResult<()> {
        MsrResult::Unknown
    }
    fn task_priority(&self) -> u8 {
        0
    }
    fn set_task_priority(&self, _value: u8) {}
    fn host_tsc(&self) -> u64 {
        0
    }
    fn pause(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn every_pause_reaches_the_bus() {
    const ROUNDS: u8 = 200;
    // spin: pause; dec ecx; jnz spin; hlt
    let code = [0xF3, 0x90, 0xFF, 0xC9, 0x75, 0xFA, 0xF4];
    for (i, mut guest) in guests(Start::Long).into_iter().enumerate() {
        let pauses = Arc::new(Pauses::default());
        guest.mmu.bus = pauses.clone();
        let mut gprs = [0; 16];
        gprs[1] = u64::from(ROUNDS);
        guest.reset(&gprs);
        assert_eq!(guest.run(&code, 10_000), Ended::Stopped, "runner {i}");
        assert_eq!(pauses.0.load(Ordering::Relaxed), u32::from(ROUNDS), "runner {i}");
    }
}
