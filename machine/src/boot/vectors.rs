//! What PC firmware leaves for real mode, for kernels that are started without firmware: interrupt
//! vectors and their handlers, and the BIOS data area's words on memory. And the GDT with which it
//! starts a kernel that wakes in protected mode.
//!
//! The 8259s deliver timer interrupts from the start, so a kernel that enables interrupts there
//! must find a handler. Every vector leads to an IRET; those of the 8259s end the interrupt first.
//! Calls of BIOS services return without having done anything.
//!
//! Kernels look in the BIOS data area for the end of conventional memory, to put there what starts
//! the other processors (Xen does).
//!
//! Source of the data area's layout: IBM PC/AT Technical Reference, section 5.

use super::EBDA_START;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// Where the handlers lie, at the end of the BIOS area: nothing else may be put from here on.
pub(crate) const HANDLERS: u64 = 0xF_FF00;

/// The segment of the handlers.
const SEGMENT: u16 = 0xF000;

/// `iret`, at the address that PCs have it at.
const IRET: (u16, &[u8]) = (0xFF53, &[0xCF]);
/// `push ax; mov al, 20h; out 20h, al; pop ax; iret`: ends an interrupt of the first 8259.
const END_FIRST: (u16, &[u8]) = (0xFF60, &[0x50, 0xB0, 0x20, 0xE6, 0x20, 0x58, 0xCF]);
/// The same for the second 8259 and, behind it, the first.
const END_SECOND: (u16, &[u8]) = (0xFF70, &[0x50, 0xB0, 0x20, 0xE6, 0xA0, 0xE6, 0x20, 0x58, 0xCF]);

/// Where the GDT lies for a kernel that wakes in protected mode.
pub(crate) const WAKING_GDT: u64 = 0xF_FF80;

/// In the BIOS data area: segment of the extended area, and KiB of conventional memory.
const EBDA_SEGMENT_AT: u64 = 0x40E;
const CONVENTIONAL_KIB_AT: u64 = 0x413;

fn handler(vector: u8) -> u16 {
    match vector {
        0x08..=0x0F => END_FIRST.0,
        0x70..=0x77 => END_SECOND.0,
        _ => IRET.0,
    }
}

/// Writes the vectors, their handlers, the GDT and the data area.
///
/// # Errors
/// If guest memory is too small for them.
pub(crate) fn install<M: GuestMemory + ?Sized>(
    memory: &M,
) -> Result<(), vm_memory::GuestMemoryError> {
    for (offset, code) in [IRET, END_FIRST, END_SECOND] {
        let address = (u64::from(SEGMENT) << 4) + u64::from(offset);
        memory.write_slice(code, GuestAddress(address))?;
    }
    memory.write_slice(&super::tables::gdt_32(), GuestAddress(WAKING_GDT))?;
    for vector in 0..=255u8 {
        let entry = u32::from(SEGMENT) << 16 | u32::from(handler(vector));
        memory.write_slice(&entry.to_le_bytes(), GuestAddress(u64::from(vector) * 4))?;
    }
    let ebda = (EBDA_START >> 4) as u16;
    let conventional = (EBDA_START >> 10) as u16;
    for (address, word) in [(EBDA_SEGMENT_AT, ebda), (CONVENTIONAL_KIB_AT, conventional)] {
        memory.write_slice(&word.to_le_bytes(), GuestAddress(address))?;
    }
    // The extended area begins with its size in KiB.
    memory.write_slice(&[1], GuestAddress(EBDA_START))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::GuestMemoryMmap;

    #[test]
    fn vectors_lead_to_code_that_ends_in_iret() {
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        install(&memory).unwrap();
        for vector in 0..256u64 {
            let entry: u32 = memory.read_obj(GuestAddress(vector * 4)).unwrap();
            let start = u64::from(entry >> 16 << 4) + u64::from(entry & 0xFFFF);
            assert!(start >= HANDLERS);
            let mut code = [0; 16];
            memory.read_slice(&mut code, GuestAddress(start)).unwrap();
            assert!(code.contains(&0xCF), "vector {vector:#x}");
            let ends = code.iter().take_while(|&&b| b != 0xCF).any(|&b| b == 0xE6);
            assert_eq!(ends, matches!(vector, 0x08..=0x0F | 0x70..=0x77), "vector {vector:#x}");
        }
    }

    #[test]
    fn the_data_area_says_where_conventional_memory_ends() {
        let memory: GuestMemoryMmap =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        install(&memory).unwrap();
        assert_eq!(memory.read_obj::<u16>(GuestAddress(0x40E)).unwrap(), 0x9FC0);
        assert_eq!(memory.read_obj::<u16>(GuestAddress(0x413)).unwrap(), 639);
        assert_eq!(memory.read_obj::<u8>(GuestAddress(0x9_FC00)).unwrap(), 1);
    }
}
