//! A guest for tests: a CPU, flat memory and an engine, in any mode, without devices.
//!
//! 4 MiB of RAM from address 0. Code goes to [`CODE`], data to [`DATA`]; the stack grows down from
//! [`STACK`]. All three lie below 64 KiB, so that they are reachable in real mode. In long mode
//! the first 1 GiB is identity-mapped, writable and open to user mode; [`Kit::map`] adds pages
//! elsewhere.

// Tests of every family use a part of it.
#![allow(dead_code)]

use crate::{Engine, Exit, Flow, sync, table};
use decoder::decode_for;
use iced_x86::code_asm::CodeAssembler;
use softmmu::{GuestRam, Mmu, NullBus, RamRange};
use std::sync::Arc;
use x86::control::{cr0, cr4, efer};
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg, Segment, flags};

/// Where [`Kit::run`] puts code.
pub(crate) const CODE: u64 = 0x8000;
/// A page for data.
pub(crate) const DATA: u64 = 0xA000;
/// The initial stack pointer.
pub(crate) const STACK: u64 = 0xF000;
/// Bytes of RAM.
pub(crate) const RAM: u64 = 4 << 20;

/// The task-state segment.
const TSS: u64 = 0x6000;
/// Page tables of long mode.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
/// Tables of [`Kit::map`] are taken from here on.
const MORE_TABLES: u64 = 0x10_0000;
const TABLE_FLAGS: u64 = 0b111;
const LARGE: u64 = 1 << 7;

/// The state that a kit starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Start {
    /// Real mode, all segments at base 0.
    Real,
    /// Protected mode, 16-bit flat segments, CPL 0.
    Protected16,
    /// Protected mode, 32-bit flat segments, CPL 0.
    Protected32,
    /// 64-bit mode, CPL 0.
    Long,
    /// 64-bit mode, CPL 3.
    User64,
}

/// How a run ended: always in an exception that nobody handles (the IDT is empty).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ended {
    /// The exception.
    pub(crate) fault: Fault,
    /// Its RIP.
    pub(crate) rip: u64,
}

/// The guest.
pub(crate) struct Kit {
    pub(crate) cpu: Cpu,
    pub(crate) mmu: Mmu,
    pub(crate) engine: Engine,
    next_table: u64,
}

impl Kit {
    /// A guest in the given state; registers are zero but for RSP and RIP.
    pub(crate) fn new(start: Start) -> Kit {
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM");
        let mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("MMU");
        let mut kit = Kit { cpu: Cpu::new(), mmu, engine: Engine::new(), next_table: MORE_TABLES };
        kit.cpu.gpr = [0; 16];
        kit.cpu.gpr[gpr::RSP] = STACK;
        kit.cpu.rip = CODE;
        kit.cpu.idtr.limit = 0;
        // A TSS without an I/O permission bitmap: its offset is the limit + 1.
        kit.cpu.tr.base = TSS;
        kit.cpu.tr.limit = 0x67;
        kit.write::<u16>(TSS + 0x66, 0x68);
        kit.set_start(start);
        sync::paging_changed(&mut kit.cpu, &mut kit.mmu).expect("valid paging");
        kit
    }

    fn set_start(&mut self, start: Start) {
        let (code, data) = match start {
            Start::Real => (0x0000_9B00_0000_FFFF, 0x0000_9300_0000_FFFF),
            Start::Protected16 => (0x008F_9B00_0000_FFFF, 0x008F_9300_0000_FFFF),
            Start::Protected32 => (0x00CF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF),
            Start::Long => (0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF),
            Start::User64 => (0x00AF_FB00_0000_FFFF, 0x00CF_F300_0000_FFFF),
        };
        self.cpu.seg = [Segment::from_descriptor(16, data); 6];
        self.cpu.seg[SegReg::CS as usize] = Segment::from_descriptor(8, code);
        self.cpu.cr0 = cr0::ET | cr0::NE;
        match start {
            Start::Real => self.cpu.seg.iter_mut().for_each(|s| s.selector = 0),
            Start::Protected16 | Start::Protected32 => self.cpu.cr0 |= cr0::PE,
            Start::Long | Start::User64 => self.enable_long_mode(),
        }
    }

    fn enable_long_mode(&mut self) {
        self.write::<u64>(PML4, PDPT | TABLE_FLAGS);
        self.write::<u64>(PDPT, PD | TABLE_FLAGS);
        for i in 0..512 {
            self.write::<u64>(PD + 8 * i, i << 21 | LARGE | TABLE_FLAGS);
        }
        self.cpu.cr0 |= cr0::PE | cr0::PG | cr0::WP;
        self.cpu.cr3 = PML4;
        self.cpu.cr4 = cr4::PAE | cr4::OSFXSR;
        self.cpu.efer = efer::LME | efer::LMA | efer::SCE;
    }

    /// Maps the page at `linear` to physical address `gpa` (long mode).
    pub(crate) fn map(&mut self, linear: u64, gpa: u64) {
        let mut table = PML4;
        for shift in [39, 30, 21] {
            let entry = table + 8 * (linear >> shift & 511);
            if self.read::<u64>(entry) & 1 == 0 {
                self.write::<u64>(entry, self.next_table | TABLE_FLAGS);
                self.next_table += 0x1000;
            }
            table = self.read::<u64>(entry) & !0xFFF;
        }
        self.write::<u64>(table + 8 * (linear >> 12 & 511), gpa & !0xFFF | TABLE_FLAGS);
        self.mmu.flush_all();
    }

    /// Reads physical memory.
    pub(crate) fn read<T: softmmu::Width>(&mut self, gpa: u64) -> T {
        let mut bytes = [0; 8];
        self.mmu.phys_read(gpa, &mut bytes[..size_of::<T>()]);
        T::from_u64(u64::from_le_bytes(bytes))
    }

    /// Writes physical memory.
    pub(crate) fn write<T: softmmu::Width>(&mut self, gpa: u64, value: T) {
        self.mmu.phys_write(gpa, &value.to_u64().to_le_bytes()[..size_of::<T>()]);
    }

    /// Executes one instruction given as bytes, at the current RIP, without an engine: RIP ends
    /// where the handler leaves it, and a fault is returned instead of delivered.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<Flow, Fault> {
        let mut insn = decode_for(self.cpu.policy.vendor(), bytes, self.cpu.key.bits())
            .expect("an instruction");
        insn.handle = native::prepare(&insn);
        let start = self.cpu.rip;
        self.cpu.rip = start.wrapping_add(u64::from(insn.len));
        let result = table::handler(&insn)(&mut self.cpu, &mut self.mmu, &insn);
        if let Err(fault) = result
            && !fault.is_trap()
        {
            self.cpu.rip = start;
        }
        result
    }

    /// Runs bytes from [`CODE`] on, a UD2 behind them, until an exception.
    pub(crate) fn run_bytes(&mut self, bytes: &[u8]) -> Ended {
        let mut code = bytes.to_vec();
        code.extend([0x0F, 0x0B]);
        self.mmu.phys_write(CODE, &code);
        self.engine.flush();
        self.cpu.rip = CODE;
        self.cpu.activity = x86::Activity::Running;
        match self.engine.run(&mut self.cpu, &mut self.mmu, 10_000_000) {
            Exit::TripleFault(triple) => Ended { fault: triple.chain[0].fault, rip: triple.at.1 },
            other => panic!("ended with {other:?} at {:#x}", self.cpu.rip),
        }
    }

    /// Runs what `program` assembles for the current code size, until an exception.
    pub(crate) fn run(&mut self, program: impl FnOnce(&mut CodeAssembler)) -> Ended {
        let mut assembler = CodeAssembler::new(self.cpu.key.bits()).expect("a code size");
        program(&mut assembler);
        let bytes = assembler.assemble(CODE).expect("assembles");
        self.run_bytes(&bytes)
    }

    /// [`Kit::run`] for a program that must reach its end.
    pub(crate) fn run_through(&mut self, program: impl FnOnce(&mut CodeAssembler)) {
        let mut assembler = CodeAssembler::new(self.cpu.key.bits()).expect("a code size");
        program(&mut assembler);
        let bytes = assembler.assemble(CODE).expect("assembles");
        let ended = self.run_bytes(&bytes);
        let end = CODE + bytes.len() as u64;
        assert_eq!(ended, Ended { fault: Fault::UD, rip: end }, "did not reach the end {end:#x}");
    }

    /// The arithmetic flags that are set.
    pub(crate) fn status(&self) -> u64 {
        self.cpu.rflags & flags::ARITHMETIC
    }
}
