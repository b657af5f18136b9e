//! The arithmetic flags, in iced's numbering and in that of RFLAGS.

use iced_x86::RflagsBits;
use x86::flags;

/// The six arithmetic flags as iced's bits ([`RflagsBits`]).
pub const ARITHMETIC_BITS: u32 = RflagsBits::OF
    | RflagsBits::SF
    | RflagsBits::ZF
    | RflagsBits::AF
    | RflagsBits::CF
    | RflagsBits::PF;

const TABLE: [(u32, u64); 6] = [
    (RflagsBits::OF, flags::OF),
    (RflagsBits::SF, flags::SF),
    (RflagsBits::ZF, flags::ZF),
    (RflagsBits::AF, flags::AF),
    (RflagsBits::CF, flags::CF),
    (RflagsBits::PF, flags::PF),
];

/// The arithmetic flags among what iced says that an instruction reads, writes or leaves undefined
/// (`Instruction::rflags_undefined` and its like), as bits of RFLAGS ([`x86::flags`]; SDM vol. 1,
/// section 3.4.3.1). Iced's other bits (IF, DF, AC, UIF and the x87's condition codes) are left
/// out: the instructions that change those define them.
pub fn rflags_of(bits: u32) -> u64 {
    TABLE.iter().filter(|(iced, _)| bits & iced != 0).fold(0, |all, (_, flag)| all | flag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::Decoder;

    fn undefined(bytes: &[u8]) -> u64 {
        rflags_of(Decoder::new(64, bytes, 0).decode().rflags_undefined())
    }

    #[test]
    fn what_the_manual_leaves_undefined() {
        // mul rcx; and rax, rcx; bsf rax, rcx; add rax, rcx
        assert_eq!(undefined(&[0x48, 0xF7, 0xE1]), flags::SF | flags::ZF | flags::AF | flags::PF);
        assert_eq!(undefined(&[0x48, 0x21, 0xC8]), flags::AF);
        assert_eq!(undefined(&[0x48, 0x0F, 0xBC, 0xC1]), flags::ARITHMETIC & !flags::ZF);
        assert_eq!(undefined(&[0x48, 0x01, 0xC8]), 0);
    }

    #[test]
    fn each_flag_has_its_bit() {
        assert_eq!(rflags_of(ARITHMETIC_BITS), flags::ARITHMETIC);
        assert_eq!(rflags_of(!ARITHMETIC_BITS), 0);
        for bit in (0..32).map(|n| 1 << n).filter(|bit| ARITHMETIC_BITS & bit != 0) {
            assert!(rflags_of(bit).is_power_of_two(), "{bit:#x}");
        }
        assert_eq!(rflags_of(RflagsBits::CF | RflagsBits::OF), flags::CF | flags::OF);
    }
}
