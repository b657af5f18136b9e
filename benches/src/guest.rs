//! A guest in 64-bit mode at CPL 0, without devices.

use softmmu::{GuestRam, LowBox, Mmu, NullBus, RamRange, TLB_ENTRIES};
use std::sync::Arc;
use x86::control::{cr0, cr4, efer};
use x86::regs::gpr;
use x86::{Activity, Cpu, SegReg, Segment, flags};

/// Where code goes: a whole number of pages, some of them for [`crate::chain`].
const CODE: u64 = 0x10_0000;
/// Data: the 2 MiB behind the code's.
pub const DATA: u64 = 0x20_0000;
const STACK: u64 = 0x8_0000;
const RAM: u64 = 4 << 20;
/// Linear addresses this far apart share a slot of the first-level TLB, and the physical page.
pub const PAGES_APART: u64 = (TLB_ENTRIES as u64) << 12;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
const PT: u64 = 0x4000;
const TABLE: u64 = 7;

/// What executes the guest.
pub enum Runner {
    /// The interpreter.
    Interp(Box<interp::Engine>),
    /// The translator.
    Jit(Box<jit::Engine>),
}

impl Runner {
    /// The interpreter.
    pub fn interp() -> Runner {
        Runner::Interp(Box::default())
    }

    /// The translator, which translates every block at its first execution.
    ///
    /// # Panics
    /// If the host refuses executable or low memory.
    pub fn jit() -> Runner {
        let config = jit::Config { threshold: 0, ..jit::Config::default() };
        Runner::Jit(Box::new(jit::Engine::new(config).expect("a host that can translate")))
    }
}

/// A guest: the first 1 GiB of linear addresses in 4 KiB pages, which repeat the RAM's 4 MiB.
pub struct Guest {
    /// Registers, where translated code can reach them.
    pub cpu: LowBox<Cpu>,
    /// Memory.
    pub mmu: Mmu,
    /// The engine.
    pub runner: Runner,
}

impl Guest {
    /// A guest with empty memory.
    ///
    /// # Panics
    /// If the host refuses memory.
    pub fn new(runner: Runner) -> Guest {
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM");
        let mut mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("an MMU");
        let mut write = |gpa: u64, value: u64| mmu.phys_write(gpa, &value.to_le_bytes());
        write(PML4, PDPT | TABLE);
        write(PDPT, PD | TABLE);
        // Two page tables cover the RAM; the page directory uses them again and again.
        for i in 0..512 {
            write(PD + 8 * i, (PT + (i & 1) * 0x1000) | TABLE);
            write(PT + 8 * i, i << 12 | TABLE);
            write(PT + 0x1000 + 8 * i, (512 + i) << 12 | TABLE);
        }
        let mut cpu = LowBox::new(Cpu::new()).expect("low memory");
        cpu.seg = [Segment::from_descriptor(16, 0x00CF_9300_0000_FFFF); 6];
        cpu.seg[SegReg::CS as usize] = Segment::from_descriptor(8, 0x00AF_9B00_0000_FFFF);
        cpu.idtr.limit = 0;
        cpu.cr0 = cr0::ET | cr0::NE | cr0::PE | cr0::PG | cr0::WP;
        cpu.cr3 = PML4;
        cpu.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE | cr4::PAE;
        cpu.efer = efer::LME | efer::LMA | efer::SCE;
        cpu.xcr0 = 7;
        cpu.x87 = x86::fpu::X87::INIT;
        interp::sync::paging_changed(&mut cpu, &mut mmu).expect("valid paging");
        Guest { cpu, mmu, runner }
    }

    /// Writes a program to memory and drops what was made of the one before.
    pub fn load(&mut self, code: &[u8]) {
        self.mmu.phys_write(CODE, code);
        self.flush();
    }

    /// Drops decoded and translated code.
    pub fn flush(&mut self) {
        match &mut self.runner {
            Runner::Interp(engine) => engine.flush(),
            Runner::Jit(engine) => engine.flush(),
        }
    }

    /// Sets the registers for a program's start, with `count` in RCX.
    pub fn rewind(&mut self, count: u64) {
        let cpu = &mut *self.cpu;
        cpu.gpr = [0; 16];
        cpu.gpr[gpr::RCX] = count;
        cpu.gpr[gpr::RSI] = DATA;
        cpu.gpr[gpr::RDI] = DATA + 0x8000;
        cpu.gpr[gpr::RSP] = STACK;
        cpu.rip = CODE;
        cpu.rflags = flags::FIXED_ONE;
        cpu.activity = Activity::Running;
    }

    /// Runs at most `limit` instructions.
    pub fn run(&mut self, limit: u64) -> interp::Exit {
        match &mut self.runner {
            Runner::Interp(engine) => engine.run(&mut self.cpu, &mut self.mmu, limit),
            Runner::Jit(engine) => engine.run(&mut self.cpu, &mut self.mmu, limit),
        }
    }

    /// Runs the loaded program with `count` in RCX to its HLT, and returns the instructions.
    ///
    /// # Panics
    /// If it ends in another way.
    pub fn complete(&mut self, count: u64) -> u64 {
        self.rewind(count);
        let before = self.cpu.instructions;
        let exit = self.run(u64::MAX);
        assert!(matches!(exit, interp::Exit::Stopped), "the program ended by {exit:?}");
        self.cpu.instructions - before
    }
}
