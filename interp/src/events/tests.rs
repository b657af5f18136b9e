use super::*;
use crate::segmentation::fixture::*;
use x86::regs::gpr;
use x86::{SegReg, Segment};

const HANDLER: u64 = 0xC000;

fn code(fault: Result<(), Box<TripleFault>>) -> Vec<Fault> {
    fault.expect_err("shutdown").chain.iter().map(|link| link.fault).collect()
}

mod long_mode {
    use super::*;

    fn fixture(cpl: u8) -> Fixture {
        let mut f = Fixture::long(cpl);
        for vector in [6, 8, 13, 14, 0x80] {
            f.idt_long(vector, gate(LONG0, HANDLER, kind::INTERRUPT, 0), 0xFFFF_8000);
        }
        f
    }

    #[test]
    fn a_fault_of_level_3_goes_to_the_stack_of_the_tss() {
        let mut f = fixture(3);
        f.cpu.rflags |= flags::IF | flags::TF | flags::NT;
        let flags_before = f.cpu.rflags;
        raise(&mut f.cpu, &mut f.mmu, Fault::gp(0x28)).unwrap();
        assert_eq!(f.cpu.rip, 0xFFFF_8000_0000_0000 | HANDLER);
        assert_eq!((f.cpu.cpl, f.cpu.is_long()), (0, true));
        assert_eq!((f.selector(SegReg::CS), f.selector(SegReg::SS)), (LONG0, 0));
        assert_eq!(f.cpu.rflags & (flags::IF | flags::TF | flags::NT | flags::RF), 0);
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(sp, STACK_TSS - 48);
        let expected =
            [0x28, CODE, u64::from(LONG3), flags_before | flags::RF, STACK3, u64::from(DATA3)];
        assert_eq!(f.stack::<u64>(sp, 6), expected);
    }

    #[test]
    fn the_stack_is_aligned_before_the_frame() {
        let mut f = fixture(0);
        f.cpu.gpr[gpr::RSP] = STACK0 - 3;
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(sp, STACK0 - 16 - 40);
        assert_eq!(f.stack::<u64>(sp, 5)[3..], [STACK0 - 3, u64::from(DATA0)]);
        assert_eq!(f.selector(SegReg::SS), DATA0, "SS stays at the same level");
    }

    #[test]
    fn the_interrupt_stack_table_is_used_at_any_level() {
        for cpl in [0, 3] {
            let mut f = fixture(cpl);
            f.put::<u64>(TSS + 28 + 3 * 8, 0x7000);
            f.idt_long(6, gate(LONG0, HANDLER, kind::INTERRUPT, 3), 0);
            raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
            assert_eq!(f.cpu.gpr[gpr::RSP], 0x7000 - 40);
        }
    }

    #[test]
    fn trap_gates_leave_if() {
        let mut f = fixture(0);
        f.idt_long(6, gate(LONG0, HANDLER, kind::TRAP, 0), 0);
        f.cpu.rflags |= flags::IF;
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        assert_ne!(f.cpu.rflags & flags::IF, 0);
    }

    #[test]
    fn software_interrupts_need_the_privilege_of_the_gate() {
        let mut f = fixture(3);
        f.faults(&[0xCD, 0x80], Fault::gp(0x80 << 3 | 2));
        let dpl3 = kind::INTERRUPT | kind::DPL3;
        f.idt_long(0x80, gate(LONG0, HANDLER, dpl3, 0), 0);
        f.exec(&[0xCD, 0x80]).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.stack::<u64>(sp, 1), [CODE + 2]);
        assert_eq!(f.get::<u64>(sp + 16) & flags::RF, 0);
    }

    #[test]
    fn gate_and_code_segment_are_checked() {
        let faulty = |value: u64, expected: Fault| {
            let mut f = fixture(3);
            f.idt_long(0x80, value, 0);
            f.faults(&[0xCD, 0x80], expected);
        };
        let dpl3 = kind::INTERRUPT | kind::DPL3;
        faulty(gate(LONG0, 0, dpl3 & !kind::ABSENT, 0), Fault::np(0x402));
        faulty(gate(LONG0, 0, kind::TASK | kind::DPL3, 0), Fault::gp(0x402));
        faulty(gate(LONG0, 0, kind::CALL | kind::DPL3, 0), Fault::gp(0x402));
        faulty(gate(0, 0, dpl3, 0), Fault::GP0);
        faulty(gate(DATA0, 0, dpl3, 0), Fault::gp(DATA0));
        faulty(gate(CODE0, 0, dpl3, 0), Fault::gp(CODE0));
        faulty(gate(0xFFF8, 0, dpl3, 0), Fault::gp(0xFFF8));
        let mut f = fixture(3);
        f.idt_long(0x80, gate(LONG0, 0, dpl3, 0), 0x1234_0000);
        f.faults(&[0xCD, 0x80], Fault::GP0);
        let mut f = fixture(3);
        f.cpu.idtr.limit = 0x80 * 16 + 14;
        f.faults(&[0xCD, 0x80], Fault::gp(0x402));
    }

    #[test]
    fn bad_stacks_fault() {
        let dpl3 = kind::INTERRUPT | kind::DPL3;
        let mut f = fixture(3);
        f.idt_long(0x80, gate(LONG0, 0, dpl3, 0), 0);
        f.put::<u64>(TSS + 4, 0x8000_0000_0000);
        f.faults(&[0xCD, 0x80], Fault::SS0);
        f.cpu.tr.limit = 10;
        f.faults(&[0xCD, 0x80], Fault::ts(TSS_SELECTOR));
    }

    #[test]
    fn page_faults_write_cr2_and_escalate() {
        let mut f = fixture(0);
        f.mmu.fault_address = 0x1234_5000;
        raise(&mut f.cpu, &mut f.mmu, Fault::page(2)).unwrap();
        assert_eq!(f.cpu.cr2, 0x1234_5000);

        // The page of the stack is missing: #PF while delivering #PF is #DF, here on a good IST.
        let mut f = fixture(0);
        f.put::<u64>(TSS + 36, 0x7000);
        f.idt_long(8, gate(LONG0, HANDLER, kind::INTERRUPT, 1), 0);
        f.cpu.gpr[gpr::RSP] = 0x4000_0000;
        raise(&mut f.cpu, &mut f.mmu, Fault::page(2)).unwrap();
        assert_eq!(f.cpu.gpr[gpr::RSP], 0x7000 - 48);
        assert_eq!(f.get::<u64>(0x7000 - 48), 0);
        assert_eq!(f.cpu.cr2, 0x4000_0000 - 8);
    }

    #[test]
    fn no_idt_is_a_triple_fault() {
        let mut f = Fixture::long(0);
        f.cpu.idtr.limit = 0;
        let chain = code(raise(&mut f.cpu, &mut f.mmu, Fault::UD));
        let df = Fault::with_code(Vector::DF, 0);
        assert_eq!(
            chain,
            [Fault::UD, Fault::gp(6 << 3 | 3), Fault::gp(13 << 3 | 3), df, Fault::gp(8 << 3 | 3)]
        );
        assert_eq!(f.cpu.rip, CODE);
    }

    #[test]
    fn external_interrupts_wake_and_have_ext() {
        let mut f = fixture(3);
        f.cpu.activity = Activity::Halted;
        f.idt_long(0x30, gate(LONG0, HANDLER, kind::INTERRUPT & !kind::ABSENT, 0), 0);
        external(&mut f.cpu, &mut f.mmu, 0x30).unwrap();
        assert_eq!(f.cpu.activity, Activity::Running);
        // The gate is absent: #NP with IDT and EXT bits, but #NP's own gate is of no valid type.
        // That makes #DF, which has a gate.
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.stack::<u64>(sp, 2), [0, CODE]);

        let mut f = fixture(3);
        f.idt_long(0x30, gate(LONG0, HANDLER, kind::INTERRUPT & !kind::ABSENT, 0), 0);
        f.idt_long(11, gate(LONG0, HANDLER, kind::INTERRUPT, 0), 0);
        external(&mut f.cpu, &mut f.mmu, 0x30).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.stack::<u64>(sp, 1), [0x30 << 3 | 3]);
    }

    #[test]
    fn nmi_blocks_until_iret() {
        let mut f = fixture(0);
        f.idt_long(2, gate(LONG0, HANDLER, kind::INTERRUPT, 0), 0);
        nmi(&mut f.cpu, &mut f.mmu).unwrap();
        assert!(f.cpu.nmi_blocked);
        f.exec(&[0x48, 0xCF]).unwrap();
        assert!(!f.cpu.nmi_blocked);
        assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (CODE, STACK0));
    }

    #[test]
    fn compatibility_code_enters_a_64_bit_handler() {
        let mut f = fixture(3);
        f.enter(CODE3, 3);
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        assert!(f.cpu.is_long());
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.stack::<u64>(sp, 2), [CODE, u64::from(CODE3)]);
    }
}

mod protected_mode {
    use super::*;

    fn fixture(cpl: u8) -> Fixture {
        let mut f = Fixture::protected(cpl);
        for vector in [1, 6, 8, 10, 11, 12, 13, 0x80] {
            f.idt(vector, gate(CODE0, HANDLER, kind::INTERRUPT, 0));
        }
        f
    }

    #[test]
    fn same_level_and_inner_level_frames() {
        let mut f = fixture(0);
        raise(&mut f.cpu, &mut f.mmu, Fault::gp(0x18)).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(sp, STACK0 - 16);
        let image = flags::FIXED_ONE | flags::RF;
        assert_eq!(f.stack::<u32>(sp, 4), [0x18, CODE, u64::from(CODE0), image]);

        let mut f = fixture(3);
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(sp, STACK_TSS - 20);
        let expected = [CODE, u64::from(CODE3), image, STACK3, u64::from(DATA3)];
        assert_eq!(f.stack::<u32>(sp, 5), expected);
        assert_eq!((f.cpu.cpl, f.selector(SegReg::SS)), (0, DATA0));
        assert_eq!(f.selector(SegReg::DS), DATA3, "data segments stay");
    }

    #[test]
    fn a_16_bit_gate_pushes_words() {
        let mut f = fixture(0);
        f.idt(6, gate(CODE0, 0xABCD_1234, kind::INTERRUPT16, 0));
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (0x1234, STACK0 - 6));
    }

    #[test]
    fn a_conforming_handler_keeps_the_level() {
        let mut f = fixture(3);
        f.idt(6, gate(CONFORMING, HANDLER, kind::INTERRUPT, 0));
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        assert_eq!((f.cpu.cpl, f.selector(SegReg::CS)), (3, CONFORMING | 3));
        assert_eq!(f.cpu.gpr[gpr::RSP], STACK3 - 12);
    }

    #[test]
    fn the_inner_stack_is_checked() {
        let with_ss = |selector: u16, descriptor: Option<u64>, expected: Fault| {
            let mut f = fixture(3);
            f.idt(0x80, gate(CODE0, HANDLER, kind::INTERRUPT | kind::DPL3, 0));
            f.put::<u16>(TSS + 8, selector);
            if let Some(descriptor) = descriptor {
                f.descriptor(selector, descriptor);
            }
            f.faults(&[0xCD, 0x80], expected);
        };
        with_ss(0, None, Fault::ts(0));
        with_ss(DATA3, None, Fault::ts(DATA3 & !3));
        with_ss(CODE0, None, Fault::ts(CODE0));
        with_ss(0xFFF8, None, Fault::ts(0xFFF8));
        let absent = segment(0, 0xFFFFF, kind::DATA & !kind::ABSENT, FLAT32);
        with_ss(FREE, Some(absent), Fault::ss(FREE));
        // A segment too short for the frame.
        let short = segment(0, 0x10, kind::DATA, 4);
        with_ss(FREE, Some(short), Fault::ss(FREE));
    }

    #[test]
    fn debug_registers_report_the_cause() {
        let mut f = fixture(0);
        f.cpu.dr6 = dr6::FIXED | 0xF;
        f.cpu.dr7 |= dr7::GD;
        f.cpu.pending_debug = dr6::BD;
        raise(&mut f.cpu, &mut f.mmu, Fault::new(Vector::DB)).unwrap();
        assert_eq!(f.cpu.dr6, dr6::FIXED | dr6::BD);
        assert_eq!((f.cpu.dr7 & dr7::GD, f.cpu.pending_debug), (0, 0));
        let sp = f.cpu.gpr[gpr::RSP];
        assert_ne!(f.get::<u64>(sp + 8) & flags::RF, 0, "general detect is a fault");

        // INT1 leaves DR6 and does not look at the gate's DPL.
        let mut f = fixture(3);
        f.exec(&[0xF1]).unwrap();
        assert_eq!((f.cpu.dr6, f.cpu.cpl), (dr6::FIXED, 0));
    }

    #[test]
    fn int3_and_into() {
        let mut f = fixture(3);
        f.faults(&[0xCC], Fault::gp(3 << 3 | 2));
        assert_eq!(f.exec(&[0xCE]), Ok(crate::flow::Flow::Next));
        f.cpu.rip = CODE;
        f.cpu.rflags |= flags::OF;
        f.idt(4, gate(CODE0, HANDLER, kind::TRAP | kind::DPL3, 0));
        f.exec(&[0xCE]).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.get::<u32>(sp), CODE as u32 + 1);
    }

    #[test]
    fn contributory_faults_become_a_double_fault() {
        let mut f = fixture(0);
        f.idt(13, gate(CODE0, HANDLER, kind::INTERRUPT & !kind::ABSENT, 0));
        raise(&mut f.cpu, &mut f.mmu, Fault::gp(0x18)).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.stack::<u32>(sp, 2), [0, CODE]);
        // #UD is benign: the #NP of its gate is delivered.
        let mut f = fixture(0);
        f.idt(6, gate(CODE0, HANDLER, kind::INTERRUPT & !kind::ABSENT, 0));
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.stack::<u32>(sp, 2), [6 << 3 | 3, CODE]);
    }

    #[test]
    fn accessed_bits_are_set_in_memory() {
        let mut f = fixture(3);
        let flat = |access| segment(0, 0xFFFFF, access, FLAT32);
        f.descriptor(FREE, flat(kind::CODE & !1));
        f.descriptor(FREE2, flat(kind::DATA & !1));
        f.idt(6, gate(FREE, HANDLER, kind::INTERRUPT, 0));
        f.put::<u16>(TSS + 8, FREE2);
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        assert_eq!(f.get::<u8>(GDT + u64::from(FREE) + 5), kind::CODE as u8);
        assert_eq!(f.get::<u8>(GDT + u64::from(FREE2) + 5), kind::DATA as u8);
    }
}

mod real_mode {
    use super::*;

    #[test]
    fn the_vector_table() {
        let mut f = Fixture::real();
        f.put::<u32>(6 * 4, 0x1234_5678);
        f.cpu.rflags |= flags::IF | flags::TF | flags::AC;
        raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap();
        assert_eq!((f.cpu.rip, f.selector(SegReg::CS)), (0x5678, 0x1234));
        assert_eq!(f.cpu.cs().base, 0x12340);
        assert_eq!(f.cpu.rflags & (flags::IF | flags::TF | flags::AC), 0);
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(sp, STACK0 - 6);
        assert_eq!(f.stack::<u16>(sp, 2), [CODE, 0]);
    }

    #[test]
    fn error_codes_are_not_pushed_and_limits_hold() {
        let mut f = Fixture::real();
        raise(&mut f.cpu, &mut f.mmu, Fault::GP0).unwrap();
        assert_eq!(f.cpu.gpr[gpr::RSP], STACK0 - 6);

        let mut f = Fixture::real();
        f.cpu.idtr.limit = 0x80 * 4 + 2;
        f.faults(&[0xCD, 0x80], Fault::gp(0x402));
        f.cpu.gpr[gpr::RSP] = 1;
        f.faults(&[0xCD, 0x70], Fault::SS0);
    }

    #[test]
    fn iret_returns() {
        let mut f = Fixture::real();
        f.cpu.rflags |= flags::IF;
        f.exec(&[0xCD, 0x70]).unwrap();
        f.exec(&[0xCF]).unwrap();
        assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (CODE + 2, STACK0));
        assert_ne!(f.cpu.rflags & flags::IF, 0);
    }
}

mod virtual_8086 {
    use super::*;
    use x86::Mode;
    use x86::control::cr4;

    #[test]
    fn a_fault_leaves_v86_with_all_segments_on_the_stack() {
        let mut f = Fixture::v86(0);
        f.idt(13, gate(CODE0, HANDLER, kind::INTERRUPT, 0));
        for (n, register) in (0..).zip([SegReg::ES, SegReg::DS, SegReg::FS, SegReg::GS]) {
            f.cpu.seg[register as usize] = crate::segmentation::load::v86_segment(0x100 + n);
        }
        raise(&mut f.cpu, &mut f.mmu, Fault::GP0).unwrap();
        assert_eq!((f.cpu.mode, f.cpu.cpl), (Mode::Protected, 0));
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(sp, STACK_TSS - 40);
        assert_eq!(f.stack::<u32>(sp + 16, 6), [STACK3, 0, 0x100, 0x101, 0x102, 0x103]);
        for register in [SegReg::ES, SegReg::DS, SegReg::FS, SegReg::GS] {
            assert_eq!(f.cpu.seg(register), &Segment::null(0));
        }
        // And back (the error code popped).
        f.cpu.gpr[gpr::RSP] += 4;
        f.exec(&[0xCF]).unwrap();
        assert_eq!((f.cpu.mode, f.cpu.cpl), (Mode::Virtual8086, 3));
        assert_eq!((f.cpu.rip, f.cpu.gpr[gpr::RSP]), (CODE, STACK3));
        assert_eq!(f.cpu.seg(SegReg::GS), &crate::segmentation::load::v86_segment(0x103));
    }

    #[test]
    fn int_n_depends_on_iopl_and_the_redirection_map() {
        let mut f = Fixture::v86(0);
        f.faults(&[0xCD, 0x21], Fault::GP0);
        let mut f = Fixture::v86(3);
        f.idt(0x21, gate(CODE0, HANDLER, kind::INTERRUPT | kind::DPL3, 0));
        f.exec(&[0xCD, 0x21]).unwrap();
        assert_eq!(f.cpu.mode, Mode::Protected);

        // VME with a clear bit: the task's own handler, IF virtual.
        let mut f = Fixture::v86(0);
        f.cpu.cr4 |= cr4::VME;
        f.cpu.rflags |= flags::VIF | flags::IF;
        f.cpu.tr.limit = 0xFF;
        f.put::<u16>(TSS + 102, 0x88);
        f.put::<u32>(0x21 * 4, 0x0200_0030);
        f.exec(&[0xCD, 0x21]).unwrap();
        assert_eq!(
            (f.cpu.mode, f.cpu.rip, f.selector(SegReg::CS)),
            (Mode::Virtual8086, 0x30, 0x200)
        );
        assert_eq!(f.cpu.rflags & (flags::VIF | flags::IF), flags::IF);
        let sp = f.cpu.gpr[gpr::RSP];
        assert_eq!(f.get::<u16>(sp + 4) & 0x3200, 0x3200);

        // VME with the bit set and IOPL below 3.
        let mut f = Fixture::v86(0);
        f.cpu.cr4 |= cr4::VME;
        f.cpu.tr.limit = 0xFF;
        f.put::<u16>(TSS + 102, 0x88);
        f.put::<u8>(TSS + 0x68 + 0x21 / 8, 1 << (0x21 % 8));
        f.faults(&[0xCD, 0x21], Fault::GP0);
    }

    #[test]
    fn handlers_must_be_of_level_0() {
        let mut f = Fixture::v86(3);
        f.idt(0x21, gate(CODE3, HANDLER, kind::INTERRUPT | kind::DPL3, 0));
        f.faults(&[0xCD, 0x21], Fault::gp(CODE3 & !3));
        f.idt(0x21, gate(CONFORMING, HANDLER, kind::INTERRUPT | kind::DPL3, 0));
        f.faults(&[0xCD, 0x21], Fault::gp(CONFORMING));
    }
}

mod post_mortem {
    use super::*;

    #[test]
    fn names_the_gate_the_descriptor_and_the_page() {
        let mut f = Fixture::long(0);
        f.idt_long(6, gate(FREE, 0xC000, kind::INTERRUPT, 0), 0);
        f.idt_long(13, gate(LONG0, 0xC000, kind::INTERRUPT & !kind::ABSENT, 0), 0);
        let triple = raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap_err();
        let text = triple.explain(&f.cpu, &mut f.mmu);
        assert!(text.contains("at 0x0030:0xb000 in 64-bit mode, CPL 0"), "{text}");
        assert!(text.contains("GDT entry 0x0080 at 0x1080 = 0x0000000000000000"), "{text}");
        assert!(text.contains("IDT entry 0xd at 0x20d0"), "{text}");
        assert!(text.contains("interrupt gate, not present"), "{text}");
        assert!(text.contains("#DF(0x0): the two before make a double fault"), "{text}");
        assert!(text.contains("IDT entry 0x8 at 0x2080"), "{text}");
        assert!(triple.to_string().starts_with("triple fault at 0x0030:0xb000: #UD, then #GP"));
    }

    #[test]
    fn walks_the_page_tables() {
        let mut f = Fixture::long(0);
        f.cpu.gpr[gpr::RSP] = 0x4000_0000;
        f.idt_long(6, gate(LONG0, 0xC000, kind::INTERRUPT, 0), 0);
        let triple = raise(&mut f.cpu, &mut f.mmu, Fault::UD).unwrap_err();
        let text = triple.explain(&f.cpu, &mut f.mmu);
        assert!(text.contains("supervisor write at 0x3ffffff8: the page is not present"), "{text}");
        assert!(text.contains("PML4E at 0x100000 = 0x101027: present, writable, user"), "{text}");
        assert!(text.contains("PDE at 0x102ff8 = 0x0: not present"), "{text}");
    }
}
