//! The listing: its numbers, its form, and what is refused.

use super::{Code, ExplainError, Explanation, Purpose, Strategy};

/// `push rbx; mov rbx, [rdi+8]; test rbx, rbx; je +1; cpuid; ret`.
const FUNCTION: &[u8] =
    &[0x53, 0x48, 0x8B, 0x5F, 0x08, 0x48, 0x85, 0xDB, 0x74, 0x02, 0x0F, 0xA2, 0xC3];
const ORIGIN: u64 = 0x40_1000;

fn explain(bytes: &[u8], bits: u32, ring: u8) -> Result<Explanation, ExplainError> {
    Code { bytes, rip: ORIGIN, bits, ring }.explain()
}

fn function() -> Explanation {
    explain(FUNCTION, 64, 3).expect("it is translated")
}

#[test]
fn every_byte_is_accounted_for() {
    let e = function();
    assert_eq!(e.guest_bytes(), FUNCTION.len());
    let strategies: Vec<_> = e.guest.iter().map(|insn| insn.strategy).collect();
    use Strategy::*;
    assert_eq!(strategies, [Custom, Passthrough, Passthrough, Custom, Helper, Custom]);
    // The host code is listed without a gap, in order.
    let mut offset = 0;
    for line in e.pieces.iter().flat_map(|piece| &piece.lines) {
        assert_eq!(line.offset, offset, "{}", line.text);
        offset += line.bytes.len();
    }
    assert_eq!(offset, e.host_size(false).1 + e.host_size(true).1);
    // Cold code lies behind all other.
    let first_cold = e.pieces.iter().position(|piece| piece.purpose.is_cold()).unwrap();
    assert!(e.pieces[first_cold..].iter().all(|piece| piece.purpose.is_cold()));
    let has = |purpose| e.pieces.iter().any(|piece| piece.purpose == purpose);
    assert!(has(Purpose::SlowPath(0)) && has(Purpose::SlowPath(1)) && has(Purpose::Trampoline(0)));
    assert_eq!(e.links.len(), 1);
}

#[test]
fn every_address_has_a_name() {
    for line in function().pieces.iter().flat_map(|piece| &piece.lines) {
        let number = line.text.rsplit_once("0x").map_or("", |parts| parts.1);
        let digits: String = number.chars().take_while(char::is_ascii_hexdigit).collect();
        let value = u64::from_str_radix(&digits, 16).unwrap_or(0);
        assert!(value < 0x10_0000 || value >> 12 == ORIGIN >> 12, "{}", line.text);
    }
}

#[test]
fn the_copy_is_marked() {
    let e = function();
    let load = e.pieces.iter().find(|piece| piece.purpose == Purpose::Instruction(1)).unwrap();
    let copies: Vec<_> = load.lines.iter().filter(|line| line.copy).collect();
    assert_eq!(copies.len(), 1);
    assert!(copies[0].text.starts_with("mov rbx, ["), "{}", copies[0].text);
    let helper = e.pieces.iter().find(|piece| piece.purpose == Purpose::Instruction(4));
    assert!(helper.unwrap().lines.iter().any(|line| line.text == "call helper"));
}

#[test]
fn loops_are_unrolled() {
    // add rax, rcx; dec ecx; jne to the first
    let e = explain(&[0x48, 0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xF9], 64, 3).unwrap();
    assert!(e.copies > 1);
    assert_eq!(e.guest.len(), 3);
    assert!(e.links.iter().any(|link| link.target == ORIGIN && !link.linked));
    let text = e.view().to_string();
    assert!(text.contains(" of the loop: ") && text.contains("(this block)"), "{text}");
}

#[test]
fn the_listing_fits_its_width() {
    let e = function();
    for width in [40, 60, 72, 80, 100, 160] {
        for cold in [false, true] {
            for bytes in [false, true] {
                let mut view = e.view();
                (view.width, view.cold, view.bytes) = (width, cold, bytes);
                let text = view.to_string();
                for line in text.lines() {
                    assert!(line.chars().count() <= width, "{width}: {line}");
                    assert_eq!(line.trim_end(), line);
                }
                assert!(!text.contains('\x1b'));
                assert_eq!(cold, !text.contains("(--cold"));
            }
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let e = function();
    let plain = e.view().to_string();
    let mut view = e.view();
    view.colour = true;
    let coloured = view.to_string();
    assert_ne!(coloured, plain);
    let mut stripped = String::new();
    let mut rest = coloured.as_str();
    while let Some((text, tail)) = rest.split_once("\x1b[") {
        stripped += text;
        rest = tail.split_once('m').expect("an SGR sequence").1;
    }
    stripped += rest;
    let trimmed: Vec<_> = stripped.lines().map(str::trim_end).collect();
    assert_eq!(trimmed, plain.lines().collect::<Vec<_>>());
}

#[test]
fn bad_input_is_refused() {
    use ExplainError::*;
    assert!(matches!(explain(&[], 64, 3), Err(Empty(ORIGIN))));
    assert!(matches!(explain(&[0x48], 64, 3), Err(Truncated(ORIGIN))));
    assert!(matches!(explain(&[0x06], 64, 3), Err(Invalid(ORIGIN))));
    assert!(matches!(explain(&[0x90], 8, 3), Err(Bits(8))));
    assert!(matches!(explain(&[0x90], 64, 1), Err(Ring { ring: 1, .. })));
    let far = Code { bytes: &[0x90], rip: 1 << 32, bits: 32, ring: 3 };
    assert!(matches!(far.explain(), Err(Address { .. })));
    let hole = Code { bytes: &[0x90], rip: 1 << 62, bits: 64, ring: 3 };
    assert!(matches!(hole.explain(), Err(Address { .. })));
}

#[test]
fn code_at_odd_places() {
    for (rip, bits) in [(0, 64), (u64::MAX - 0xFFF, 64), (0x7FFF_FFFF_F000, 64), (0xFFFF_F000, 32)]
    {
        let e = Code { bytes: &[0x8B, 0x07, 0xC3], rip, bits, ring: 0 }.explain().unwrap();
        assert_eq!((e.linear, e.guest.len()), (rip, 2));
    }
    // An instruction that crosses a page is a block of its own; what follows is in the next.
    let crossing = [0x48, 0xB8, 1, 2, 3, 4, 5, 6, 7, 8, 0xC3];
    let e = Code { bytes: &crossing, rip: 0x40_0FFA, bits: 64, ring: 3 }.explain().unwrap();
    assert_eq!(e.guest.len(), 1);
    assert_eq!(e.guest[0].text, "mov rax, 0x807060504030201");
    // Real mode: MOV AL, [BX] with a look at the limit, in a segment with a base.
    let e =
        Code { bytes: &[0x8A, 0x07, 0xC3], rip: 0x1_2345, bits: 16, ring: 0 }.explain().unwrap();
    assert_eq!((e.linear, e.guest[0].rip), (0x1_2345, 0x2345));
    assert_eq!(e.guest[0].strategy, Strategy::Passthrough);
    // Bytes that are no instruction end a block.
    let e = explain(&[0x90, 0x06], 64, 3).unwrap();
    assert_eq!(e.guest[1].text, "(no instruction)");
}
