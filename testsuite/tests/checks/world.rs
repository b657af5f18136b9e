//! The guest that checks run in.

use super::Ended;
use interp::{Exit, sync};
use softmmu::{GuestRam, LowBox, Mmu, NullBus, RamRange};
use std::sync::Arc;
use x86::control::{cr0, cr4, efer};
use x86::cpuid::Policy;
use x86::{Activity, Cpu, DescriptorTable, Fault, SegReg, Segment, Vector, flags};

/// Where code goes, and the IP of its first instruction in every mode.
pub(crate) const CODE: u64 = 0x8000;
/// A page for data.
pub(crate) const DATA: u64 = 0x1_0000;
/// The initial stack pointer.
pub(crate) const STACK: u64 = 0xF000;
/// What is put behind the code: UD2.
pub(crate) const END: [u8; 2] = [0x0F, 0x0B];

/// Bytes of RAM.
const RAM: u64 = 2 << 20;
/// Paging structures of the identity map: 32-bit, PAE, 4-level.
const PD32: u64 = 0x10_0000;
const PDPT_PAE: u64 = 0x10_1000;
pub(crate) const PML4: u64 = 0x10_2000;
const PDPT: u64 = 0x10_3000;
const PD: u64 = 0x10_4000;
/// Those of [`World::linear`], one for each level, from the page table up.
pub(crate) const TABLES: [u64; 3] = [0x10_5000, 0x10_6000, 0x10_7000];
/// GDT and LDT.
pub(crate) const GDT: u64 = 0x11_0000;
pub(crate) const LDT: u64 = 0x11_1000;
const TSS: u64 = 0x11_2000;

/// Selectors of the GDT that is there at the beginning.
pub(crate) mod selector {
    pub(crate) const CODE32: u16 = 0x08;
    pub(crate) const DATA: u16 = 0x10;
    pub(crate) const CODE64: u16 = 0x18;
    pub(crate) const USER_CODE32: u16 = 0x23;
    pub(crate) const USER_DATA: u16 = 0x2B;
    pub(crate) const USER_CODE64: u16 = 0x33;
    /// A busy 32-bit (64-bit) TSS, of 16 bytes in long mode.
    pub(crate) const TSS: u16 = 0x40;
    /// An LDT, of 16 bytes in long mode.
    pub(crate) const LDT: u16 = 0x50;
    /// For the check itself.
    pub(crate) const FREE: u16 = 0x60;
    /// For what the one at [`FREE`] leads to.
    pub(crate) const TARGET: u16 = 0x70;
}

/// A code segment of 32 bits, flat, of level 0, accessed.
pub(crate) const CODE_DESCRIPTOR: u64 = 0x00CF_9B00_0000_FFFF;
/// A data segment, flat, writable, of level 0, accessed.
pub(crate) const DATA_DESCRIPTOR: u64 = 0x00CF_9300_0000_FFFF;
/// A code segment of 64 bits.
pub(crate) const CODE64_DESCRIPTOR: u64 = 0x00AF_9B00_0000_FFFF;
/// DPL 3 in a descriptor.
pub(crate) const DPL3: u64 = 0x6000_0000_0000;
/// P in a descriptor.
pub(crate) const PRESENT: u64 = 0x8000_0000_0000;

/// The state at the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Real mode.
    Real,
    /// V86 mode.
    Virtual8086,
    /// Protected mode, 32 bits, flat, level 0, no paging.
    Protected,
    /// The same with 32-bit paging.
    Paged,
    /// The same with PAE paging.
    Pae,
    /// 64-bit mode, level 0.
    Long,
    /// 64-bit mode, level 3.
    User,
    /// 32-bit paging, level 3.
    PagedUser,
}

impl Mode {
    pub(crate) fn bits(self) -> u32 {
        match self {
            Mode::Real | Mode::Virtual8086 => 16,
            Mode::Protected | Mode::Paged | Mode::Pae | Mode::PagedUser => 32,
            Mode::Long | Mode::User => 64,
        }
    }

    fn level(self) -> u8 {
        match self {
            Mode::User | Mode::PagedUser | Mode::Virtual8086 => 3,
            Mode::Real | Mode::Protected | Mode::Paged | Mode::Pae | Mode::Long => 0,
        }
    }
}

enum Engine {
    Interp(Box<interp::Engine>),
    Jit(Box<jit::Engine>),
}

/// A guest.
pub(crate) struct World {
    pub(crate) cpu: LowBox<Cpu>,
    pub(crate) mmu: Mmu,
    engine: Engine,
    policy: Arc<Policy>,
    mode: Mode,
    end: u64,
    /// Paging structures were written, and the TLB not yet flushed.
    remapped: bool,
}

impl World {
    fn new(engine: Engine) -> World {
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: RAM }]).expect("guest RAM");
        let mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("MMU");
        let cpu = LowBox::new(Cpu::new()).expect("low memory");
        let policy = Policy::single();
        World { cpu, mmu, engine, policy, mode: Mode::Real, end: 0, remapped: false }
    }

    pub(crate) fn interpreted() -> World {
        World::new(Engine::Interp(Box::default()))
    }

    pub(crate) fn translated() -> World {
        let config = jit::Config { threshold: 0, cache_size: 1 << 20, ..jit::Config::default() };
        World::new(Engine::Jit(Box::new(jit::Engine::new(config).expect("a translator"))))
    }

    /// With another CPUID, from the beginning on.
    pub(crate) fn with_policy(mut self, policy: Arc<Policy>) -> World {
        self.policy = policy;
        self
    }

    pub(crate) fn engine(&self) -> &'static str {
        match self.engine {
            Engine::Interp(_) => "interpreted",
            Engine::Jit(_) => "translated",
        }
    }

    /// Writes to memory, where it differs: what is translated stays so.
    pub(crate) fn write(&mut self, gpa: u64, bytes: &[u8]) {
        let mut old = vec![0; bytes.len()];
        self.mmu.phys_read(gpa, &mut old);
        if old != bytes {
            self.mmu.phys_write(gpa, bytes);
            self.remapped |= (PD32..GDT).contains(&gpa);
        }
    }

    /// A word of eight bytes.
    pub(crate) fn put(&mut self, gpa: u64, value: u64) {
        self.write(gpa, &value.to_le_bytes());
    }

    pub(crate) fn get(&mut self, gpa: u64) -> u64 {
        let mut bytes = [0; 8];
        self.mmu.phys_read(gpa, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Everything as at the beginning of a check.
    pub(crate) fn begin(&mut self, mode: Mode, code: &[u8]) {
        self.mode = mode;
        self.end = CODE + code.len() as u64;
        let mut page = [0; 0x400];
        page[..code.len()].copy_from_slice(code);
        page[code.len()..][..2].copy_from_slice(&END);
        self.write(CODE, &page);
        self.write(DATA - 0x2000, &[0; 0x4000]);
        self.tables();
        *self.cpu = Cpu::new();
        let cpu = &mut *self.cpu;
        cpu.policy = self.policy.clone();
        cpu.gpr = [0; 16];
        cpu.gpr[4] = STACK;
        cpu.rip = CODE;
        cpu.rflags = flags::FIXED_ONE;
        cpu.gdtr = DescriptorTable { base: GDT, limit: 0xFF };
        cpu.idtr = DescriptorTable { base: 0, limit: 0 };
        cpu.activity = Activity::Running;
        cpu.cr0 = cr0::ET | cr0::NE;
        cpu.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        cpu.xcr0 = 7;
        match mode {
            Mode::Real => {}
            Mode::Virtual8086 => {
                cpu.cr0 |= cr0::PE;
                cpu.rflags |= flags::VM | flags::IOPL;
            }
            Mode::Protected => cpu.cr0 |= cr0::PE,
            Mode::Paged | Mode::PagedUser => {
                cpu.cr0 |= cr0::PE | cr0::PG | cr0::WP;
                cpu.cr3 = PD32;
                cpu.cr4 |= cr4::PSE;
            }
            Mode::Pae => {
                cpu.cr0 |= cr0::PE | cr0::PG | cr0::WP;
                cpu.cr3 = PDPT_PAE;
                cpu.cr4 |= cr4::PAE;
                cpu.efer = efer::NXE;
            }
            Mode::Long | Mode::User => {
                cpu.cr0 |= cr0::PE | cr0::PG | cr0::WP;
                cpu.cr3 = PML4;
                cpu.cr4 |= cr4::PAE;
                cpu.efer = efer::LME | efer::LMA | efer::SCE | efer::NXE;
            }
        }
        cpu.cr4 &= cpu.policy.cr4_mask();
        cpu.xcr0 &= cpu.policy.xcr0_mask();
        self.segments();
        self.sync();
    }

    fn segments(&mut self) {
        let (code, data) = match self.mode {
            Mode::Real | Mode::Virtual8086 => {
                let access = if self.mode == Mode::Real { 0x93 } else { 0xF3 };
                self.cpu.seg = [Segment::from_descriptor(0, access << 40 | 0xFFFF); 6];
                return;
            }
            Mode::Protected | Mode::Paged | Mode::Pae => (selector::CODE32, selector::DATA),
            Mode::Long => (selector::CODE64, selector::DATA),
            Mode::User => (selector::USER_CODE64, selector::USER_DATA),
            Mode::PagedUser => (selector::USER_CODE32, selector::USER_DATA),
        };
        let (code, data) = (self.segment(code), self.segment(data));
        self.cpu.seg = [data; 6];
        self.cpu.seg[SegReg::CS as usize] = code;
        self.cpu.tr = self.segment(selector::TSS);
    }

    /// The hidden part of a segment register, from the GDT.
    pub(crate) fn segment(&mut self, selector: u16) -> Segment {
        let descriptor = self.get(GDT + u64::from(selector & !7));
        Segment::from_descriptor(selector, descriptor)
    }

    fn tables(&mut self) {
        let mut directory = vec![0; 0x1000];
        for i in 0..1024usize {
            let entry = (i as u32) << 22 | 0xE7;
            directory[4 * i..][..4].copy_from_slice(&entry.to_le_bytes());
        }
        directory[4 * 256..][..4].copy_from_slice(&(TABLES[0] as u32 | 0x67).to_le_bytes());
        self.write(PD32, &directory);
        let mut directory = vec![0; 0x1000];
        for i in 0..512usize {
            directory[8 * i..][..8].copy_from_slice(&((i as u64) << 21 | 0xE7).to_le_bytes());
        }
        self.write(PD, &directory);
        for (at, entry) in [
            (PDPT_PAE, PD | 1),
            (PDPT_PAE + 8, TABLES[1] | 1),
            (PDPT_PAE + 16, 0),
            (PDPT_PAE + 24, 0),
            (PML4, PDPT | 0x27),
            (PML4 + 8, TABLES[2] | 0x27),
            (PDPT, PD | 0x27),
            (TABLES[0], DATA | 0x67),
            (TABLES[1], TABLES[0] | 0x27),
            (TABLES[2], TABLES[1] | 0x27),
        ] {
            self.put(at, entry);
        }
        if matches!(self.mode, Mode::Paged | Mode::PagedUser) {
            self.put(TABLES[0], DATA | 0x67);
        }
        let tss = 0x0000_8B11_2000_0067;
        let ldt = 0x0000_8211_1000_00FF;
        for (selector, descriptor) in [
            (0, 0),
            (selector::CODE32, CODE_DESCRIPTOR),
            (selector::DATA, DATA_DESCRIPTOR),
            (selector::CODE64, CODE64_DESCRIPTOR),
            (selector::USER_CODE32, CODE_DESCRIPTOR | DPL3),
            (selector::USER_DATA, DATA_DESCRIPTOR | DPL3),
            (selector::USER_CODE64, CODE64_DESCRIPTOR | DPL3),
            (selector::TSS, tss),
            (selector::TSS + 8, 0),
            (selector::LDT, ldt),
            (selector::LDT + 8, 0),
            (selector::FREE, 0),
            (selector::FREE + 8, 0),
            (selector::TARGET, 0),
            (selector::TARGET + 8, 0),
        ] {
            self.put(GDT + u64::from(selector & !7), descriptor);
        }
        self.put(LDT, DATA_DESCRIPTOR);
        self.write(TSS, &[0; 0x66]);
        // No I/O permission map.
        self.write(TSS + 0x66, &0x68u16.to_le_bytes());
    }

    /// A descriptor where [`selector::FREE`] is.
    pub(crate) fn descriptor(&mut self, descriptor: u64) {
        self.put(GDT + u64::from(selector::FREE), descriptor);
    }

    /// An address whose translation goes by [`TABLES`] alone, and ends at [`DATA`].
    pub(crate) fn linear(mode: Mode) -> u64 {
        match mode {
            Mode::Long | Mode::User => 1 << 39,
            Mode::Real
            | Mode::Virtual8086
            | Mode::Protected
            | Mode::Paged
            | Mode::Pae
            | Mode::PagedUser => 1 << 30,
        }
    }

    /// Where the entries for [`World::linear`] are, from the page table up.
    pub(crate) fn entry(mode: Mode, level: usize) -> u64 {
        match (mode, level) {
            (Mode::Paged | Mode::PagedUser, 2) => PD32 + 4 * 256,
            (Mode::Pae, 3) => PDPT_PAE + 8,
            (_, 4) => PML4 + 8,
            (_, level) => TABLES[level - 1],
        }
    }

    /// Sets bits in an entry for [`World::linear`].
    pub(crate) fn set(&mut self, level: usize, bits: u64) {
        let at = World::entry(self.mode, level);
        let value = self.get(at) | bits;
        self.put(at, value);
    }

    /// Clears bits in an entry for [`World::linear`].
    pub(crate) fn clear(&mut self, level: usize, bits: u64) {
        let at = World::entry(self.mode, level);
        let value = self.get(at) & !bits;
        self.put(at, value);
    }

    /// Takes what is mapped 1:1 in long mode, the code too, from the user.
    pub(crate) fn supervisor_code(&mut self) {
        let table = self.get(PML4);
        self.put(PML4, table & !4);
    }

    /// Tells the MMU of changed registers. It keeps what it has cached, or the translator's own
    /// checks would never be asked: a miss is for the interpreter. Changed tables are flushed.
    pub(crate) fn sync(&mut self) {
        sync::paging_changed(&mut self.cpu, &mut self.mmu).expect("valid paging");
        self.cpu.update_stepping();
        if std::mem::take(&mut self.remapped) {
            self.mmu.flush_all();
        }
    }

    pub(crate) fn run(&mut self) -> Ended {
        self.sync();
        assert_eq!(self.cpu.cpl, self.mode.level());
        let (cpu, mmu) = (&mut self.cpu, &mut self.mmu);
        let exit = match &mut self.engine {
            Engine::Interp(engine) => engine.run(cpu, mmu, 1000),
            Engine::Jit(engine) => engine.run(cpu, mmu, 1000),
        };
        match exit {
            Exit::TripleFault(triple) => {
                let fault = triple.chain[0].fault;
                if fault == Fault::UD && triple.at.1 == self.end {
                    Ended::AtEnd
                } else if !(CODE..self.end).contains(&triple.at.1) && !fault.is(Vector::PF) {
                    // Only a fetch faults elsewhere.
                    Ended::Strange(format!("{fault:?} at {:#x}", triple.at.1))
                } else {
                    Ended::Fault(fault)
                }
            }
            Exit::Limit | Exit::Request | Exit::Stopped => Ended::Strange(format!("{exit:?}")),
        }
    }
}
