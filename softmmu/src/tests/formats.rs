//! Table formats: which bits select which frame, in each mode and page size.

use super::*;
use crate::walk::entry::{G, XD};

const LINEAR: u64 = 0x0012_3000;

#[test]
fn four_kib_pages_translate_in_every_mode() {
    for mode in MODES {
        let mut guest = Guest::new(mode);
        for (index, linear) in
            [0x1000u64, 0x3F_F000, 0x40_0000, 0x8765_4000, 0xFFFF_F000].into_iter().enumerate()
        {
            let frame = DATA + index as u64 * 0x3000;
            guest.map(linear, frame | ALL);
            guest.write(frame + 0xABC, 4, 0x1000_0000 + index as u64);
            assert_eq!(guest.mmu.load(linear + 0xABC), Ok(0x1000_0000 + index as u32), "{mode:?}");
            guest.mmu.store(linear + 0xFF8, linear).expect("store");
            assert_eq!(guest.read(frame + 0xFF8, 8), linear, "{mode:?}");
        }
        assert_eq!(guest.mmu.stats.page_faults, 0);
    }
}

#[test]
fn the_upper_half_of_64_bit_space_translates() {
    for (mode, linear) in [
        (PagingMode::Level4, 0xFFFF_8000_0000_0000u64),
        (PagingMode::Level4, 0x0000_7FFF_FFFF_F000),
        (PagingMode::Level5, 0xFF00_0000_0000_0000),
        (PagingMode::Level5, 0x00FF_FFFF_FFFF_F000),
    ] {
        let mut guest = Guest::new(mode);
        guest.map(linear, DATA | ALL);
        guest.write(DATA + 8, 8, 77);
        assert_eq!(guest.mmu.load::<u64>(linear + 8), Ok(77));
        // Not canonical: only the sign extension differs.
        let wrong = linear ^ 1 << 63;
        assert_eq!(guest.mmu.load::<u64>(wrong + 8), Err(Fault::GP0));
        assert_eq!(guest.mmu.load::<u64>(linear + 8), Ok(77));
        assert_eq!(guest.mmu.load::<u64>(wrong + 8), Err(Fault::GP0));
    }
}

#[test]
fn large_pages_take_the_offset_from_the_address() {
    for (mode, level, shift) in [
        (PagingMode::Legacy32, 2, 22),
        (PagingMode::Pae, 2, 21),
        (PagingMode::Level4, 2, 21),
        (PagingMode::Level5, 2, 21),
    ] {
        let mut guest = Guest::new(mode);
        let (linear, frame) = (5 << shift, 1u64 << shift);
        let slot = guest.map_at(ROOT, linear, level, frame | ALL | PS);
        for offset in [0, 0x1234, (1 << shift) - 8, 1 << 20] {
            guest.write(frame + offset, 8, offset ^ 0x5555);
            assert_eq!(guest.mmu.load::<u64>(linear + offset), Ok(offset ^ 0x5555), "{mode:?}");
        }
        assert_eq!(guest.accessed_dirty(slot), (true, false));
        guest.mmu.store(linear + 0x7_7777, 1u8).expect("store");
        assert_eq!(guest.accessed_dirty(slot), (true, true));
    }
}

#[test]
fn one_gib_pages() {
    for mode in [PagingMode::Level4, PagingMode::Level5] {
        let mut guest = Guest::new(mode);
        guest.map_at(ROOT, 3 << 30, 3, 1 << 32 | ALL | PS);
        guest.write((1 << 32) + 0x12_3456, 4, 0xCAFE);
        assert_eq!(guest.mmu.load::<u32>((3 << 30) + 0x12_3456), Ok(0xCAFE));
    }
}

#[test]
fn pse_is_ignored_without_cr4_pse() {
    let mut guest = Guest::new(PagingMode::Legacy32);
    guest.state.cr4 &= !cr4::PSE;
    guest.reload();
    let table = guest.table();
    guest.map_at(ROOT, LINEAR, 2, table | ALL | PS);
    guest.write(table + (LINEAR >> 12 & 0x3FF) * 4, 4, DATA | ALL);
    guest.write(DATA, 4, 9);
    assert_eq!(guest.mmu.load::<u32>(LINEAR), Ok(9));
}

#[test]
fn pse_36_reaches_above_4_gib() {
    let mut guest = Guest::new(PagingMode::Legacy32);
    // Address bits 39:32 lie in bits 20:13 of the entry.
    guest.map_at(ROOT, 0xC000_0000, 2, 1 << 13 | ALL | PS);
    guest.write((1 << 32) + 0x10_0004, 4, 0xBEEF);
    assert_eq!(guest.mmu.load::<u32>(0xC010_0004), Ok(0xBEEF));
}

#[test]
fn pae_reaches_above_4_gib_and_pdptes_are_registers() {
    let mut guest = Guest::new(PagingMode::Pae);
    guest.map(0x4000_0000, 1 << 32 | ALL);
    guest.write(1 << 32, 4, 5);
    assert_eq!(guest.mmu.load::<u32>(0x4000_0000), Ok(5));
    // Clearing the PDPTE in memory has no effect before CR3 is loaded.
    guest.write(ROOT + 8, 8, 0);
    guest.mmu.flush_all();
    assert_eq!(guest.mmu.load::<u32>(0x4000_0000), Ok(5));
    guest.mmu.load_cr3(ROOT, false).expect("cr3");
    assert_eq!(code(guest.mmu.load::<u32>(0x4000_0000)), 0);
}

#[test]
fn reserved_bits_in_a_pdpte_fault_the_load_of_cr3() {
    for bit in [1, 2, 5, 8, 40, 51, 52, 62, 63] {
        let mut guest = Guest::new(PagingMode::Pae);
        guest.map(LINEAR, DATA | ALL);
        let other = 0x20_0020;
        guest.write(other + 16, 8, P | 1 << bit);
        assert_eq!(guest.mmu.load_cr3(other, false), Err(Fault::GP0), "bit {bit}");
        assert_eq!(guest.mmu.paging().cr3, ROOT);
        assert!(guest.mmu.load::<u8>(LINEAR).is_ok());
        let state = PagingState { cr3: other, ..guest.state };
        assert_eq!(guest.mmu.set_paging(&state), Err(Fault::GP0));
        // Not present: the other bits do not matter.
        guest.write(other + 16, 8, 1 << bit);
        assert_eq!(guest.mmu.load_cr3(other, false), Ok(()));
    }
}

#[test]
fn entries_of_a_64_bit_guest_ignore_their_software_bits() {
    let mut guest = Guest::new(PagingMode::Level4);
    let software = 0x07F0_0000_0000_0E00;
    let slots = guest.path(ROOT, LINEAR, 1);
    guest.map(LINEAR, DATA | ALL);
    for slot in slots {
        let entry = guest.read(slot, 8);
        guest.write(slot, 8, entry | software);
    }
    assert!(guest.mmu.load::<u8>(LINEAR).is_ok());
}

#[test]
fn without_paging_linear_is_physical_and_everything_is_allowed() {
    let mut guest = Guest::new(PagingMode::None);
    guest.state.cr4 = cr4::SMEP | cr4::SMAP;
    guest.reload();
    guest.write(DATA + 4, 4, 0x1234_5678);
    for cpl in [0, 3] {
        guest.mmu.set_privilege(cpl, false);
        assert_eq!(guest.mmu.load::<u32>(DATA + 4), Ok(0x1234_5678));
        guest.mmu.store(DATA + 4, 0x1234_5678u32).expect("store");
        assert_eq!(guest.mmu.fetch_translate(DATA + 5).map(|page| page.gpa), Ok(DATA + 5));
    }
}

#[test]
fn a20_clears_bit_20_of_every_physical_address() {
    let mut guest = Guest::new(PagingMode::None);
    guest.write(0x10, 4, 1);
    guest.write(0x10_0010, 4, 2);
    assert_eq!(guest.mmu.load::<u32>(0x10_0010), Ok(2));
    guest.mmu.set_a20(false);
    assert_eq!(guest.mmu.load::<u32>(0x10_0010), Ok(1));
    guest.mmu.store(0x10_0010, 3u32).expect("store");
    assert_eq!((guest.read(0x10, 4), guest.read(0x10_0010, 4)), (3, 2));
    guest.mmu.set_a20(true);
    assert_eq!(guest.mmu.load::<u32>(0x10_0010), Ok(2));
}

#[test]
fn fetch_gives_the_physical_address() {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, 1 << 32 | ALL | G);
    guest.map(LINEAR + 0x1000, 0xA000_0000 | ALL);
    for _ in 0..2 {
        let page = guest.mmu.fetch_translate(LINEAR + 0x321).expect("fetch");
        assert_eq!((page.gpa, page.ram), ((1 << 32) + 0x321, true));
        let page = guest.mmu.fetch_translate(LINEAR + 0x1001).expect("fetch");
        assert_eq!((page.gpa, page.ram), (0xA000_0001, false));
    }
    guest.map(LINEAR + 0x2000, DATA | ALL | XD);
    assert!(guest.mmu.fetch_translate(LINEAR + 0x2000).is_err());
}

#[test]
fn page_tables_in_device_memory_are_read_over_the_bus() {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.mmu.load_cr3(0xE000_0000, false).expect("cr3");
    // The bus answers 0x07060504_03020100 plus the address: present bit of byte 0 clear.
    assert_eq!(code(guest.mmu.load::<u8>(0)), 0);
    assert_eq!(guest.bus.take(), [('r', 0xE000_0000, vec![0, 1, 2, 3, 4, 5, 6, 7])]);
}
