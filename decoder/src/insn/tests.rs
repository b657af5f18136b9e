use super::*;

#[test]
fn rip_relative_is_relative_to_the_next_instruction() {
    // mov rax, [rip+0x10]
    let i = decode(&[0x48, 0x8B, 0x05, 0x10, 0, 0, 0], 64).unwrap();
    assert_eq!((i.mem.base, i.mem.disp, i.mem.addr_size), (reg::RIP, 0x10, 8));
    assert_eq!(i.op[0], Operand { kind: OpKind::Gpr64, reg: 0 });
    assert_eq!((i.op_size, i.mem.size), (8, 8));
}

#[test]
fn backward_branches_have_negative_displacements() {
    for bits in [16, 32, 64] {
        let i = decode(&[0xEB, 0xFE], bits).unwrap();
        assert_eq!(i.op[0].kind, OpKind::Near);
        assert_eq!(i.imm as i64, -2);
    }
    let i = decode(&[0xE9, 0x00, 0x80], 16).unwrap();
    assert_eq!(i.imm as i64, -0x8000);
    // A 16-bit operand size in a 32-bit segment.
    let i = decode(&[0x66, 0xE9, 0x00, 0x80], 32).unwrap();
    assert_eq!((i.imm as i64, i.op_size), (-0x8000, 2));
}

#[test]
fn high_byte_registers() {
    let i = decode(&[0x00, 0xE8], 64).unwrap(); // add al, ch
    assert_eq!((i.op[0].reg, i.op[1].reg), (0, 17));
    let i = decode(&[0x40, 0x00, 0xE8], 64).unwrap(); // add al, bpl
    assert_eq!((i.op[0].reg, i.op[1].reg), (0, 5));
}

#[test]
fn string_instructions_carry_segment_and_address_size() {
    let i = decode(&[0xF3, 0x64, 0x67, 0xA4], 64).unwrap(); // rep movs [edi], fs:[esi]
    assert_eq!((i.op[0].kind, i.op[1].kind), (OpKind::StringDest, OpKind::StringSource));
    assert_eq!((i.mem.seg, i.mem.addr_size), (4, 4));
    assert!(i.prefixes.any_rep() && !i.prefixes.repne());
    let i = decode(&[0x67, 0xE3, 0x00], 64).unwrap(); // jecxz
    assert_eq!(i.mem.addr_size, 4);
}

#[test]
fn far_pointers_and_second_immediates() {
    let i = decode(&[0xEA, 0x78, 0x56, 0x34, 0x12, 0x08, 0x00], 32).unwrap();
    assert_eq!((i.op[0].kind, i.imm, i.imm2), (OpKind::Far, 0x1234_5678, 8));
    let i = decode(&[0xC8, 0x10, 0x00, 0x02], 64).unwrap(); // enter 16, 2
    assert_eq!((i.imm, i.imm2), (0x10, 2));
}

#[test]
fn moffs_and_16_bit_addressing() {
    let i = decode(&[0x48, 0xA1, 1, 2, 3, 4, 5, 6, 7, 8], 64).unwrap();
    assert_eq!((i.mem.base, i.mem.disp), (reg::NONE, 0x0807_0605_0403_0201));
    let i = decode(&[0x8B, 0x42, 0xFE], 16).unwrap(); // mov ax, [bp+si-2]
    assert_eq!((i.mem.base, i.mem.index, i.mem.seg, i.mem.addr_size), (5, 6, 2, 2));
    assert_eq!(i.mem.disp as i16, -2);
}

#[test]
fn errors_tell_short_from_long_and_invalid() {
    assert_eq!(decode(&[0x48], 64).unwrap_err(), DecodeError::NeedMore);
    assert_eq!(decode(&[0x66; 15], 64).unwrap_err(), DecodeError::TooLong);
    assert_eq!(decode(&[0x0F, 0xFF, 0xFF, 0xFF], 64).map(|i| i.mnemonic()), Ok(Mnemonic::Ud0));
    assert_eq!(decode(&[0x06, 0x90], 64).unwrap_err(), DecodeError::Invalid);
    // LOCK on an instruction that does not accept it.
    assert_eq!(decode(&[0xF0, 0x90, 0x90], 64).unwrap_err(), DecodeError::Invalid);
}

#[test]
fn operand_sizes() {
    for (bytes, bits, size) in [
        (&[0x50][..], 64, 8),             // push rax
        (&[0x66, 0x50][..], 64, 2),       // push ax
        (&[0x50][..], 16, 2),             // push ax
        (&[0x66, 0x9C][..], 16, 4),       // pushfd
        (&[0xC3][..], 64, 8),             // ret
        (&[0xCF][..], 64, 4),             // iretd
        (&[0x48, 0xCF][..], 64, 8),       // iretq
        (&[0xCB][..], 16, 2),             // retf
        (&[0x0F, 0x01, 0x10][..], 32, 4), // lgdt
    ] {
        assert_eq!(decode(bytes, bits).unwrap().op_size, size, "{bytes:x?} {bits}");
    }
}

#[test]
fn memory_accesses() {
    for (bytes, count) in [
        (&[0x01, 0xC8][..], 0),       // add eax, ecx
        (&[0x01, 0x08][..], 1),       // add [rax], ecx
        (&[0x48, 0x8D, 0x00][..], 0), // lea rax, [rax]
        (&[0xFF, 0x30][..], 2),       // push [rax]
        (&[0xA4][..], 2),             // movsb
        (&[0xC3][..], 1),             // ret
    ] {
        assert_eq!(decode(bytes, 64).unwrap().memory_accesses(), count, "{bytes:x?}");
    }
}
