//! Random bytes as guest code, in every mode: the host process must survive, and must keep the
//! power to stop the guest.
//!
//! The guest gets tables that work: descriptors of every kind, an IDT whose gates lead to more
//! random code, an identity map. So its exceptions are delivered, and its execution goes on.
//!
//! Both engines run it.

use interp::{Engine, Exit, sync};
use proptest::prelude::*;
use softmmu::{ExitRequest, GuestRam, LowBox, Mmu, NullBus, RamRange};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use x86::control::{cr0, cr4, efer};
use x86::{Activity, Cpu, DescriptorTable, SegReg, Segment, flags};

const RAM: u64 = 4 << 20;
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PAGE_DIRECTORY: u64 = 0x3000;
const LEGACY_DIRECTORY: u64 = 0x4000;
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;
const TSS: u64 = 0x7000;
const CODE: u64 = 0x8000;
const CODE_SIZE: u64 = 0x7000;
const STACK: u64 = 0x2_0000;

/// How long one start may run: rounds of faults retire no instruction, so time is the bound.
const SLICE: Duration = Duration::from_millis(4);
/// Starts in a case.
const STARTS: u64 = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    Real,
    Protected16,
    Protected32,
    Paged32User,
    Virtual8086,
    Compatibility,
    Long,
    LongUser,
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
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }
}

enum Runner {
    Interp(Box<Engine>),
    Jit(Box<jit::Engine>),
}

impl Runner {
    /// The translator, from the first execution on.
    fn jit() -> Runner {
        let config = jit::Config { threshold: 0, cache_size: 1 << 20, ..jit::Config::default() };
        Runner::Jit(Box::new(jit::Engine::new(config).expect("a translator")))
    }

    fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        match self {
            Runner::Interp(engine) => engine.run(cpu, mmu, limit),
            Runner::Jit(engine) => engine.run(cpu, mmu, limit),
        }
    }
}

struct Fixture {
    ram: Arc<GuestRam>,
    mmu: Mmu,
    engine: Runner,
}

impl Fixture {
    fn new(seed: u64, opening: &[u8], engine: Runner) -> Fixture {
        let ram = Arc::new(GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM"));
        let mmu = Mmu::new(ram.clone(), Arc::new(NullBus)).expect("MMU");
        let fixture = Fixture { ram, mmu, engine };
        let mut random = Random(seed | 1);
        // The IVT first of all: real mode's handlers are random code as well.
        for vector in 0..256 {
            fixture.put(vector * 4, &(CODE + random.next() % CODE_SIZE).to_le_bytes()[..4]);
        }
        let code: Vec<u8> = (0..CODE_SIZE).map(|_| (random.next() >> 40) as u8).collect();
        fixture.put(CODE, &code);
        fixture.put(CODE, opening);
        fixture
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.ram.write(at, bytes).expect("the fixture lies in RAM");
    }

    /// Paging structures, descriptors and gates. Anew for each start: the guest scribbles on them.
    fn tables(&self, start: Start, random: &mut Random) {
        self.put(PML4, &(PDPT | 7).to_le_bytes());
        self.put(PDPT, &(PAGE_DIRECTORY | 7).to_le_bytes());
        for i in 0..512u64 {
            self.put(PAGE_DIRECTORY + 8 * i, &(i << 21 | 0x87).to_le_bytes());
        }
        for i in 0..1024u64 {
            let entry = (i << 22 | 0x87) as u32;
            self.put(LEGACY_DIRECTORY + 4 * i, &entry.to_le_bytes());
        }
        for (i, descriptor) in DESCRIPTORS.iter().enumerate() {
            self.put(GDT + 8 * (i as u64 + 1), &descriptor.to_le_bytes());
        }
        let long = matches!(start, Start::Compatibility | Start::Long | Start::LongUser);
        for vector in 0..256u64 {
            let target = CODE + random.next() % CODE_SIZE;
            let selector = u64::from(if long { CODE64 } else { CODE32 });
            // Interrupt gates, DPL 3.
            let gate = target & 0xFFFF | selector << 16 | 0xEE00 << 32 | (target >> 16) << 48;
            let size = if long { 16 } else { 8 };
            if vector * size < 0x1000 {
                self.put(IDT + vector * size, &gate.to_le_bytes());
            }
        }
        if long {
            self.put(TSS + 4, &STACK.to_le_bytes());
        } else {
            self.put(TSS + 4, &(STACK as u32).to_le_bytes());
            self.put(TSS + 8, &u32::from(DATA32).to_le_bytes());
        }
        self.put(TSS + 0x66, &0x68u16.to_le_bytes());
    }

    fn segment(&self, selector: u16) -> Segment {
        let mut descriptor = [0; 8];
        self.ram.read(GDT + u64::from(selector & !7), &mut descriptor).expect("GDT");
        Segment::from_descriptor(selector, u64::from_le_bytes(descriptor))
    }

    fn cpu(&mut self, start: Start, random: &mut Random) -> Cpu {
        let mut cpu = Cpu::new();
        for register in &mut cpu.gpr {
            // Half of them point into RAM.
            let value = random.next();
            *register = if value & 1 == 0 { value >> 43 } else { value };
        }
        cpu.gpr[4] = STACK - 0x100;
        cpu.rip = CODE;
        cpu.gdtr = DescriptorTable { base: GDT, limit: 0xFFF };
        cpu.idtr = DescriptorTable { base: IDT, limit: 0xFFF };
        cpu.tr = self.segment(TASK);
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
            cpu.seg = [self.segment(data); 6];
            cpu.seg[SegReg::CS as usize] = self.segment(code);
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
        sync::paging_changed(&mut cpu, &mut self.mmu).expect("the fixture's paging is valid");
        cpu
    }

    /// Runs until the processor shuts down or the slice is over.
    fn run(&mut self, cpu: &mut Cpu) {
        let request = self.mmu.exit_request.clone();
        request.clear(u32::MAX);
        let (done, over) = channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let _ = over.recv_timeout(SLICE);
            request.set(ExitRequest::KICK);
        });
        let start = Instant::now();
        loop {
            match self.engine.run(cpu, &mut self.mmu, 100_000) {
                Exit::Limit => {}
                Exit::Stopped if cpu.activity == Activity::Halted => {
                    cpu.activity = Activity::Running;
                }
                Exit::TripleFault(triple) => {
                    assert!(!triple.explain(cpu, &mut self.mmu).is_empty());
                    break;
                }
                Exit::Request | Exit::Stopped => break,
            }
        }
        drop(done);
        watchdog.join().expect("the watchdog does not panic");
        let taken = start.elapsed();
        assert!(taken < Duration::from_secs(10), "the guest could not be stopped for {taken:?}");
    }
}

fn survives(start: Start, seed: u64, opening: &[u8], engine: Runner) {
    let mut fixture = Fixture::new(seed, opening, engine);
    let mut random = Random(!seed | 1);
    for round in 0..STARTS {
        fixture.tables(start, &mut random);
        let cpu = fixture.cpu(start, &mut random);
        let mut cpu = LowBox::new(cpu).expect("low memory");
        cpu.rip += round * 0x200;
        fixture.run(&mut cpu);
    }
}

/// Bytes that are more often the beginning of something than evenly spread ones.
fn code() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        4 => any::<u8>(),
        1 => prop::sample::select(&[0x0F, 0x66, 0x67, 0xF0, 0xF2, 0xF3, 0xC4, 0xC5, 0x48][..]),
        1 => prop::sample::select(&[0x8E, 0xCF, 0xEA, 0xCA, 0xCD, 0xFF, 0x0E, 0x9D, 0xC8][..]),
        1 => 0xD8..=0xDFu8,
    ];
    prop::collection::vec(byte, 16..512)
}

macro_rules! modes {
    ($($name:ident: $start:ident,)*) => {
        mod interpreted {
            use super::*;
            proptest! {
                #![proptest_config(config(256))]
                $(
                    #[test]
                    fn $name(seed: u64, opening in code()) {
                        survives(Start::$start, seed, &opening, Runner::Interp(Box::default()));
                    }
                )*
            }
        }
        mod translated {
            use super::*;
            proptest! {
                #![proptest_config(config(64))]
                $(
                    #[test]
                    fn $name(seed: u64, opening in code()) {
                        survives(Start::$start, seed, &opening, Runner::jit());
                    }
                )*
            }
        }
    };
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases, ..ProptestConfig::default() }
}

modes! {
    real_mode: Real,
    protected_mode_16: Protected16,
    protected_mode_32: Protected32,
    protected_mode_paged_user: Paged32User,
    virtual_8086_mode: Virtual8086,
    compatibility_mode: Compatibility,
    long_mode: Long,
    long_mode_user: LongUser,
}
