//! How an opmask decides about the memory operand of an EVEX instruction.

use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind, Register};

/// What of a memory operand an opmask lets through (SDM vol. 2A, section 2.8, "Exception
/// Classifications of EVEX-Encoded Instructions").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Masking {
    /// The opmask register, 1 to 7.
    pub opmask: u8,
    /// Bytes of an element in memory.
    pub element: u8,
    /// Bits of the opmask that count.
    pub count: u8,
    /// How bits and elements belong together.
    pub kind: MaskKind,
}

/// How the bits of an opmask belong to the elements of a memory operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MaskKind {
    /// One bit for each element; elements that the mask leaves out are not accessed.
    Elements,
    /// As many elements as there are bits set, behind one another (compress and expand).
    Packed,
    /// Each element goes to several elements of the destination, and is accessed if the mask has a
    /// bit of one of them.
    Broadcast,
    /// All of the operand is accessed, whatever the mask: no fault suppression (classes E4NF, E5NF
    /// and E6NF). A store still writes only what the mask lets through.
    Whole,
}

/// The masking of `insn`; none where no opmask applies to its memory operand.
pub(crate) fn masking(insn: &Instruction) -> Option<Masking> {
    let k = insn.op_mask();
    let memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    if k == Register::None || !memory {
        return None;
    }
    let size = insn.memory_size();
    let bytes = size.size().max(1);
    let element = element_size(insn).clamp(1, bytes);
    let (kind, count) = if !suppresses_faults(insn) {
        (MaskKind::Whole, bytes / element)
    } else if insn.is_broadcast() {
        (MaskKind::Broadcast, broadcast_count(size))
    } else if is_broadcast_load(insn.mnemonic()) {
        (MaskKind::Broadcast, insn.op0_register().size() / element)
    } else if is_packed(insn.mnemonic()) {
        (MaskKind::Packed, bytes / element)
    } else {
        (MaskKind::Elements, bytes / element)
    };
    let opmask = k.number() as u8 & 7;
    Some(Masking { opmask, element: element as u8, count: count.clamp(1, 64) as u8, kind })
}

/// Bytes in memory for each bit of the opmask: what an embedded broadcast would read, where the
/// instruction has one. (Several small numbers may make one element of the destination.)
fn element_size(insn: &Instruction) -> usize {
    use Mnemonic::*;
    let info = insn.op_code();
    match insn.mnemonic() {
        Vfmaddcsh | Vfcmaddcsh | Vfmulcsh | Vfcmulcsh => 4,
        Vbroadcastf32x2 | Vbroadcasti32x2 | Vbroadcastf32x4 | Vbroadcasti32x4 | Vbroadcastf32x8
        | Vbroadcasti32x8 => 4,
        Vbroadcastf64x2 | Vbroadcasti64x2 | Vbroadcastf64x4 | Vbroadcasti64x4 => 8,
        _ if info.can_broadcast() => info.broadcast_memory_size().size(),
        _ => insn.memory_size().element_size(),
    }
}

/// Elements of the vector that an embedded broadcast fills.
fn broadcast_count(size: MemorySize) -> usize {
    // iced names them by the width of the vector: Broadcast512_Float32.
    let name = format!("{size:?}");
    let digits = name.trim_start_matches("Broadcast");
    let width = digits.split('_').next().and_then(|bits| bits.parse().ok()).unwrap_or(512);
    width / 8 / size.size().max(1)
}

fn is_broadcast_load(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Vbroadcastss
            | Vbroadcastsd
            | Vbroadcastf32x2
            | Vbroadcastf32x4
            | Vbroadcastf32x8
            | Vbroadcastf64x2
            | Vbroadcastf64x4
            | Vbroadcasti32x2
            | Vbroadcasti32x4
            | Vbroadcasti32x8
            | Vbroadcasti64x2
            | Vbroadcasti64x4
            | Vpbroadcastb
            | Vpbroadcastw
            | Vpbroadcastd
            | Vpbroadcastq
    )
}

fn is_packed(mnemonic: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(
        mnemonic,
        Vcompressps
            | Vcompresspd
            | Vpcompressb
            | Vpcompressw
            | Vpcompressd
            | Vpcompressq
            | Vexpandps
            | Vexpandpd
            | Vpexpandb
            | Vpexpandw
            | Vpexpandd
            | Vpexpandq
    )
}

/// Whether elements that the mask leaves out cannot fault. The exceptions are the classes with "NF"
/// in SDM vol. 2A, section 2.8; each form was tried on an AMD Zen 5.
fn suppresses_faults(insn: &Instruction) -> bool {
    use Mnemonic::*;
    match insn.mnemonic() {
        Valignd | Valignq | Vcvtne2ps2bf16 | Vdbpsadbw | Vextractf32x4 | Vextractf32x8
        | Vextractf64x2 | Vextractf64x4 | Vextracti32x4 | Vextracti32x8 | Vextracti64x2
        | Vextracti64x4 | Vgf2p8affineinvqb | Vgf2p8affineqb | Vinsertf32x4 | Vinsertf32x8
        | Vinsertf64x2 | Vinsertf64x4 | Vinserti32x4 | Vinserti32x8 | Vinserti64x2
        | Vinserti64x4 | Vmovddup | Vmovshdup | Vmovsldup | Vpackssdw | Vpacksswb | Vpackusdw
        | Vpackuswb | Vpalignr | Vpconflictd | Vpconflictq | Vpermb | Vpermd | Vpermi2b
        | Vpermi2d | Vpermi2pd | Vpermi2ps | Vpermi2q | Vpermi2w | Vpermilpd | Vpermilps
        | Vpermpd | Vpermps | Vpermq | Vpermt2b | Vpermt2d | Vpermt2pd | Vpermt2ps | Vpermt2q
        | Vpermt2w | Vpermw | Vpmaddubsw | Vpmaddwd | Vpmultishiftqb | Vpshufb | Vpshufd
        | Vpshufhw | Vpshuflw | Vpunpckhbw | Vpunpckhdq | Vpunpckhqdq | Vpunpckhwd | Vpunpcklbw
        | Vpunpckldq | Vpunpcklqdq | Vpunpcklwd | Vshuff32x4 | Vshuff64x2 | Vshufi32x4
        | Vshufi64x2 | Vshufpd | Vshufps | Vunpckhpd | Vunpckhps | Vunpcklpd | Vunpcklps => false,
        // The count in memory, not the vector.
        Vpslld | Vpsllq | Vpsllw | Vpsrad | Vpsraq | Vpsraw | Vpsrld | Vpsrlq | Vpsrlw => {
            insn.op2_kind() != OpKind::Memory
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    fn of(bytes: &[u8]) -> Option<Masking> {
        masking(&Decoder::new(64, bytes, DecoderOptions::NONE).decode())
    }

    #[test]
    fn each_kind() {
        let masking = |element, count, kind| Some(Masking { opmask: 4, element, count, kind });
        // vmovups xmm16{k4}, [...]
        assert_eq!(of(&[0x62, 0xE1, 0x7C, 0x0C, 0x10, 0x00]), masking(4, 4, MaskKind::Elements));
        assert_eq!(of(&[0x62, 0xE1, 0x7C, 0x08, 0x10, 0x00]), None, "no opmask");
        assert_eq!(of(&[0x62, 0xA1, 0x7C, 0x0C, 0x10, 0xC0]), None, "no memory");
        // vandps zmm0{k4}, zmm0, [rax]{1to16}
        assert_eq!(of(&[0x62, 0xF1, 0x7C, 0x5C, 0x54, 0x00]), masking(4, 16, MaskKind::Broadcast));
        // vbroadcasti32x4 zmm0{k4}, [rax]
        let load = of(&[0x62, 0xF2, 0x7D, 0x4C, 0x5A, 0x00]);
        assert_eq!(load, masking(4, 16, MaskKind::Broadcast));
        // vpexpandd ymm0{k4}, [rax]
        assert_eq!(of(&[0x62, 0xF2, 0x7D, 0x2C, 0x89, 0x00]), masking(4, 8, MaskKind::Packed));
        // vpshufb xmm0{k4}, xmm0, [rax]
        assert_eq!(of(&[0x62, 0xF2, 0x7D, 0x0C, 0x00, 0x00]), masking(1, 16, MaskKind::Whole));
        // vpslld xmm0{k4}, xmm0, [rax] and vpslld xmm0{k4}, [rax], 1
        assert_eq!(
            of(&[0x62, 0xF1, 0x7D, 0x0C, 0xF2, 0x00]).map(|m| m.kind),
            Some(MaskKind::Whole)
        );
        let count = of(&[0x62, 0xF1, 0x7D, 0x0C, 0x72, 0x30, 1]);
        assert_eq!(count.map(|m| m.kind), Some(MaskKind::Elements));
    }
}
