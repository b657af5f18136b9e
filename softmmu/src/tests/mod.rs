//! Tests of the MMU as a whole, on page tables built in guest RAM.

mod access;
mod code;
mod faults;
mod flush;
mod formats;
mod random;
mod trace;

use std::sync::{Arc, Mutex};

use x86::Fault;
use x86::control::{cr0, cr4, efer};

use crate::bus::{MsrResult, NullBus, PhysBus};
use crate::mmu::Mmu;
use crate::paging::{PagingMode, PagingState};
use crate::ram::{GuestRam, RamRange};
use crate::walk::entry::{A, D, FRAME, P, PS, RW, US};

/// RAM of the test machine: 16 MiB from 0 on, and 2 MiB from 4 GiB on.
const RAM: [RamRange; 2] =
    [RamRange { gpa: 0, len: 16 << 20 }, RamRange { gpa: 1 << 32, len: 2 << 20 }];
/// Where the test's root table lies.
const ROOT: u64 = 0x10_0000;
/// Tables are allocated from here on.
const TABLES: u64 = 0x10_1000;
/// A frame for data.
const DATA: u64 = 0x40_0000;
/// All permissive bits of an entry.
const ALL: u64 = P | RW | US;

/// Device memory that records its accesses.
#[derive(Default)]
struct RecordingBus {
    log: Mutex<Vec<(char, u64, Vec<u8>)>>,
}

impl RecordingBus {
    fn take(&self) -> Vec<(char, u64, Vec<u8>)> {
        std::mem::take(&mut *self.log.lock().expect("log"))
    }
}

impl PhysBus for RecordingBus {
    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        for (index, byte) in data.iter_mut().enumerate() {
            *byte = gpa.wrapping_add(index as u64) as u8;
        }
        self.log.lock().expect("log").push(('r', gpa, data.to_vec()));
    }
    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.log.lock().expect("log").push(('w', gpa, data.to_vec()));
    }
    fn port_read(&self, port: u16, size: u8) -> u32 {
        NullBus.port_read(port, size)
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
}

/// A machine with page tables.
struct Guest {
    mmu: Mmu,
    bus: Arc<RecordingBus>,
    state: PagingState,
    next_table: u64,
}

/// Registers for a paging mode, everything permissive: WP, NXE, PGE and PSE on, no SMEP, SMAP
/// or keys; MAXPHYADDR 40.
fn paging(mode: PagingMode) -> PagingState {
    let (cr0, mut cr4, mut efer) = (cr0::PE | cr0::PG | cr0::WP, cr4::PGE | cr4::PSE, 0);
    match mode {
        PagingMode::None => return PagingState { maxphyaddr: 40, ..PagingState::default() },
        PagingMode::Legacy32 => {}
        PagingMode::Pae => cr4 |= cr4::PAE,
        PagingMode::Level4 | PagingMode::Level5 => {
            cr4 |= cr4::PAE;
            efer |= efer::LME | efer::LMA;
        }
    }
    if mode == PagingMode::Level5 {
        cr4 |= cr4::LA57;
    }
    if mode != PagingMode::Legacy32 {
        efer |= efer::NXE;
    }
    PagingState { cr0, cr3: ROOT, cr4, efer, pkru: 0, maxphyaddr: 40, without_1gib_pages: false }
}

impl Guest {
    /// A guest in the given mode, with an empty root table (under PAE with four present
    /// PDPTEs).
    fn new(mode: PagingMode) -> Guest {
        let bus = Arc::new(RecordingBus::default());
        let ram = Arc::new(GuestRam::new(&RAM).expect("ram"));
        let mmu = Mmu::new(ram, bus.clone()).expect("mmu");
        let mut guest = Guest { mmu, bus, state: paging(mode), next_table: TABLES };
        if mode == PagingMode::Pae {
            for index in 0..4 {
                let table = guest.table();
                guest.write(ROOT + index * 8, 8, table | P);
            }
        }
        guest.reload();
        guest
    }

    /// A second vCPU's MMU on the same RAM.
    fn second_vcpu(&self) -> Mmu {
        let mut mmu = Mmu::new(self.mmu.ram.clone(), Arc::new(NullBus)).expect("mmu");
        mmu.set_paging(&self.state).expect("paging");
        mmu
    }

    fn reload(&mut self) {
        let state = self.state;
        self.mmu.set_paging(&state).expect("paging");
    }

    fn table(&mut self) -> u64 {
        let table = self.next_table;
        self.next_table += 4096;
        table
    }

    fn read(&self, gpa: u64, size: usize) -> u64 {
        let mut bytes = [0; 8];
        self.mmu.ram.read(gpa, &mut bytes[..size]).expect("ram");
        u64::from_le_bytes(bytes)
    }

    fn write(&self, gpa: u64, size: usize, value: u64) {
        self.mmu.ram.write(gpa, &value.to_le_bytes()[..size]).expect("ram");
    }

    /// Size of an entry, in bytes.
    fn entry_size(&self) -> usize {
        if self.mmu.paging_mode() == PagingMode::Legacy32 { 4 } else { 8 }
    }

    /// Physical addresses of the entries for `linear` from the top level down to `level` (1 is
    /// the page table). Tables that miss are made, with permissive entries.
    fn path(&mut self, root: u64, linear: u64, level: u32) -> Vec<u64> {
        let size = self.entry_size();
        let (top, bits) = match self.mmu.paging_mode() {
            PagingMode::None => (0, 0),
            PagingMode::Legacy32 => (2, 10),
            PagingMode::Pae => (3, 9),
            PagingMode::Level4 => (4, 9),
            PagingMode::Level5 => (5, 9),
        };
        let mut slots = Vec::new();
        let mut table = root;
        for at in (level..=top).rev() {
            let index = linear >> (12 + bits * (at - 1)) & ((1 << bits) - 1);
            let slot = table + index * size as u64;
            slots.push(slot);
            if at == level {
                break;
            }
            let mut entry = self.read(slot, size);
            if entry & P == 0 || entry & PS != 0 && at < 4 {
                entry = self.table() | ALL;
                self.write(slot, size, entry);
            }
            table = entry & FRAME & if size == 4 { 0xFFFF_F000 } else { u64::MAX };
        }
        slots
    }

    /// Maps the 4 KiB page of `linear` with a leaf entry; returns where the entry lies.
    fn map(&mut self, linear: u64, entry: u64) -> u64 {
        self.map_at(ROOT, linear, 1, entry)
    }

    /// Writes the entry for `linear` at a level under a root table; returns where it lies.
    fn map_at(&mut self, root: u64, linear: u64, level: u32, entry: u64) -> u64 {
        let slot = self.path(root, linear, level).pop().expect("levels");
        self.write(slot, self.entry_size(), entry);
        slot
    }

    /// The low byte of an entry's flags that the processor maintains.
    fn accessed_dirty(&self, slot: u64) -> (bool, bool) {
        let entry = self.read(slot, self.entry_size());
        (entry & A != 0, entry & D != 0)
    }

    fn set_user(&mut self) {
        self.mmu.set_privilege(3, false);
    }
}

/// The error code of a page fault.
fn code<T: std::fmt::Debug>(result: Result<T, Fault>) -> u32 {
    let fault = result.expect_err("a page fault");
    assert_eq!(fault.vector(), 14, "{fault}");
    fault.error_code().expect("error code")
}

/// Every mode with paging.
const MODES: [PagingMode; 4] =
    [PagingMode::Legacy32, PagingMode::Pae, PagingMode::Level4, PagingMode::Level5];
