//! The post-mortem of a triple fault, in words: which gate, descriptor or page-table entry failed
//! each step of the chain.

use super::TripleFault;
use crate::segmentation::descriptor::{Descriptor, SystemKind, table, wrap_linear};
use softmmu::Mmu;
use std::fmt::{self, Write};
use x86::fault::{pf, vector_name};
use x86::{Cpu, Fault, Mode, Vector};

impl TripleFault {
    /// Tells what happened, several lines, for somebody who debugs the guest. `cpu` and `mmu` are
    /// those that shut down; CPU state is still that of the first fault.
    pub fn explain(&self, cpu: &Cpu, mmu: &mut Mmu) -> String {
        let mut text = String::new();
        let (cs, rip) = self.at;
        let mode = mode_name(cpu.mode);
        let _ = writeln!(text, "Triple fault at {cs:#06x}:{rip:#x} in {mode}, CPL {}.", cpu.cpl);
        for (n, link) in self.chain.iter().enumerate() {
            let _ = write!(text, "{:3}. {}", n + 1, link.fault);
            let before = n.checked_sub(1).and_then(|n| self.chain.get(n));
            let _ = match before {
                None => writeln!(text, ": the first fault"),
                Some(_) if link.fault.is(Vector::DF) => {
                    writeln!(text, ": the two before make a double fault")
                }
                Some(before) => {
                    writeln!(text, ": while delivering {}", vector_name(before.fault.vector()))
                }
            };
            if let Some(address) = link.address {
                page_fault(&mut text, mmu, link.fault, address);
            } else if let Some(code) = link.fault.error_code() {
                error_code(&mut text, cpu, mmu, link.fault, code);
            }
        }
        text.push_str("  The CPU shut down.\n");
        text
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Real => "real mode",
        Mode::Virtual8086 => "virtual-8086 mode",
        Mode::Protected => "protected mode",
        Mode::Compatibility => "compatibility mode",
        Mode::Long => "64-bit mode",
    }
}

fn page_fault(text: &mut String, mmu: &Mmu, fault: Fault, address: u64) {
    let code = fault.error_code().unwrap_or(0);
    let access = match (code & pf::FETCH != 0, code & pf::WRITE != 0) {
        (true, _) => "instruction fetch",
        (false, true) => "write",
        (false, false) => "read",
    };
    let level = if code & pf::USER != 0 { "user" } else { "supervisor" };
    let cause = if code & pf::RESERVED != 0 {
        "a reserved bit is set"
    } else if code & pf::PROTECTION_KEY != 0 {
        "the protection key forbids it"
    } else if code & pf::PRESENT != 0 {
        "the page's rights forbid it"
    } else {
        "the page is not present"
    };
    line(text, format_args!("{level} {access} at {address:#x}: {cause}"));
    walk(text, mmu, address);
}

/// What an error code names (SDM vol. 3A, section 6.13).
fn error_code(text: &mut String, cpu: &Cpu, mmu: &mut Mmu, fault: Fault, code: u32) {
    const IDT: u32 = 2;
    let shaped = [Vector::TS, Vector::NP, Vector::SS, Vector::GP].iter().any(|&v| fault.is(v));
    if !shaped || code & !1 == 0 && !fault.is(Vector::SS) {
        return;
    }
    if code & IDT != 0 {
        gate(text, cpu, mmu, (code >> 3) as u8);
    } else if code & !3 != 0 {
        descriptor(text, cpu, mmu, (code & 0xFFFC) as u16);
    } else {
        let ss = cpu.ss();
        line(
            text,
            format_args!(
                "the stack: SS {:#06x}, base {:#x}, limit {:#x}, RSP {:#x}",
                ss.selector,
                ss.base,
                ss.limit,
                cpu.gpr[x86::regs::gpr::RSP]
            ),
        );
    }
}

/// Reads 8 bytes of a table, or tells which page is missing.
fn read(text: &mut String, mmu: &mut Mmu, address: u64) -> Option<u64> {
    match mmu.load_system(address) {
        Ok(value) => Some(value),
        Err(_) => {
            line(text, format_args!("the table entry at {address:#x} cannot be read:"));
            walk(text, mmu, address);
            None
        }
    }
}

fn gate(text: &mut String, cpu: &Cpu, mmu: &mut Mmu, vector: u8) {
    let size = match cpu.mode {
        Mode::Real => 4,
        Mode::Virtual8086 | Mode::Protected => 8,
        Mode::Compatibility | Mode::Long => 16,
    };
    let (base, limit) = (cpu.idtr.base, cpu.idtr.limit);
    let offset = u64::from(vector) * size;
    if offset + size - 1 > u64::from(limit) {
        line(
            text,
            format_args!(
                "IDT entry {vector:#x} lies outside the IDT (base {base:#x}, limit {limit:#x})"
            ),
        );
        return;
    }
    let address = wrap_linear(cpu, base.wrapping_add(offset));
    let Some(raw) = read(text, mmu, address) else { return };
    let gate = Descriptor { selector: 0, raw, address };
    let kind = kind_name(gate);
    let absent = if gate.present() { "" } else { ", not present" };
    line(
        text,
        format_args!(
            "IDT entry {vector:#x} at {address:#x} = {raw:#018x}: {kind}{absent}, DPL {}, handler \
             {:#06x}:{:#x}",
            gate.dpl(),
            gate.gate_selector(),
            gate.gate_offset()
        ),
    );
    if gate.present() && gate.system_kind() != SystemKind::Reserved {
        descriptor(text, cpu, mmu, gate.gate_selector());
    }
}

fn descriptor(text: &mut String, cpu: &Cpu, mmu: &mut Mmu, selector: u16) {
    let name = if selector & 4 == 0 { "GDT" } else { "LDT" };
    let Some((base, limit)) = table(cpu, selector) else {
        line(text, format_args!("selector {selector:#06x} names the LDT, but LDTR is null"));
        return;
    };
    if u32::from(selector | 7) > limit {
        line(
            text,
            format_args!(
                "selector {selector:#06x} lies outside the {name} (base {base:#x}, limit \
                 {limit:#x})"
            ),
        );
        return;
    }
    let address = wrap_linear(cpu, base.wrapping_add(u64::from(selector & !7)));
    let Some(raw) = read(text, mmu, address) else { return };
    let found = Descriptor { selector, raw, address };
    let segment = found.segment();
    let kind = kind_name(found);
    let absent = if found.present() { "" } else { ", not present" };
    line(
        text,
        format_args!(
            "{name} entry {:#06x} at {address:#x} = {raw:#018x}: {kind}{absent}, DPL {}, base \
             {:#x}, limit {:#x}",
            selector & !7,
            found.dpl(),
            segment.base,
            segment.limit
        ),
    );
    if selector & !7 == cpu.tr.selector & !7 {
        let (base, limit) = (cpu.tr.base, cpu.tr.limit);
        line(text, format_args!("the current TSS: base {base:#x}, limit {limit:#x}"));
    }
}

fn kind_name(descriptor: Descriptor) -> &'static str {
    if descriptor.is_code() {
        return match (descriptor.is_64bit(), descriptor.is_32bit()) {
            (true, false) => "64-bit code segment",
            (true, true) => "code segment with L and D both set",
            (false, true) => "32-bit code segment",
            (false, false) => "16-bit code segment",
        };
    }
    if !descriptor.is_system() {
        return if descriptor.is_writable_data() {
            "writable data segment"
        } else {
            "read-only data segment"
        };
    }
    match descriptor.system_kind() {
        SystemKind::Reserved => "reserved type",
        SystemKind::Tss16Available => "available 16-bit TSS",
        SystemKind::Ldt => "LDT",
        SystemKind::Tss16Busy => "busy 16-bit TSS",
        SystemKind::CallGate16 => "16-bit call gate",
        SystemKind::TaskGate => "task gate",
        SystemKind::InterruptGate16 => "16-bit interrupt gate",
        SystemKind::TrapGate16 => "16-bit trap gate",
        SystemKind::TssAvailable => "available TSS",
        SystemKind::TssBusy => "busy TSS",
        SystemKind::CallGate => "call gate",
        SystemKind::InterruptGate => "interrupt gate",
        SystemKind::TrapGate => "trap gate",
    }
}

/// Appends the entries of a page walk, one a line.
fn walk(text: &mut String, mmu: &Mmu, linear: u64) {
    let trace = mmu.trace_walk(linear);
    for step in &trace.steps {
        line(text, format_args!("{step}"));
    }
    if let Some(gpa) = trace.gpa {
        line(text, format_args!("translates to physical address {gpa:#x}"));
    }
}

/// Appends an indented line.
fn line(text: &mut String, words: fmt::Arguments<'_>) {
    // Writing to a String does not fail.
    let _ = writeln!(text, "     {words}");
}
