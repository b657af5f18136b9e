//! Protected mode: descriptors with limits, gates, 32-bit paging and a hardware task switch.

use crate::Error;
use crate::arch::{
    CR0_PE, CR0_PG, CR4_PSE, EFLAGS_FIXED, EFLAGS_VM, PAGE_LARGE, PAGE_PRESENT, PAGE_WRITE,
    TSS32_SIZE, call_gate, global_descriptor_table, interrupt_gate32, mnemonic, pushes_error_code,
    selector, table_pointer32,
};
use crate::asm::{Asm, asm};
use crate::entry::{self, HEADER_MAGIC};
use crate::layout::{
    HARDWARE_TASK_STACK, LOAD_BASE, MONITOR_STACK, PAGE_DIRECTORY_32, PROTECTED_STACK,
};
use crate::{call_gates, long_mode, power, serial, virtual_8086};
use iced_x86::code_asm::*;

/// Vectors with a gate in the IDT: those of exceptions, and one for an INT instruction.
const VECTORS: u32 = 34;
/// The vector of the test's own interrupt.
const SOFTWARE_INTERRUPT: u32 = 33;

/// Offsets from EBP in the frame that [`trap`] builds: PUSHAD, then vector and error code, then
/// what the processor pushed.
pub(crate) mod frame {
    /// EAX, as PUSHAD stored it.
    pub(crate) const EAX: u32 = 28;
    /// Vector.
    pub(crate) const VECTOR: u32 = 32;
    /// Error code, or 0.
    pub(crate) const ERROR: u32 = 36;
    /// EIP.
    pub(crate) const EIP: u32 = 40;
    /// CS.
    pub(crate) const CS: u32 = 44;
    /// EFLAGS.
    pub(crate) const EFLAGS: u32 = 48;
}

/// The whole 32-bit section.
pub(crate) fn section(a: &mut Asm) -> Result<(), Error> {
    entry::multiboot_header(a)?;
    entry::multiboot_entry(a)?;
    start(a)?;
    segmentation(a)?;
    paging(a)?;
    let parts = a.options().parts;
    if parts.call_gates {
        call_gates::excursion(a)?;
    }
    if parts.hardware_task_switch {
        hardware_task_switch(a)?;
    }
    if parts.virtual_8086 {
        virtual_8086::excursion(a)?;
    }
    long_mode::enter(a)?;
    trap(a)?;
    if parts.virtual_8086 {
        virtual_8086::monitor(a)?;
    }
    power::routines(a)?;
    serial::routines(a)?;
    tables(a);
    Ok(())
}

/// Arrives from real mode with CS loaded and nothing else.
fn start(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        label "start";
        mov  ecx, selector::DATA32;
        mov  ds, ecx;
        mov  es, ecx;
        mov  fs, ecx;
        mov  gs, ecx;
        mov  ss, ecx;
        mov  esp, PROTECTED_STACK as u32;
        lidt fword_ptr(a.addr("idt_pointer"));
        mov  eax, selector::TSS32;
        ltr  ax;

        xor  eax, eax;
        mov  ax, cs;
        check "protected mode: CS", u64::from(selector::CODE32);
        smsw eax;
        and  eax, CR0_PE;
        check "protected mode: CR0.PE", 1;
        mov  eax, selector::ABSENT;
        lar  ebx, eax;
        mov  eax, ebx;
        check "protected mode: LAR of a data segment that is not present", 0x1200;
        mov  eax, selector::CODE32;
        lsl  ebx, eax;
        mov  eax, ebx;
        check "protected mode: LSL of flat code", 0xFFFF_FFFF;
    );
    Ok(())
}

/// Emits `cause`, an instruction that faults, and checks the vector, the error code and the EIP
/// that its handler saw. The guest goes on behind it.
fn expect_fault(
    a: &mut Asm,
    what: &str,
    vector: u32,
    error: u32,
    cause: impl FnOnce(&mut Asm) -> Result<(), Error>,
) -> Result<(), Error> {
    let name = mnemonic(vector);
    asm!(a;
        label &format!("expect {what}");
        mov  dword_ptr(a.addr("trap.resume")), a.addr32(".resume");
        label ".cause";
    );
    cause(a)?;
    asm!(a;
        label ".resume";
        mov   eax, dword_ptr(a.addr("trap.vector"));
        check &format!("protected mode: {what}: {name}, vector"), u64::from(vector);
    );
    if pushes_error_code(vector) {
        asm!(a;
            mov   eax, dword_ptr(a.addr("trap.error"));
            check &format!("protected mode: {what}: {name}, error code"), u64::from(error);
        );
    }
    asm!(a;
        mov   eax, dword_ptr(a.addr("trap.eip"));
        check &format!("protected mode: {what}: {name}, EIP"), a.addr(".cause");
    );
    Ok(())
}

/// The processor checks presence, type and limit of segments now.
fn segmentation(a: &mut Asm) -> Result<(), Error> {
    asm!(a; mov edx, selector::ABSENT;);
    expect_fault(a, "a segment that is not present", 11, selector::ABSENT, |a| {
        asm!(a; mov gs, edx;);
        Ok(())
    })?;
    if a.options().strict {
        limits_and_types(a)?;
    }
    asm!(a;
        xor  eax, eax;
        xor  edx, edx;
        xor  ecx, ecx;
    );
    expect_fault(a, "a division by zero", 0, 0, |a| {
        asm!(a; div ecx;);
        Ok(())
    })?;
    asm!(a;
        mov  dword_ptr(a.addr("trap.resume")), a.addr32(".software");
        int  SOFTWARE_INTERRUPT;
        label ".software";
        mov  eax, dword_ptr(a.addr("trap.vector"));
        check "protected mode: INT through an interrupt gate, vector", SOFTWARE_INTERRUPT.into();
    );
    Ok(())
}

/// Accesses that the segment's limit or type forbids.
fn limits_and_types(a: &mut Asm) -> Result<(), Error> {
    asm!(a;
        mov  eax, selector::TINY;
        mov  gs, eax;
        mov  ebx, 0xC;
        mov  eax, dword_ptr(ebx).gs();      // bytes 12 to 15 of 16: allowed
        mov  ebx, 0xD;
    );
    expect_fault(a, "a doubleword one byte beyond the limit", 13, 0, |a| {
        asm!(a; mov eax, dword_ptr(ebx).gs(););
        Ok(())
    })?;
    asm!(a;
        mov  edx, selector::CODE32;         // readable, but not to be written
        mov  gs, edx;
    );
    expect_fault(a, "a write to a code segment", 13, 0, |a| {
        asm!(a; mov dword_ptr(ebx).gs(), eax;);
        Ok(())
    })?;
    asm!(a;
        mov  edx, selector::DATA32;
        mov  gs, edx;
    );
    Ok(())
}

/// 32-bit paging with 4 MiB pages: the identity map, and the first 4 MiB again at 2 GiB.
fn paging(a: &mut Asm) -> Result<(), Error> {
    const ALIAS: u32 = 0x8000_0000;
    let directory = PAGE_DIRECTORY_32;
    asm!(a;
        label "paging32";
        mov  edi, directory as u32;
        xor  eax, eax;
        mov  ecx, 1024;
        rep; stosd;
        mov  dword_ptr(directory), PAGE_LARGE | PAGE_WRITE | PAGE_PRESENT;
        mov  dword_ptr(directory + u64::from(ALIAS >> 22) * 4), PAGE_LARGE | PAGE_PRESENT;
        mov  eax, cr4;
        or   eax, CR4_PSE;
        mov  cr4, eax;
        mov  eax, directory as u32;
        mov  cr3, eax;
        mov  eax, cr0;
        or   eax, CR0_PG;
        mov  cr0, eax;
        mov  eax, dword_ptr(ALIAS + LOAD_BASE as u32);
        check "32-bit paging: the Multiboot header, seen 2 GiB up", u64::from(HEADER_MAGIC);
        mov  ebx, 0x4000_0000;
    );
    expect_fault(a, "a read of an unmapped page", 14, 0, |a| {
        asm!(a; mov eax, dword_ptr(ebx););
        Ok(())
    })?;
    asm!(a;
        mov  eax, cr2;
        check "32-bit paging: CR2", 0x4000_0000;
        mov  eax, cr0;
        and  eax, !CR0_PG;
        mov  cr0, eax;
        mov  eax, cr4;
        and  eax, !CR4_PSE;
        mov  cr4, eax;
    );
    Ok(())
}

/// A CALL to a TSS: the processor itself saves one set of registers and loads another, and IRET
/// comes back through the back link (SDM volume 3, chapter 8).
fn hardware_task_switch(a: &mut Asm) -> Result<(), Error> {
    let witness = a.variable("hardware_task.witness");
    asm!(a;
        label "hardware_task_switch";
        mov  ebx, 0x1234;
        call_far selector::TSS32_OTHER as u16, 0;
        mov  eax, dword_ptr(witness);
        check "task switch: EBX in the other task", 0x5678;
        mov  eax, ebx;
        check "task switch: EBX back in this one", 0x1234;
        xor  eax, eax;
        str  ax;
        check "task switch: TR", u64::from(selector::TSS32);
        mov  eax, cr0;
        shr  eax, 3;
        and  eax, 1;
        check "task switch: CR0.TS", 1;
        clts;
        jmp  ".end";

        label ".other_task";
        mov  dword_ptr(witness), ebx;
        iretd;                              // NT is set: back to the caller's TSS
        label ".end";
        nop;
    );
    let entry = a.addr32(".other_task");
    a.datum("tss_other", &task_state(0, entry, HARDWARE_TASK_STACK as u32, 0x5678));
    Ok(())
}

/// Exceptions and interrupts: note what happened, then go on at `trap.resume`.
fn trap(a: &mut Asm) -> Result<(), Error> {
    for vector in 0..VECTORS {
        asm!(a; label &format!("vector.{vector}"););
        if !pushes_error_code(vector) {
            asm!(a; push 0;); // all frames have one shape
        }
        asm!(a;
            push_immediate vector;
            jmp  "trap";
        );
    }
    for name in ["vector", "error", "eip", "resume"] {
        a.variable(&format!("trap.{name}"));
    }
    asm!(a;
        label "trap";
        pushad;
        cld;
        mov  eax, selector::DATA32;         // from virtual-8086 mode they arrive null
        mov  ds, eax;
        mov  es, eax;
        mov  ebp, esp;
    );
    if a.options().parts.virtual_8086 {
        asm!(a;
            test dword_ptr(ebp + frame::EFLAGS), EFLAGS_VM;
            jnz  "virtual_8086.monitor";
        );
    }
    asm!(a;
        mov  eax, dword_ptr(ebp + frame::VECTOR);
        mov  dword_ptr(a.addr("trap.vector")), eax;
        mov  eax, dword_ptr(ebp + frame::ERROR);
        mov  dword_ptr(a.addr("trap.error")), eax;
        mov  eax, dword_ptr(ebp + frame::EIP);
        mov  dword_ptr(a.addr("trap.eip")), eax;
        xor  eax, eax;
        xchg dword_ptr(a.addr("trap.resume")), eax;
        test eax, eax;
        jz   "trap.unexpected";
        mov  dword_ptr(ebp + frame::EIP), eax;

        label "trap.return";
        popad;
        add  esp, 8;                        // vector and error code
        iretd;

        label "trap.unexpected";
        print "protected mode: unexpected exception, vector = 0x";
        mov  eax, dword_ptr(ebp + frame::VECTOR);
        call "serial.print_hex";
        print ", error code = 0x";
        mov  eax, dword_ptr(ebp + frame::ERROR);
        call "serial.print_hex";
        print ", EIP = 0x";
        mov  eax, dword_ptr(ebp + frame::EIP);
        call "serial.print_hex";
        print "\r\n";
        jmp  "power.fail";
    );
    Ok(())
}

/// GDT, IDT and the two 32-bit TSSs.
fn tables(a: &mut Asm) {
    let tss = a.datum("tss", &task_state(MONITOR_STACK as u32, 0, 0, 0));
    let other = if a.options().parts.hardware_task_switch { a.addr32("tss_other") } else { 0 };
    let tss64 = a.addr("kernel/tss");
    let gates = if a.options().parts.call_gates {
        let (add, leave) = (a.addr32("call_gates.add"), a.addr32("call_gates.leave"));
        [call_gate(add, call_gates::PARAMETERS), call_gate(leave, 0)]
    } else {
        [0; 2]
    };
    a.datum("gdt", &global_descriptor_table(tss as u32, other, tss64, gates));

    let mut gates = Vec::new();
    for vector in 0..VECTORS {
        gates.extend_from_slice(&interrupt_gate32(a.addr32(&format!("vector.{vector}"))));
    }
    let idt = a.datum("idt", &gates);
    a.datum("idt_pointer", &table_pointer32(idt as u32, gates.len()));
}

/// A 32-bit TSS (SDM volume 3, 8.2.1) with flat segments, no LDT and no I/O permission map.
fn task_state(stack0: u32, entry: u32, stack: u32, value: u32) -> Vec<u8> {
    let (code, data) = (selector::CODE32, selector::DATA32);
    let mut words = [0u32; (TSS32_SIZE / 4) as usize];
    words[1] = stack0;
    words[2] = data; // SS0
    words[8] = entry;
    words[9] = EFLAGS_FIXED;
    words[13] = value; // EBX
    words[14] = stack; // ESP
    words[18..24].copy_from_slice(&[data, code, data, data, data, data]); // ES to GS
    words[25] = TSS32_SIZE << 16; // I/O map base: beyond the limit
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
