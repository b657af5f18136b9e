//! Guests for comparison: one CPU and memory for each engine, in the same state.

use crate::emit::Strategy;
use crate::{Config, Engine};
use decoder::Mnemonic;
use interp::{Exit, sync};
use softmmu::{GuestRam, LowBox, Mmu, NullBus, RamRange};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use x86::control::{cr0, cr4, efer};
use x86::cpuid::Feature;
use x86::regs::gpr;
use x86::{Cpu, Fault, SegReg, Segment, flags};

/// Where code goes.
pub(super) const CODE: u64 = 0x8000;
/// Pages for data.
pub(super) const DATA: u64 = 0x1_0000;
/// Bytes of data.
pub(super) const DATA_SIZE: usize = 0x8000;
/// Bytes that are compared: segments of 64 KiB reach beyond the data.
const MEMORY_SIZE: usize = 0x2_0000;
/// The initial stack pointer.
pub(super) const STACK: u64 = 0xF800;
/// Pages that belong to the user under [`Start::Smap`].
pub(super) const USER: u64 = 2 << 20;
/// Bases of CS, SS and ES in the modes that have them.
const CODE_BASE: u64 = 0x7000;
const STACK_BASE: u64 = 0xF000;
const EXTRA: u64 = 0x1_2340;
/// Limit of SS.
const STACK_LIMIT: u32 = 0xBFF;
const RAM: u64 = 4 << 20;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;

/// The state that a guest starts in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Start {
    /// 32-bit flat segments, no paging.
    Protected32,
    /// 64-bit mode, CPL 0.
    Long,
    /// 64-bit mode, CPL 3.
    User64,
    /// 64-bit mode, CPL 0, under SMAP; only the pages from [`USER`] on belong to the user.
    Smap,
    /// Real mode. GS has 4 GiB.
    Real,
    /// V86 mode, IOPL 3.
    Virtual8086,
    /// 16-bit code; segments with bases and limits, one that expands down, and a null one.
    Protected16,
    /// 32-bit code on such segments, one of them read-only.
    Based32,
    /// 32-bit code with a 16-bit stack.
    Stack16,
}

impl Start {
    /// All that have a base in CS.
    pub(super) const SEGMENTED: [Start; 5] =
        [Start::Real, Start::Virtual8086, Start::Protected16, Start::Based32, Start::Stack16];

    /// Code size in bits.
    pub(super) fn bits(self) -> u32 {
        match self {
            Start::Real | Start::Virtual8086 | Start::Protected16 => 16,
            Start::Protected32 | Start::Based32 | Start::Stack16 => 32,
            Start::Long | Start::User64 | Start::Smap => 64,
        }
    }

    /// Base of CS.
    pub(super) fn code_base(self) -> u64 {
        if Start::SEGMENTED.contains(&self) { CODE_BASE } else { 0 }
    }

    /// Base and limit of ES, CS, SS, DS, FS and GS, and a descriptor with the rights.
    fn segments(self) -> [(u64, u32, u64); 6] {
        let (data, code16, code32) = (0x93 << 40, 0x9B << 40, 0x0040_9B00_0000_0000);
        let (stack32, down, read_only) = (0x0040_9300_0000_0000, 0x97 << 40, 0x91 << 40);
        let (whole, stack) = (0xFFFF_FFFF, STACK_LIMIT);
        let real = |rights: u64, last| {
            let wide = |base| (base, 0xFFFF, rights << 40);
            let gs = (0x3_0000, last, rights << 40);
            [wide(EXTRA), wide(CODE_BASE), wide(STACK_BASE), wide(DATA), wide(DATA + 0x4000), gs]
        };
        let code = |rights| (CODE_BASE, 0x1FFF, rights);
        match self {
            Start::Real => real(0x93, whole),
            Start::Virtual8086 => real(0xF3, 0xFFFF),
            Start::Protected16 => [
                (EXTRA, 0xFFFF, data),
                code(code16),
                (STACK_BASE, stack, data),
                (DATA, 0x7FFF, data),
                (DATA, 0x3FFF, down),
                (0, 0, 0),
            ],
            Start::Based32 => [
                (EXTRA, whole, data),
                code(code32),
                (STACK_BASE, stack, stack32),
                (DATA, 0x7FFF, data),
                (DATA, 0x3FFF, down),
                (DATA, 0xFFFF, read_only),
            ],
            Start::Stack16 => [
                (EXTRA, 0x7FFE, data),
                (CODE_BASE, whole, code32),
                (STACK_BASE, stack, data),
                (DATA, whole, data),
                (DATA + 1, 0xFFFF, data),
                (0, whole, data),
            ],
            Start::Protected32 => {
                let mut all = [(0, whole, 0x0040_9300_0000_0000); 6];
                all[SegReg::CS as usize].2 = code32;
                all
            }
            Start::Long | Start::Smap => {
                let mut all = [(0, whole, 0x0040_9300_0000_0000); 6];
                all[SegReg::CS as usize].2 = 0x0020_9B00_0000_0000;
                all
            }
            Start::User64 => {
                let mut all = [(0, whole, 0x0040_F300_0000_0000); 6];
                all[SegReg::CS as usize].2 = 0x0020_FB00_0000_0000;
                all
            }
        }
    }
}

/// What runs the guest.
pub(super) enum Runner {
    Interp(Box<interp::Engine>),
    Jit(Box<Engine>),
}

/// How a run ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    /// An exception that nobody handles, and its RIP.
    Fault(Fault, u64),
    /// HLT.
    Stopped,
    /// The instruction limit.
    Limit,
}

/// A guest.
pub(super) struct Guest {
    pub(super) cpu: LowBox<Cpu>,
    pub(super) mmu: Mmu,
    pub(super) runner: Runner,
    start: Start,
}

/// All kinds of runners.
pub(super) fn guests(start: Start) -> Vec<Guest> {
    let config = Config { threshold: 0, ..Config::default() };
    let jit = |config| Runner::Jit(Box::new(Engine::new(config).expect("an engine")));
    [
        Runner::Interp(Box::default()),
        jit(Config { helpers_only: true, ..config }),
        jit(Config { precise_flags: true, ..config }),
        jit(Config { notes: true, ..config }),
    ]
    .into_iter()
    .map(|runner| Guest::new(start, runner))
    .collect()
}

/// A guest whose translator keeps no exact limit.
pub(super) fn uncounted(start: Start) -> Guest {
    let config = Config { threshold: 0, exact_limit: false, ..Config::default() };
    Guest::new(start, Runner::Jit(Box::new(Engine::new(config).expect("an engine"))))
}

impl Guest {
    /// Instructions executed.
    pub(super) fn executed(&self) -> u64 {
        let counted = match &self.runner {
            Runner::Interp(_) => 0,
            Runner::Jit(engine) => engine.counted(),
        };
        self.cpu.instructions + counted
    }

    pub(super) fn new(start: Start, runner: Runner) -> Guest {
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM");
        let mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("MMU");
        let cpu = LowBox::new(Cpu::new()).expect("low memory");
        let mut guest = Guest { cpu, mmu, runner, start };
        guest.cpu.idtr.limit = 0;
        let cpu = &mut *guest.cpu;
        cpu.cr0 = cr0::ET | cr0::NE;
        cpu.cr0 |= if start == Start::Real { 0 } else { cr0::PE };
        cpu.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        cpu.xcr0 = if cpu.policy.has(Feature::Avx512F) { 0xE7 } else { 7 };
        cpu.x87 = x86::fpu::X87::INIT;
        if start.bits() == 64 {
            cpu.cr0 |= cr0::PG | cr0::WP;
            cpu.cr3 = PML4;
            cpu.cr4 |= cr4::PAE;
            cpu.cr4 |= if start == Start::Smap { cr4::SMAP } else { 0 };
            cpu.efer = efer::LME | efer::LMA | efer::SCE;
            guest.write(PML4, &(PDPT | 7).to_le_bytes());
            guest.write(PDPT, &(PD | 7).to_le_bytes());
            for i in 0..512u64 {
                let flags = if start == Start::Smap && i == 0 { 0x83 } else { 0x87 };
                guest.write(PD + 8 * i, &(i << 21 | flags).to_le_bytes());
            }
        }
        sync::paging_changed(&mut guest.cpu, &mut guest.mmu).expect("valid paging");
        guest.load_segments();
        guest
    }

    fn load_segments(&mut self) {
        let segments = self.start.segments();
        for (register, (base, limit, descriptor)) in self.cpu.seg.iter_mut().zip(segments) {
            let loaded = Segment::from_descriptor(0, descriptor);
            *register = Segment { base, limit, selector: (base >> 4) as u16, ..loaded };
        }
        sync::mode_changed(&mut self.cpu, &mut self.mmu);
    }

    pub(super) fn write(&mut self, gpa: u64, bytes: &[u8]) {
        self.mmu.phys_write(gpa, bytes);
    }

    /// Everything but the code as at the beginning, general-purpose registers as given.
    pub(super) fn reset(&mut self, gprs: &[u64; 16]) {
        self.cpu.gpr = *gprs;
        self.cpu.rflags = flags::FIXED_ONE;
        if Start::SEGMENTED.contains(&self.start) {
            // A 16-bit stack pointer leaves the rest alone.
            let rest = if self.start == Start::Based32 { 0 } else { 0x5AA5_0000 };
            self.cpu.gpr[gpr::RSP] = STACK - STACK_BASE + rest;
        }
        if self.start == Start::Virtual8086 {
            self.cpu.rflags |= flags::VM | flags::IOPL;
        }
        self.load_segments();
        self.cpu.activity = x86::Activity::Running;
        self.cpu.mxcsr = 0x1F80;
        self.cpu.x87 = x86::fpu::X87::INIT;
        self.cpu.cr2 = 0;
        for (n, register) in self.cpu.vector.iter_mut().enumerate() {
            for (i, word) in register.0.iter_mut().enumerate() {
                *word = (n as u64 * 0x0102_0304_0506_0708).rotate_left(7 * i as u32);
            }
        }
        for (n, register) in self.cpu.opmask.iter_mut().enumerate() {
            *register = 0x0123_4567_89AB_CDEFu64.rotate_left(9 * n as u32);
        }
        static DATA_BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let data =
            DATA_BYTES.get_or_init(|| (0..MEMORY_SIZE).map(|i| (i * 7 + i / 256) as u8).collect());
        self.write(DATA, &data[..self.memory_size()]);
        self.write(STACK - 0x400, &[0x5A; 0x800]);
    }

    /// Runs `code` from [`CODE`] on.
    pub(super) fn run(&mut self, code: &[u8], limit: u64) -> Ended {
        self.write(CODE, code);
        match &mut self.runner {
            Runner::Interp(engine) => engine.flush(),
            Runner::Jit(engine) => engine.flush(),
        }
        self.cpu.rip = CODE - self.start.code_base();
        self.resume(limit)
    }

    /// Runs on.
    pub(super) fn resume(&mut self, limit: u64) -> Ended {
        let exit = match &mut self.runner {
            Runner::Interp(engine) => engine.run(&mut self.cpu, &mut self.mmu, limit),
            Runner::Jit(engine) => engine.run(&mut self.cpu, &mut self.mmu, limit),
        };
        match exit {
            Exit::Limit => Ended::Limit,
            Exit::Stopped => Ended::Stopped,
            Exit::TripleFault(triple) => Ended::Fault(triple.chain[0].fault, triple.at.1),
            Exit::Request => panic!("nobody asked"),
        }
    }

    fn memory_size(&self) -> usize {
        if Start::SEGMENTED.contains(&self.start) { MEMORY_SIZE } else { DATA_SIZE }
    }

    pub(super) fn data(&mut self) -> Vec<u8> {
        let mut data = vec![0; self.memory_size()];
        self.mmu.phys_read(DATA, &mut data);
        let mut stack = vec![0; 0x800];
        self.mmu.phys_read(STACK - 0x400, &mut stack);
        data.extend(stack);
        data
    }
}

/// Panics unless all guests ended alike. Flags are compared where `flag_mask` has ones, and all of
/// them where both sides leave them as the host does. `end` is the address of the UD2 behind the
/// code.
pub(super) fn compare(
    guests: &mut [Guest],
    ends: &[Ended],
    flag_mask: u64,
    end: Option<u64>,
    what: &str,
) {
    let (reference, others) = guests.split_first_mut().expect("guests");
    let data = reference.data();
    for (i, other) in others.iter_mut().enumerate() {
        let i = i + 1;
        assert_eq!(ends[i], ends[0], "runner {i}: end\n{what}");
        let (a, b) = (&reference.cpu, &other.cpu);
        assert_eq!(b.gpr.map(hex), a.gpr.map(hex), "runner {i}: registers\n{what}");
        assert_eq!(hex(b.rip), hex(a.rip), "runner {i}: RIP\n{what}");
        assert_eq!(b.seg, a.seg, "runner {i}: segments\n{what}");
        // Without precise flags a fault may find flags that nobody would have read.
        let fault = matches!(ends[0], Ended::Fault(_, rip) if Some(rip) != end);
        if i < 3 || !fault {
            // Copies leave undefined flags as the host does, and hosts differ.
            let mask = if i == 1 { flags::ALL } else { flag_mask };
            assert_eq!(hex(b.rflags & mask), hex(a.rflags & mask), "runner {i}: flags\n{what}");
        }
        assert_eq!(other.executed(), reference.executed(), "runner {i}: instructions\n{what}");
        assert_eq!(b.vector, a.vector, "runner {i}: vectors\n{what}");
        assert_eq!(b.opmask, a.opmask, "runner {i}: opmasks\n{what}");
        assert_eq!(b.mxcsr, a.mxcsr, "runner {i}: MXCSR\n{what}");
        assert_eq!(b.x87.st, a.x87.st, "runner {i}: x87 registers\n{what}");
        assert_eq!(
            (b.x87.fcw, b.x87.fsw, b.x87.ftw),
            (a.x87.fcw, a.x87.fsw, a.x87.ftw),
            "runner {i}: x87 control\n{what}"
        );
        assert_eq!(
            (b.x87.fop, hex(b.x87.fip), hex(b.x87.fdp)),
            (a.x87.fop, hex(a.x87.fip), hex(a.x87.fdp)),
            "runner {i}: x87 pointers\n{what}"
        );
        let memory = other.data();
        if memory != data {
            let at = memory.iter().zip(&data).position(|(a, b)| a != b);
            panic!("runner {i}: memory differs at offset {at:x?}\n{what}");
        }
    }
    if let (Some(guest), Ended::Fault(_, rip)) = (guests.last(), &ends[0]) {
        note_compared(guest, *rip);
    }
}

fn hex(value: u64) -> String {
    format!("{value:#x}")
}

/// General-purpose registers for a snippet: RSP is the stack.
pub(super) fn with_stack(mut gprs: [u64; 16]) -> [u64; 16] {
    gprs[gpr::RSP] = STACK;
    gprs
}

/// Mnemonics that were emitted by hand in code that all runners agreed on.
static COMPARED: Mutex<BTreeSet<Mnemonic>> = Mutex::new(BTreeSet::new());

/// What was emitted by hand in any comparison so far.
pub(super) fn compared_by_hand() -> BTreeSet<Mnemonic> {
    COMPARED.lock().expect("no test panics with the lock").clone()
}

/// Remembers what the translator of `guest` emitted by hand up to `rip`, where the guest ended:
/// what lies behind may not have been executed.
fn note_compared(guest: &Guest, rip: u64) {
    let Runner::Jit(engine) = &guest.runner else { return };
    let mut compared = COMPARED.lock().expect("no test panics with the lock");
    for (&index, noted) in &engine.notes {
        let mut at = engine.cache.blocks[index as usize].place.rip;
        for (op, &strategy) in noted.ops.iter().zip(&noted.notes.strategies) {
            if at < rip && strategy == Strategy::Custom {
                compared.insert(op.insn.mnemonic());
            }
            at += u64::from(op.insn.len);
        }
    }
}
