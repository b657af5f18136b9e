//! Random tables, selectors and stacks: nothing panics, and an instruction that faults before it
//! commits changes no register.

use super::fixture::*;
use crate::events::{external, raise};
use proptest::prelude::*;
use x86::regs::gpr;
use x86::{Fault, SegReg, flags};

/// Selectors of every entry of the fixtures' tables, some outside, with any RPL.
fn selector() -> impl Strategy<Value = u16> {
    prop_oneof![0..0x100u16, any::<u16>(), Just(CODE0), Just(CODE3), Just(DATA3), Just(LONG3)]
}

/// An 8-byte descriptor that is often of a useful type.
fn descriptor() -> impl Strategy<Value = u64> {
    let access = prop_oneof![0x80..0xA0u64, 0xE0..=0xFFu64, 0..0x100u64];
    let flat = (access.clone(), 0..16u64).prop_map(|(a, n)| segment(0, 0xFFFFF, a, n));
    let odd = (any::<u32>(), any::<u32>(), access.clone(), 0..16u64)
        .prop_map(|(base, limit, a, n)| segment(u64::from(base), u64::from(limit), a, n));
    let gates = (selector(), any::<u32>(), access, 0..32u64)
        .prop_map(|(s, offset, a, extra)| gate(s, u64::from(offset), a, extra));
    prop_oneof![flat, odd, gates]
}

/// Instructions of these families, the last two bytes of far pointers replaced by a selector.
const INSTRUCTIONS: &[&[u8]] = &[
    &[0x8E, 0xD8],       // mov ds, eax
    &[0x8E, 0xD0],       // mov ss, eax
    &[0x8E, 0xE8],       // mov gs, eax
    &[0x0F, 0xA1],       // pop fs
    &[0xCB],             // retf
    &[0x48, 0xCB],       // retfq
    &[0xCA, 4, 0],       // retf 4
    &[0xCF],             // iret
    &[0x66, 0xCF],       // iret with the other size
    &[0x48, 0xCF],       // iretq
    &[0xCD, 0x21],       // int 0x21
    &[0xCC],             // int3
    &[0xF1],             // int1
    &[0xFF, 0x2B],       // jmp far [rbx]
    &[0xFF, 0x1B],       // call far [rbx]
    &[0x9D],             // popf
    &[0x0F, 0x00, 0xD0], // lldt ax
    &[0x0F, 0x00, 0xD8], // ltr ax
    &[0x0F, 0x02, 0xD8], // lar ebx, ax
    &[0x0F, 0x03, 0xD8], // lsl ebx, ax
    &[0x0F, 0x00, 0xE0], // verr ax
    &[0x0F, 0xB2, 0x03], // lss eax, [rbx]
    &[0x0F, 0x05],       // syscall
    &[0x0F, 0x07],       // sysret
    &[0x0F, 0x34],       // sysenter
    &[0x0F, 0x35],       // sysexit
];

fn fixture(mode: u8) -> Fixture {
    match mode {
        0 => Fixture::real(),
        1 => Fixture::protected(0),
        2 => Fixture::protected(3),
        3 => Fixture::v86(0),
        4 => Fixture::v86(3),
        5 => Fixture::long(0),
        6 => Fixture::long(3),
        _ => {
            let mut f = Fixture::long(3);
            f.enter(CODE3, 3);
            f
        }
    }
}

#[derive(Clone, Debug)]
struct World {
    mode: u8,
    gdt: Vec<u64>,
    idt: Vec<u64>,
    tss: Vec<u16>,
    stack: Vec<u32>,
    ax: u16,
    rflags: u64,
    tss_limit: u32,
}

fn world() -> impl Strategy<Value = World> {
    let stack = prop_oneof![selector().prop_map(u32::from), any::<u32>(), 0..0x1_0000u32];
    (
        0..8u8,
        prop::collection::vec(descriptor(), 16),
        prop::collection::vec(descriptor(), 64),
        prop::collection::vec(selector(), 64),
        prop::collection::vec(stack, 16),
        selector(),
        any::<u64>(),
        prop_oneof![Just(0x67u32), 0..0x100u32],
    )
        .prop_map(|(mode, gdt, idt, tss, stack, ax, rflags, tss_limit)| World {
            mode,
            gdt,
            idt,
            tss,
            stack,
            ax,
            rflags,
            tss_limit,
        })
}

fn build(world: &World) -> Fixture {
    let mut f = fixture(world.mode);
    // The entries from FREE on are random, those of the fixture remain.
    for (n, &value) in (0..).zip(&world.gdt) {
        f.put::<u64>(GDT + u64::from(FREE) + 8 * n, value);
    }
    for (n, &value) in (0..).zip(&world.idt) {
        f.put::<u64>(IDT + 8 * n, value);
    }
    for (n, &value) in (0..).zip(&world.tss) {
        f.put::<u16>(TSS2 + 2 * n, value);
        f.put::<u16>(TSS + 2 * n, value);
    }
    f.descriptor(FREE, segment(TSS2, 0x67, kind::TSS, 0));
    let pointer = f.cpu.gpr[gpr::RSP];
    for (n, &value) in (0..).zip(&world.stack) {
        f.put::<u32>(pointer + 4 * n, value);
        f.put::<u32>(0x6000 + 4 * n, value);
    }
    f.cpu.tr.limit = world.tss_limit;
    f.cpu.gpr[gpr::RAX] = u64::from(world.ax);
    f.cpu.gpr[gpr::RBX] = 0x6000;
    f.cpu.star = world.rflags.rotate_left(13);
    f.cpu.sysenter_cs = u64::from(world.ax);
    let random = flags::NT | flags::IOPL | flags::IF | flags::VIF | flags::VIP | flags::OF;
    f.cpu.rflags = f.cpu.rflags & !random | world.rflags & random;
    f.update();
    f
}

proptest! {
    #[test]
    fn a_fault_changes_no_register(world in world(), which in 0..INSTRUCTIONS.len()) {
        let mut f = build(&world);
        // IRET unblocks NMIs even if it faults, and it has none to unblock here.
        let before = format!("{:?}", f.cpu);
        if let Err(fault) = f.exec(INSTRUCTIONS[which])
            && !fault.is_trap() {
                prop_assert_eq!(format!("{:?}", f.cpu), before, "{}", fault);
            }
    }

    #[test]
    fn events_end_in_a_handler_or_shutdown(world in world(), vector in 0..32u8) {
        let mut f = build(&world);
        let rip = f.cpu.rip;
        if let Err(triple) = raise(&mut f.cpu, &mut f.mmu, Fault::gp(world.ax)) {
            prop_assert!(triple.chain.len() >= 2);
            prop_assert!(!triple.explain(&f.cpu, &mut f.mmu).is_empty());
            prop_assert!(f.cpu.rip == rip || f.cpu.tr.selector != TSS_SELECTOR);
        } else {
            let _ = external(&mut f.cpu, &mut f.mmu, vector);
        }
        // What is derived stays in step.
        let key = f.cpu.key;
        f.cpu.update_mode();
        prop_assert_eq!(key, f.cpu.key);
        prop_assert!(f.cpu.is_long() || f.cpu.seg(SegReg::CS).base <= 0xFFFF_FFFF);
    }
}
