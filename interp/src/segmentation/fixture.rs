//! A CPU and memory for the tests of events and segmentation: tables at fixed places, one
//! instruction at a time.

use crate::flow::Flow;
use crate::{sync, table};
use decoder::decode_for;
use softmmu::{GuestRam, Mmu, NullBus, RamRange, Width};
use std::sync::Arc;
use x86::control::{cr0, cr4, efer};
use x86::cpuid::Vendor;
use x86::regs::gpr;
use x86::{Cpu, DescriptorTable, Fault, SegReg, Segment, flags};

pub(crate) const GDT: u64 = 0x1000;
pub(crate) const IDT: u64 = 0x2000;
pub(crate) const LDT: u64 = 0x3000;
pub(crate) const TSS: u64 = 0x4000;
pub(crate) const TSS2: u64 = 0x5000;
/// Tops of the stacks of levels 0 and 3.
pub(crate) const STACK0: u64 = 0x8000;
pub(crate) const STACK3: u64 = 0x9000;
/// A stack that no register points to before an event.
pub(crate) const STACK_TSS: u64 = 0xA000;
pub(crate) const CODE: u64 = 0xB000;
const PAGE_TABLES: u64 = 0x10_0000;

// The selectors of the GDT that every fixture starts with.
pub(crate) const CODE0: u16 = 0x08;
pub(crate) const DATA0: u16 = 0x10;
pub(crate) const CODE3: u16 = 0x1B;
pub(crate) const DATA3: u16 = 0x23;
pub(crate) const CONFORMING: u16 = 0x28;
pub(crate) const LONG0: u16 = 0x30;
pub(crate) const LONG3: u16 = 0x3B;
pub(crate) const TSS_SELECTOR: u16 = 0x40;
pub(crate) const LDT_SELECTOR: u16 = 0x50;
/// Entries for the test itself.
pub(crate) const FREE: u16 = 0x80;
pub(crate) const FREE2: u16 = 0x90;

/// Access bytes of descriptors of level 0.
pub(crate) mod kind {
    pub(crate) const DATA: u64 = 0x93;
    pub(crate) const CODE: u64 = 0x9B;
    pub(crate) const CONFORMING: u64 = 0x9F;
    pub(crate) const TSS: u64 = 0x89;
    pub(crate) const TSS_BUSY: u64 = 0x8B;
    pub(crate) const TSS16: u64 = 0x81;
    pub(crate) const LDT: u64 = 0x82;
    pub(crate) const CALL: u64 = 0x8C;
    pub(crate) const CALL16: u64 = 0x84;
    pub(crate) const TASK: u64 = 0x85;
    pub(crate) const INTERRUPT: u64 = 0x8E;
    pub(crate) const TRAP: u64 = 0x8F;
    pub(crate) const INTERRUPT16: u64 = 0x86;
    /// Adds a DPL of 3.
    pub(crate) const DPL3: u64 = 0x60;
    /// Takes P away.
    pub(crate) const ABSENT: u64 = 0x80;
}

/// Flag nibbles: G with D, and G with L.
pub(crate) const FLAT32: u64 = 0xC;
pub(crate) const FLAT64: u64 = 0xA;

/// A segment descriptor.
pub(crate) fn segment(base: u64, limit: u64, access: u64, nibble: u64) -> u64 {
    limit & 0xFFFF
        | (base & 0xFF_FFFF) << 16
        | access << 40
        | (limit >> 16 & 0xF) << 48
        | nibble << 52
        | (base >> 24 & 0xFF) << 56
}

/// A gate descriptor (the lower half of one in IA-32e mode); `extra` is a parameter count or an
/// interrupt-stack index.
pub(crate) fn gate(selector: u16, offset: u64, access: u64, extra: u64) -> u64 {
    offset & 0xFFFF
        | u64::from(selector) << 16
        | extra << 32
        | access << 40
        | (offset >> 16 & 0xFFFF) << 48
}

pub(crate) struct Fixture {
    pub(crate) cpu: Cpu,
    pub(crate) mmu: Mmu,
}

impl Fixture {
    fn new() -> Fixture {
        let ram = GuestRam::new(&[RamRange { gpa: 0, len: 4 << 20 }]).expect("RAM");
        let mmu = Mmu::new(Arc::new(ram), Arc::new(NullBus)).expect("MMU");
        let mut fixture = Fixture { cpu: Cpu::new(), mmu };
        let flat = |access, nibble| segment(0, 0xF_FFFF, access, nibble);
        for (selector, descriptor) in [
            (CODE0, flat(kind::CODE, FLAT32)),
            (DATA0, flat(kind::DATA, FLAT32)),
            (CODE3, flat(kind::CODE | kind::DPL3, FLAT32)),
            (DATA3, flat(kind::DATA | kind::DPL3, FLAT32)),
            (CONFORMING, flat(kind::CONFORMING, FLAT32)),
            (LONG0, flat(kind::CODE, FLAT64)),
            (LONG3, flat(kind::CODE | kind::DPL3, FLAT64)),
            (TSS_SELECTOR, segment(TSS, 0x67, kind::TSS_BUSY, 0)),
            (LDT_SELECTOR, segment(LDT, 0xFF, kind::LDT, 0)),
        ] {
            fixture.descriptor(selector, descriptor);
        }
        fixture.cpu.gdtr = DescriptorTable { base: GDT, limit: 0xFFF };
        fixture.cpu.idtr = DescriptorTable { base: IDT, limit: 0xFFF };
        fixture.cpu.tr =
            Segment::from_descriptor(TSS_SELECTOR, segment(TSS, 0x67, kind::TSS_BUSY, 0));
        fixture.cpu.rip = CODE;
        fixture
    }

    /// Makes the guest's processor one of `vendor`, whatever the host is.
    pub(crate) fn vendor(mut self, vendor: Vendor) -> Fixture {
        let mut policy = (*self.cpu.policy).clone();
        policy.set_vendor(vendor);
        self.cpu.policy = Arc::new(policy);
        self
    }

    /// Real mode with CS and SS at 0.
    pub(crate) fn real() -> Fixture {
        let mut f = Fixture::new();
        f.cpu.seg[SegReg::CS as usize].selector = 0;
        f.cpu.seg[SegReg::CS as usize].base = 0;
        f.cpu.idtr = DescriptorTable { base: 0, limit: 0x3FF };
        f.cpu.gpr[gpr::RSP] = STACK0;
        f.update();
        f
    }

    /// 32-bit protected mode without paging at level `cpl` (0 or 3). The TSS has a level-0 stack.
    pub(crate) fn protected(cpl: u8) -> Fixture {
        let mut f = Fixture::new();
        f.cpu.cr0 |= cr0::PE;
        f.put::<u32>(TSS + 4, STACK_TSS as u32);
        f.put::<u16>(TSS + 8, DATA0);
        f.enter(if cpl == 0 { CODE0 } else { CODE3 }, cpl);
        f
    }

    /// V86 mode with the given IOPL, segments 0.
    pub(crate) fn v86(iopl: u64) -> Fixture {
        let mut f = Fixture::protected(3);
        for segment in &mut f.cpu.seg {
            *segment = super::load::v86_segment(0);
        }
        f.cpu.rflags |= flags::VM | iopl << flags::IOPL_SHIFT;
        f.update();
        f
    }

    /// 64-bit mode at level `cpl` (0 or 3), memory mapped one to one for everybody. The TSS has a
    /// level-0 stack.
    pub(crate) fn long(cpl: u8) -> Fixture {
        let mut f = Fixture::new();
        f.put::<u64>(PAGE_TABLES, PAGE_TABLES + 0x1007);
        f.put::<u64>(PAGE_TABLES + 0x1000, PAGE_TABLES + 0x2007);
        f.put::<u64>(PAGE_TABLES + 0x2000, 0x87);
        f.put::<u64>(PAGE_TABLES + 0x2008, 0x20_0087);
        f.cpu.cr0 |= cr0::PE | cr0::PG | cr0::WP;
        f.cpu.cr3 = PAGE_TABLES;
        f.cpu.cr4 |= cr4::PAE | cr4::FSGSBASE;
        f.cpu.efer |= efer::LME | efer::LMA | efer::SCE;
        f.put::<u64>(TSS + 4, STACK_TSS);
        f.enter(if cpl == 0 { LONG0 } else { LONG3 }, cpl);
        f
    }

    /// Makes `code` and the flat data segment of `cpl` current.
    pub(crate) fn enter(&mut self, code: u16, cpl: u8) {
        let data = if cpl == 0 { DATA0 } else { DATA3 };
        for register in [SegReg::SS, SegReg::DS, SegReg::ES, SegReg::FS, SegReg::GS] {
            self.cpu.seg[register as usize] = self.cached(data);
        }
        self.cpu.seg[SegReg::CS as usize] = self.cached(code);
        self.cpu.gpr[gpr::RSP] = if cpl == 0 { STACK0 } else { STACK3 };
        self.update();
    }

    /// The hidden part of a GDT entry.
    pub(crate) fn cached(&mut self, selector: u16) -> Segment {
        let raw = self.get(GDT + u64::from(selector & !7));
        Segment::from_descriptor(selector, raw)
    }

    /// After a change of registers by hand.
    pub(crate) fn update(&mut self) {
        sync::paging_changed(&mut self.cpu, &mut self.mmu).expect("paging state");
    }

    /// Writes memory at a physical address.
    pub(crate) fn put<T: Width>(&mut self, address: u64, value: T) {
        let bytes = value.to_u64().to_le_bytes();
        self.mmu.ram.write(address, &bytes[..T::SIZE as usize]).expect("inside RAM");
    }

    /// Reads memory at a physical address.
    pub(crate) fn get<T: Width>(&mut self, address: u64) -> T {
        let mut bytes = [0; 8];
        self.mmu.ram.read(address, &mut bytes[..T::SIZE as usize]).expect("inside RAM");
        T::from_u64(u64::from_le_bytes(bytes))
    }

    /// Writes a GDT entry.
    pub(crate) fn descriptor(&mut self, selector: u16, value: u64) {
        self.put(GDT + u64::from(selector & !7), value);
    }

    /// Writes an 8-byte IDT entry.
    pub(crate) fn idt(&mut self, vector: u8, value: u64) {
        self.put(IDT + u64::from(vector) * 8, value);
    }

    /// Writes a 16-byte IDT entry.
    pub(crate) fn idt_long(&mut self, vector: u8, value: u64, offset_high: u64) {
        let address = IDT + u64::from(vector) * 16;
        self.put(address, value);
        self.put(address + 8, offset_high);
    }

    /// The `n` topmost values of `T` on the stack at `pointer`.
    pub(crate) fn stack<T: Width>(&mut self, pointer: u64, n: u64) -> Vec<u64> {
        (0..n).map(|i| self.get::<T>(pointer + i * u64::from(T::SIZE)).to_u64()).collect()
    }

    /// Executes one instruction; after a fault RIP is back at it, as the engine does.
    pub(crate) fn exec(&mut self, bytes: &[u8]) -> Result<Flow, Fault> {
        // What does not decode is undefined.
        let insn = decode_for(self.cpu.policy.vendor(), bytes, self.cpu.key.bits())
            .map_err(|_| Fault::UD)?;
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

    /// Executes an instruction that must fault with `fault` and change no register.
    #[track_caller]
    pub(crate) fn faults(&mut self, bytes: &[u8], fault: Fault) {
        let before = format!("{:?}", self.cpu);
        assert_eq!(self.exec(bytes), Err(fault), "{bytes:x?}");
        assert_eq!(format!("{:?}", self.cpu), before, "registers changed");
    }

    pub(crate) fn selector(&self, register: SegReg) -> u16 {
        self.cpu.seg(register).selector
    }
}
