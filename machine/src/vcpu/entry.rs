//! Puts a vCPU into the state in which a boot protocol starts its kernel.

use super::Vcpu;
use crate::boot::{self, Entry};
use x86::control::cr0;
use x86::{Cpu, DescriptorTable, SegReg, Segment};

impl Vcpu {
    /// Applies `entry`.
    pub(crate) fn enter(&mut self, entry: &Entry) {
        set_entry(&mut self.cpu, entry);
        self.sync_paging();
    }
}

fn segment(s: &boot::Segment) -> Segment {
    Segment::from_descriptor(s.selector, s.descriptor)
}

fn table(t: &boot::DescriptorTable) -> DescriptorTable {
    DescriptorTable { base: t.base, limit: t.limit }
}

fn set_data(cpu: &mut Cpu, data: Segment) {
    for r in [SegReg::DS, SegReg::ES, SegReg::SS, SegReg::FS, SegReg::GS] {
        cpu.seg[r as usize] = data;
    }
}

fn set_entry(cpu: &mut Cpu, entry: &Entry) {
    // Firmware leaves the caches on.
    cpu.cr0 = entry.cr0() & !(cr0::CD | cr0::NW);
    cpu.cr4 = entry.cr4();
    cpu.efer = entry.efer();
    match entry {
        Entry::Long64(e) => {
            cpu.rip = e.rip;
            cpu.gpr[6] = e.rsi;
            cpu.cr3 = e.cr3;
            cpu.gdtr = table(&e.gdt);
            cpu.idtr = DescriptorTable::default();
            cpu.seg[SegReg::CS as usize] = segment(&e.code);
            set_data(cpu, segment(&e.data));
            cpu.tr = segment(&e.task);
            cpu.ldtr = Segment::null(0);
        }
        Entry::Protected32(e) => {
            cpu.rip = u64::from(e.eip);
            cpu.gpr[0] = u64::from(e.eax);
            cpu.gpr[3] = u64::from(e.ebx);
            cpu.gpr[6] = u64::from(e.esi);
            cpu.gdtr = table(&e.gdt);
            cpu.idtr = DescriptorTable::default();
            cpu.seg[SegReg::CS as usize] = segment(&e.code);
            set_data(cpu, segment(&e.data));
            cpu.tr = segment(&e.task);
            cpu.ldtr = Segment::null(0);
        }
        Entry::Real16(e) => {
            cpu.rip = u64::from(e.ip);
            let cs = &mut cpu.seg[SegReg::CS as usize];
            cs.selector = e.cs;
            cs.base = e.cs_base;
        }
    }
}
