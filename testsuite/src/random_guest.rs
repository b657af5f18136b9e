//! Guests of random code, in every mode, for tests that run it.
//!
//! The guest gets tables that work: descriptors of every kind, an IDT whose gates lead to more
//! random code, an identity map. So its exceptions are delivered, and its execution goes on.

use x86::control::{cr0, cr4, efer};
use x86::{Cpu, DescriptorTable, SegReg, Segment, flags};

/// Bytes of RAM. The identity map goes on behind it.
pub const RAM: u64 = 2 << 20;
/// Where execution starts.
pub const CODE: u64 = 0x8000;
/// Bytes of random code.
pub const CODE_SIZE: u64 = 0x7000;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PAGE_DIRECTORY: u64 = 0x3000;
const LEGACY_DIRECTORY: u64 = 0x4000;
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const STACK: u64 = 0x2_0000;

/// Where the paging structures lie: first byte, and the one behind the last.
pub const PAGING_STRUCTURES: (u64, u64) = (PML4, GDT);

/// Calls the macro `$with` with the modes that a guest can start in: a name for a test, and the
/// `random_guest::Start`.
#[macro_export]
macro_rules! for_each_start {
    ($with:ident) => {
        $with! {
            real_mode: Real,
            protected_mode_16: Protected16,
            protected_mode_32: Protected32,
            protected_mode_paged_user: Paged32User,
            virtual_8086_mode: Virtual8086,
            compatibility_mode: Compatibility,
            long_mode: Long,
            long_mode_user: LongUser,
        }
    };
}

macro_rules! start {
    ($($name:ident: $start:ident,)*) => {
        /// The mode that a guest starts in.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Start {
            $($start,)*
        }
    };
}

for_each_start!(start);

impl Start {
    fn is_long(self) -> bool {
        matches!(self, Start::Compatibility | Start::Long | Start::LongUser)
    }
}

/// Descriptors at 8, 16, ...: 16, 32 and 64-bit code, data, those for ring 3, and a TSS.
const DESCRIPTORS: [u64; 10] = [
    0x008F_9B00_0000_FFFF,
    0x00CF_9B00_0000_FFFF,
    0x00AF_9B00_0000_FFFF,
    0x008F_9300_0000_FFFF,
    0x00CF_9300_0000_FFFF,
    0x00CF_FB00_0000_FFFF,
    0x00AF_FB00_0000_FFFF,
    0x00CF_F300_0000_FFFF,
    0x0000_8B00_7000_0067,
    0,
];
const CODE16: u16 = 8;
const CODE32: u16 = 16;
const CODE64: u16 = 24;
const DATA16: u16 = 32;
const DATA32: u16 = 40;
const USER_CODE32: u16 = 48 | 3;
const USER_CODE64: u16 = 56 | 3;
const USER_DATA: u16 = 64 | 3;
const TASK: u16 = 72;

/// A small generator (xorshift64*), so that a failing case is told by its seed.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Every seed gives a sequence of its own, but for the lowest bit.
    pub fn new(seed: u64) -> Random {
        Random(seed | 1)
    }

    /// The next 64 bits.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.word() >> 16) % n
    }

    /// A byte that is more often the beginning of something than an evenly spread one.
    pub fn code_byte(&mut self) -> u8 {
        const PREFIXES: [u8; 9] = [0x0F, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0xC4, 0xC5, 0x48];
        const SYSTEM: [u8; 9] = [0x8E, 0xCF, 0xEA, 0xCA, 0xCD, 0xFF, 0x0E, 0x9D, 0xC8];
        match self.below(7) {
            0 => PREFIXES[self.below(9) as usize],
            1 => SYSTEM[self.below(9) as usize],
            2 => 0xD8 + self.below(8) as u8,
            _ => self.below(256) as u8,
        }
    }
}

/// The guest's memory up to the end of its code: an IVT whose handlers are random code as well,
/// room for tables, and code that begins with `opening`.
pub fn memory(seed: u64, opening: &[u8]) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut memory = vec![0; (CODE + CODE_SIZE) as usize];
    for vector in 0..256 {
        let handler = CODE + random.word() % CODE_SIZE;
        put(&mut memory, vector * 4, &handler.to_le_bytes()[..4]);
    }
    for byte in &mut memory[CODE as usize..] {
        *byte = (random.word() >> 40) as u8;
    }
    put(&mut memory, CODE, opening);
    memory
}

fn put(memory: &mut [u8], at: u64, bytes: &[u8]) {
    memory[at as usize..][..bytes.len()].copy_from_slice(bytes);
}

/// Writes paging structures, descriptors and gates below [`CODE`]. Anew for each start: the guest
/// scribbles on them.
pub fn write_tables(memory: &mut [u8], start: Start, random: &mut Random) {
    put(memory, PML4, &(PDPT | 7).to_le_bytes());
    put(memory, PDPT, &(PAGE_DIRECTORY | 7).to_le_bytes());
    for i in 0..512u64 {
        put(memory, PAGE_DIRECTORY + 8 * i, &(i << 21 | 0x87).to_le_bytes());
    }
    for i in 0..1024u64 {
        let entry = (i << 22 | 0x87) as u32;
        put(memory, LEGACY_DIRECTORY + 4 * i, &entry.to_le_bytes());
    }
    for (i, descriptor) in DESCRIPTORS.iter().enumerate() {
        put(memory, GDT + 8 * (i as u64 + 1), &descriptor.to_le_bytes());
    }
    for vector in 0..256u64 {
        let target = CODE + random.word() % CODE_SIZE;
        let selector = u64::from(if start.is_long() { CODE64 } else { CODE32 });
        // Interrupt gates, DPL 3.
        let gate = target & 0xFFFF | selector << 16 | 0xEE00 << 32 | (target >> 16) << 48;
        let size = if start.is_long() { 16 } else { 8 };
        if vector * size < 0x1000 {
            put(memory, IDT + vector * size, &gate.to_le_bytes());
        }
    }
    if start.is_long() {
        put(memory, TSS + 4, &STACK.to_le_bytes());
    } else {
        put(memory, TSS + 4, &(STACK as u32).to_le_bytes());
        put(memory, TSS + 8, &u32::from(DATA32).to_le_bytes());
    }
    put(memory, TSS + 0x66, &0x68u16.to_le_bytes());
}

fn segment(selector: u16) -> Segment {
    Segment::from_descriptor(selector, DESCRIPTORS[usize::from(selector >> 3) - 1])
}

/// A CPU at the beginning of the code, with random registers. Tell the MMU before it runs:
/// `interp::sync::paging_changed`.
pub fn cpu(start: Start, random: &mut Random) -> Cpu {
    let mut cpu = Cpu::new();
    for register in &mut cpu.gpr {
        // Half of them point into RAM.
        let value = random.word();
        *register = if value & 1 == 0 { value >> 43 } else { value };
    }
    cpu.gpr[4] = STACK - 0x100;
    cpu.rip = CODE;
    cpu.gdtr = DescriptorTable { base: GDT, limit: 0xFFF };
    cpu.idtr = DescriptorTable { base: IDT, limit: 0xFFF };
    cpu.tr = segment(TASK);
    let (code, data) = match start {
        Start::Real | Start::Virtual8086 => (0, 0),
        Start::Protected16 => (CODE16, DATA16),
        Start::Protected32 => (CODE32, DATA32),
        Start::Paged32User | Start::Compatibility => (USER_CODE32, USER_DATA),
        Start::Long => (CODE64, DATA32),
        Start::LongUser => (USER_CODE64, USER_DATA),
    };
    if code == 0 {
        for segment in &mut cpu.seg {
            let access = if start == Start::Real { 0x93 } else { 0xF3 };
            *segment = Segment::from_descriptor(0, access << 40 | 0xFFFF);
        }
    } else {
        cpu.seg = [segment(data); 6];
        cpu.seg[SegReg::CS as usize] = segment(code);
    }
    cpu.cr0 = cr0::ET | cr0::NE;
    match start {
        Start::Real => cpu.idtr = DescriptorTable { base: 0, limit: 0x3FF },
        Start::Protected16 | Start::Protected32 => cpu.cr0 |= cr0::PE,
        Start::Virtual8086 => {
            cpu.cr0 |= cr0::PE;
            cpu.rflags |= flags::VM;
        }
        Start::Paged32User => {
            cpu.cr0 |= cr0::PE | cr0::PG;
            cpu.cr3 = LEGACY_DIRECTORY;
            cpu.cr4 = cr4::PSE | cr4::OSFXSR;
        }
        Start::Compatibility | Start::Long | Start::LongUser => {
            cpu.cr0 |= cr0::PE | cr0::PG | cr0::WP;
            cpu.cr3 = PML4;
            cpu.cr4 = cr4::PAE | cr4::OSFXSR;
            cpu.efer = efer::LME | efer::LMA | efer::SCE;
        }
    }
    cpu
}
