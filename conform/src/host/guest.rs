//! The same case in a guest: a long-mode machine whose user half looks like the host's child, and
//! whose kernel is one HLT for each exception vector.

use super::layout::{CODE, CODE_SIZE, FILL, Kind, MAP, MEMORY, PAGE, PAGES, WINDOW, address_of};
use super::memory::{Base, LINE, Memory, changed_lines};
use super::segments::{GDT, LdtEntry, segment};
use super::state::{Case, Outcome, State, legacy};
use interp::{Exit, sync};
use softmmu::{GuestRam, LowBox, LowError, Mmu, MmuError, NullBus, RamError, RamRange};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use thiserror::Error;
use x86::control::{cr0, cr4, efer};
use x86::{Activity, Cpu, Fault, SegReg, Segment, Vector, flags};

/// Why no guest could be made.
#[derive(Debug, Error)]
pub enum GuestError {
    /// No guest memory.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// No MMU.
    #[error(transparent)]
    Mmu(#[from] MmuError),
    /// No memory below 2 GiB for the CPU's state.
    #[error(transparent)]
    Low(#[from] LowError),
    /// No translator.
    #[error(transparent)]
    Translator(#[from] jit::EngineError),
    /// The paging registers were refused.
    #[error("the guest's paging registers are refused: {0}")]
    Paging(Fault),
}

/// What executes cases: an engine of ours.
pub trait Subject {
    /// Runs a case. `Err` is a text for what no guest should be able to make happen.
    fn run(&mut self, case: &Case) -> Result<Outcome, String>;
    /// Drops what it has cached, translations of addresses and of code: as if it were new.
    fn forget(&mut self);
}

// Physical memory: page tables, the kernel's page, the window.
const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORY: u64 = 0x3000;
const TABLE: u64 = 0x4000;
const KERNEL_PDPT: u64 = 0x5000;
const KERNEL_DIRECTORY: u64 = 0x6000;
const KERNEL_TABLE: u64 = 0x7000;
/// First of the kernel's pages.
const KERNEL_FRAMES: u64 = 0x8000;
const WINDOW_FRAMES: u64 = 0x2_0000;
const RAM: u64 = 0x4_0000;

// The kernel's pages, at the top of the canonical space's middle.
const KERNEL: u64 = 0xFFFF_FF80_0000_0000;
const IDT: u64 = KERNEL;
const TABLES: u64 = KERNEL + 0x1000;
const LDT: u64 = TABLES + 0x100;
const TSS: u64 = TABLES + 0x200;
const HANDLERS: u64 = KERNEL + 0x2000;
const STACK_TOP: u64 = KERNEL + 0x4000;
const KERNEL_PAGES: u64 = 4;

/// Selectors of the kernel and of its system segments.
const KERNEL_CODE: u16 = 0x10;
const TSS_SELECTOR: u16 = 0x40;
const LDT_SELECTOR: u16 = 0x50;
const TSS_LIMIT: u32 = 0x67;

// Page-table entries: accessed and dirty are set beforehand.
const P: u64 = 1;
const W: u64 = 1 << 1;
const U: u64 = 1 << 2;
const AD: u64 = 3 << 5;
const NX: u64 = 1 << 63;

/// Instructions that a case and its exception handler may take: two at most, and repetitions.
const MAX_INSTRUCTIONS: u64 = 16;

/// Something that runs a vCPU.
pub trait Executor: Sized {
    /// One with empty caches.
    ///
    /// # Errors
    /// [`GuestError`].
    fn new() -> Result<Self, GuestError>;
    /// Runs at most about `limit` instructions.
    fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit;
}

impl Executor for interp::Engine {
    fn new() -> Result<Self, GuestError> {
        Ok(interp::Engine::new())
    }
    fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        interp::Engine::run(self, cpu, mmu, limit)
    }
}

/// The translator, from the first execution on; with `HELPERS`, calling the interpreter's
/// definition of every instruction.
pub struct Translate<const HELPERS: bool>(jit::Engine);

impl<const HELPERS: bool> Executor for Translate<HELPERS> {
    fn new() -> Result<Self, GuestError> {
        let config = jit::Config {
            threshold: 0,
            helpers_only: HELPERS,
            precise_flags: true,
            cache_size: 1 << 20,
            ..jit::Config::default()
        };
        Ok(Translate(jit::Engine::new(config)?))
    }
    fn run(&mut self, cpu: &mut Cpu, mmu: &mut Mmu, limit: u64) -> Exit {
        self.0.run(cpu, mmu, limit)
    }
}

/// The interpreter as a subject.
pub type Interpreter = Guest<interp::Engine>;

/// A guest whose vCPU is run by `E`.
pub struct Guest<E> {
    reset: Cpu,
    /// Where translated code reaches it.
    cpu: LowBox<Cpu>,
    mmu: Mmu,
    ram: Arc<GuestRam>,
    engine: E,
    ldt: Vec<LdtEntry>,
    /// What the window holds between cases.
    base: Option<Base>,
    /// What it held behind the last one.
    seen: Box<[u8; MEMORY]>,
}

impl<E: Executor> Guest<E> {
    /// A guest with the given LDT.
    ///
    /// # Errors
    /// [`GuestError`].
    pub fn new(ldt: &[LdtEntry]) -> Result<Guest<E>, GuestError> {
        let ram = Arc::new(GuestRam::new(&[RamRange { gpa: 0, len: RAM }])?);
        let mut mmu = Mmu::new(ram.clone(), Arc::new(NullBus))?;
        write_tables(&ram, ldt)?;
        let mut cpu = Cpu::new();
        set_system_registers(&mut cpu, ldt);
        sync::paging_changed(&mut cpu, &mut mmu).map_err(GuestError::Paging)?;
        let (engine, reset) = (E::new()?, cpu.clone());
        Ok(Guest {
            reset,
            cpu: LowBox::new(cpu)?,
            mmu,
            ram,
            engine,
            ldt: ldt.to_vec(),
            base: None,
            seen: Box::new([0; MEMORY]),
        })
    }

    fn execute(&mut self, case: &Case) -> Result<Outcome, String> {
        let base = case.memory.base().clone();
        self.load(case);
        let exit = self.engine.run(&mut self.cpu, &mut self.mmu, MAX_INSTRUCTIONS);
        let memory = self.take_memory(base);
        let outcome = match exit {
            Exit::Stopped if self.cpu.activity == Activity::Halted => self.outcome(memory),
            Exit::Stopped => Err(format!("the CPU is {:?}", self.cpu.activity)),
            Exit::Limit => Err(format!("no exception within {MAX_INSTRUCTIONS} instructions")),
            Exit::Request => Err("the engine asked for service".to_owned()),
            Exit::TripleFault(fault) => Err(fault.to_string()),
        };
        let room = (CODE + CODE_SIZE).saturating_sub((case.linear - WINDOW) as usize);
        let fill = [FILL; 32];
        self.poke(frame_of(case.linear), &fill[..room.min(case.code.len()).min(fill.len())]);
        outcome
    }

    /// Writes as a device would, so that cached code is invalidated.
    fn poke(&self, gpa: u64, data: &[u8]) {
        // Every address here is RAM.
        let _ = self.ram.write(gpa, data);
    }

    fn load(&mut self, case: &Case) {
        if !self.base.as_ref().is_some_and(|base| case.memory.shares_base(base)) {
            for (i, page) in case.memory.base().chunks_exact(PAGE).enumerate() {
                self.poke(frame_of(address_of(i * PAGE)), page);
            }
            self.base = Some(case.memory.base().clone());
        }
        for line in case.memory.lines() {
            self.poke(frame_of(address_of(line.number as usize * LINE)), &line.bytes);
        }
        let room = (CODE + CODE_SIZE).saturating_sub((case.linear - WINDOW) as usize);
        self.poke(frame_of(case.linear), &case.code[..case.code.len().min(room)]);
        let state = &case.state;
        let mut cpu = self.reset.clone();
        cpu.gpr = state.gpr;
        cpu.rip = state.rip;
        cpu.rflags = state.rflags | flags::FIXED_ONE;
        for (i, &selector) in state.selectors.iter().enumerate() {
            cpu.seg[i] = segment(selector);
        }
        cpu.seg[SegReg::FS as usize].base = state.fs_base;
        cpu.seg[SegReg::GS as usize].base = state.gs_base;
        cpu.mxcsr = state.dword(legacy::MXCSR);
        cpu.x87.fcw = state.word(legacy::FCW);
        cpu.x87.fsw = state.word(legacy::FSW);
        cpu.x87.ftw = state.legacy[legacy::FTW];
        cpu.x87.fop = state.word(legacy::FOP);
        cpu.x87.fip = state.qword(legacy::FIP);
        cpu.x87.fdp = state.qword(legacy::FDP);
        for (i, st) in cpu.x87.st.iter_mut().enumerate() {
            let at = legacy::ST + 16 * i;
            st[..10].copy_from_slice(&state.legacy[at..at + 10]);
        }
        for (i, register) in cpu.vector.iter_mut().enumerate() {
            let bytes = state.vector(i);
            for (word, chunk) in register.0.iter_mut().zip(bytes.chunks_exact(8)) {
                *word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
            }
        }
        cpu.opmask = state.opmask;
        *self.cpu = cpu;
        sync::mode_changed(&mut self.cpu, &mut self.mmu);
    }

    /// What the window holds; it is as in the base again afterwards.
    fn take_memory(&mut self, base: Base) -> Memory {
        let mut lines = Vec::new();
        for (i, page) in self.seen.chunks_exact_mut(PAGE).enumerate() {
            let _ = self.ram.read(frame_of(address_of(i * PAGE)), page);
            let before = &base[i * PAGE..(i + 1) * PAGE];
            changed_lines(i * PAGE / LINE, before, page, |line| lines.push(line));
        }
        for line in &lines {
            let at = line.number as usize * LINE;
            self.poke(frame_of(address_of(at)), &base[at..at + LINE]);
        }
        Memory::with_lines(base, lines)
    }

    /// Reads what the exception left: its number from the handler that was entered, the rest from
    /// its frame.
    fn outcome(&mut self, memory: Memory) -> Result<Outcome, String> {
        let slot = self.cpu.rip.wrapping_sub(HANDLERS + 1);
        if slot >= 32 * 16 || !slot.is_multiple_of(16) {
            return Err(format!("the CPU halted at {:#x}, not in a handler", self.cpu.rip));
        }
        let vector = (slot / 16) as u8;
        let with_error = [8, 10, 11, 12, 13, 14, 17].contains(&vector);
        let words = if with_error { 6 } else { 5 };
        let mut frame = [0u64; 6];
        for (i, word) in frame[6 - words..].iter_mut().enumerate() {
            let address = STACK_TOP - 8 * (words - i) as u64;
            *word = self.mmu.load_system(address).map_err(|f| format!("no frame: {f}"))?;
        }
        if self.cpu.gpr[4] != STACK_TOP - 8 * words as u64 {
            return Err(format!("the kernel's RSP is {:#x}", self.cpu.gpr[4]));
        }
        let [error, rip, cs, rflags, rsp, ss] = frame;
        let mut state = self.state();
        state.rip = rip;
        state.rflags = rflags;
        state.gpr[4] = rsp;
        state.selectors[SegReg::CS as usize] = cs as u16;
        state.selectors[SegReg::SS as usize] = ss as u16;
        let address = if vector == Vector::PF as u8 { self.cpu.cr2 } else { 0 };
        Ok(Outcome { vector, error: error as u32, address, state, memory })
    }

    fn state(&self) -> State {
        let cpu = &self.cpu;
        let mut state = State::new();
        state.gpr = cpu.gpr;
        for (slot, seg) in state.selectors.iter_mut().zip(&cpu.seg) {
            *slot = seg.selector;
        }
        state.fs_base = cpu.seg(SegReg::FS).base;
        state.gs_base = cpu.seg(SegReg::GS).base;
        state.set_dword(legacy::MXCSR, cpu.mxcsr);
        state.set_word(legacy::FCW, cpu.x87.fcw);
        state.set_word(legacy::FSW, cpu.x87.fsw);
        state.legacy[legacy::FTW] = cpu.x87.ftw;
        state.set_word(legacy::FOP, cpu.x87.fop);
        state.set_qword(legacy::FIP, cpu.x87.fip);
        state.set_qword(legacy::FDP, cpu.x87.fdp);
        for (i, st) in cpu.x87.st.iter().enumerate() {
            let at = legacy::ST + 16 * i;
            state.legacy[at..at + 10].copy_from_slice(&st[..10]);
        }
        for (i, register) in cpu.vector.iter().enumerate() {
            let mut bytes = [0; 64];
            for (chunk, word) in bytes.chunks_exact_mut(8).zip(register.0) {
                chunk.copy_from_slice(&word.to_le_bytes());
            }
            state.set_vector(i, &bytes);
        }
        state.opmask = cpu.opmask;
        state
    }
}

impl<E: Executor> Subject for Guest<E> {
    fn forget(&mut self) {
        // Where there is no memory for another, this one goes on.
        if let Ok(new) = Guest::new(&self.ldt) {
            *self = new;
        }
    }

    fn run(&mut self, case: &Case) -> Result<Outcome, String> {
        match catch_unwind(AssertUnwindSafe(|| self.execute(case))) {
            Ok(result) => result,
            Err(panic) => {
                let text = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no message")
                    .to_owned();
                // Whatever it was doing is unfinished.
                match Guest::new(&self.ldt) {
                    Ok(new) => *self = new,
                    Err(error) => return Err(format!("PANIC: {text}; then: {error}")),
                }
                Err(format!("PANIC: {text}"))
            }
        }
    }
}

/// Physical address of a byte of the window.
fn frame_of(linear: u64) -> u64 {
    WINDOW_FRAMES + (linear - WINDOW)
}

fn write_tables(ram: &GuestRam, ldt: &[LdtEntry]) -> Result<(), RamError> {
    let put = |gpa: u64, value: u64| ram.write(gpa, &value.to_le_bytes());
    let index = |linear: u64, shift: u32| 8 * (linear >> shift & 511);
    let user = P | W | U | AD;
    put(PML4 + index(WINDOW, 39), PDPT | user)?;
    put(PDPT + index(WINDOW, 30), DIRECTORY | user)?;
    put(DIRECTORY + index(WINDOW, 21), TABLE | user)?;
    for (i, kind) in MAP.iter().enumerate() {
        let frame = WINDOW_FRAMES + (i * PAGE) as u64;
        let entry = match kind {
            Kind::None => 0,
            Kind::Data => frame | user | NX,
            Kind::ReadOnly => frame | P | U | AD | NX,
            Kind::Code => frame | P | U | AD,
        };
        put(TABLE + index(WINDOW + (i * PAGE) as u64, 12), entry)?;
    }
    let supervisor = P | W | AD;
    put(PML4 + index(KERNEL, 39), KERNEL_PDPT | supervisor)?;
    put(KERNEL_PDPT + index(KERNEL, 30), KERNEL_DIRECTORY | supervisor)?;
    put(KERNEL_DIRECTORY + index(KERNEL, 21), KERNEL_TABLE | supervisor)?;
    for i in 0..KERNEL_PAGES {
        put(KERNEL_TABLE + 8 * i, (KERNEL_FRAMES + i * PAGE as u64) | supervisor)?;
    }
    let frame = |linear: u64| KERNEL_FRAMES + (linear - KERNEL);
    // 64-bit interrupt gates. INT3 and INTO may come from user code; INT n of other vectors,
    // beyond the exceptions too, is refused.
    for vector in 0..256 {
        let handler = HANDLERS + 16 * vector;
        let dpl = if vector == 3 || vector == 4 { 3 } else { 0 };
        let access = 0x8E00 | dpl << 13;
        let low = handler & 0xFFFF
            | u64::from(KERNEL_CODE) << 16
            | access << 32
            | (handler >> 16 & 0xFFFF) << 48;
        put(frame(IDT) + 16 * vector, low)?;
        put(frame(IDT) + 16 * vector + 8, handler >> 32)?;
        // HLT
        ram.write(frame(HANDLERS) + 16 * vector, &[0xF4])?;
    }
    for (i, descriptor) in GDT.iter().enumerate() {
        put(frame(TABLES) + 8 * i as u64, *descriptor)?;
    }
    for (i, entry) in ldt.iter().enumerate() {
        put(frame(LDT) + 8 * i as u64, entry.descriptor())?;
    }
    // RSP0, and no I/O permission bitmap.
    put(frame(TSS) + 4, STACK_TOP)?;
    ram.write(frame(TSS) + 0x66, &(TSS_LIMIT as u16 + 1).to_le_bytes())?;
    ram.write(WINDOW_FRAMES + CODE as u64, &[FILL; CODE_SIZE])?;
    debug_assert!(PAGES * PAGE <= (RAM - WINDOW_FRAMES) as usize);
    Ok(())
}

fn set_system_registers(cpu: &mut Cpu, ldt: &[LdtEntry]) {
    cpu.cr0 = cr0::PE | cr0::MP | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::PG;
    // What Linux sets and user code can notice.
    let wanted = cr4::PAE
        | cr4::DE
        | cr4::PGE
        | cr4::OSFXSR
        | cr4::OSXMMEXCPT
        | cr4::UMIP
        | cr4::FSGSBASE
        | cr4::OSXSAVE
        | cr4::SMEP
        | cr4::SMAP;
    cpu.cr4 = wanted & cpu.policy.cr4_mask();
    cpu.cr3 = PML4;
    cpu.efer = efer::SCE | efer::LME | efer::LMA | efer::NXE;
    cpu.xcr0 = cpu.policy.xcr0_mask() & !x86::control::xcr0::PKRU;
    cpu.xinuse = cpu.xcr0;
    cpu.gdtr.base = TABLES;
    cpu.gdtr.limit = 16 * 8 - 1;
    cpu.idtr.base = IDT;
    cpu.idtr.limit = 0xFFF;
    cpu.ldtr.base = LDT;
    cpu.ldtr.limit = (8 * ldt.len()) as u32 - 1;
    cpu.ldtr.selector = LDT_SELECTOR;
    cpu.tr.base = TSS;
    cpu.tr.limit = TSS_LIMIT;
    cpu.tr.selector = TSS_SELECTOR;
    for selector in &mut cpu.seg {
        *selector = Segment::from_descriptor(super::segments::DATA, GDT[5]);
    }
    cpu.seg[SegReg::CS as usize] = Segment::from_descriptor(super::segments::CODE64, GDT[6]);
}
