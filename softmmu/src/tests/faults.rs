//! Page-fault error codes, rights, accessed and dirty flags (SDM vol. 3A, 4.6 to 4.8).

use super::*;
use crate::paging::Access;
use crate::walk::entry::XD;
use x86::fault::pf;

const LINEAR: u64 = 0x0076_5000;

/// The error code of an access at a CPL, or `None` if it succeeds.
fn attempt(guest: &mut Guest, cpl: u8, ac: bool, access: Access) -> Option<u32> {
    guest.mmu.fault_address = 0;
    guest.mmu.set_privilege(cpl, ac);
    let result = match access {
        Access::Read => guest.mmu.load::<u32>(LINEAR + 4).map(|_| ()),
        Access::Write => guest.mmu.store(LINEAR + 4, 0u32),
        Access::Fetch => guest.mmu.fetch_translate(LINEAR + 4).map(|_| ()),
    };
    guest.mmu.set_privilege(0, false);
    match result {
        Ok(()) => None,
        Err(_) => {
            assert_eq!(guest.mmu.fault_address, LINEAR + 4);
            Some(code(result))
        }
    }
}

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Fetch];

fn bits_of(guest: &Guest, cpl: u8, access: Access) -> u32 {
    let nx = guest.state.efer & efer::NXE != 0 && guest.state.cr4 & cr4::PAE != 0;
    let fetch = nx || guest.state.cr4 & cr4::SMEP != 0;
    let user = if cpl == 3 { pf::USER } else { 0 };
    user | match access {
        Access::Read => 0,
        Access::Write => pf::WRITE,
        Access::Fetch => pf::FETCH * u32::from(fetch),
    }
}

#[test]
fn not_present_at_each_level() {
    for mode in MODES {
        let levels = Guest::new(mode).path(ROOT, LINEAR, 1).len() as u32;
        for level in 1..=levels {
            if mode == PagingMode::Pae && level == 3 {
                continue; // PDPTE registers: see formats.rs
            }
            let mut guest = Guest::new(mode);
            guest.map(LINEAR, DATA | ALL);
            let slots = guest.path(ROOT, LINEAR, 1);
            let slot = slots[(levels - level) as usize];
            let entry = guest.read(slot, guest.entry_size());
            guest.write(slot, guest.entry_size(), entry & !P);
            for cpl in [0, 3] {
                for access in ACCESSES {
                    let expected = bits_of(&guest, cpl, access);
                    assert_eq!(attempt(&mut guest, cpl, false, access), Some(expected), "{mode:?}");
                }
            }
        }
    }
}

#[test]
fn the_fetch_bit_needs_nx_or_smep() {
    let mut guest = Guest::new(PagingMode::Legacy32);
    assert_eq!(attempt(&mut guest, 0, false, Access::Fetch), Some(0));
    guest.state.cr4 |= cr4::SMEP;
    guest.reload();
    assert_eq!(attempt(&mut guest, 0, false, Access::Fetch), Some(pf::FETCH));
    let mut guest = Guest::new(PagingMode::Pae);
    assert_eq!(attempt(&mut guest, 0, false, Access::Fetch), Some(pf::FETCH));
    guest.state.efer &= !efer::NXE;
    guest.reload();
    assert_eq!(attempt(&mut guest, 0, false, Access::Fetch), Some(0));
}

#[test]
fn user_and_write_rights_need_every_level() {
    for mode in MODES {
        for (bit, cpl, access) in
            [(US, 3, Access::Read), (RW, 3, Access::Write), (RW, 0, Access::Write)]
        {
            let mut guest = Guest::new(mode);
            guest.map(LINEAR, DATA | ALL);
            let slots = guest.path(ROOT, LINEAR, 1);
            assert_eq!(attempt(&mut guest, cpl, false, access), None);
            for slot in slots {
                if mode == PagingMode::Pae && slot < ROOT + 32 {
                    continue; // PDPTEs carry no rights
                }
                let entry = guest.read(slot, guest.entry_size());
                guest.write(slot, guest.entry_size(), entry & !bit);
                guest.mmu.invlpg(LINEAR);
                let expected = pf::PRESENT | bits_of(&guest, cpl, access);
                assert_eq!(attempt(&mut guest, cpl, false, access), Some(expected), "{mode:?}");
                guest.write(slot, guest.entry_size(), entry);
                // More rights need no invalidation: a cached refusal does not exist.
                assert_eq!(attempt(&mut guest, cpl, false, access), None);
            }
        }
    }
}

#[test]
fn supervisor_writes_ignore_read_only_pages_without_wp() {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, DATA | P | US);
    assert_eq!(attempt(&mut guest, 0, false, Access::Write), Some(pf::PRESENT | pf::WRITE));
    guest.state.cr0 &= !cr0::WP;
    guest.reload();
    assert_eq!(attempt(&mut guest, 0, false, Access::Write), None);
    let user = pf::PRESENT | pf::WRITE | pf::USER;
    assert_eq!(attempt(&mut guest, 3, false, Access::Write), Some(user));
    guest.state.cr0 |= cr0::WP;
    guest.reload();
    assert_eq!(attempt(&mut guest, 0, false, Access::Write), Some(pf::PRESENT | pf::WRITE));
}

#[test]
fn execute_disable_at_each_level() {
    for mode in [PagingMode::Pae, PagingMode::Level4, PagingMode::Level5] {
        let mut guest = Guest::new(mode);
        guest.map(LINEAR, DATA | ALL);
        for slot in guest.path(ROOT, LINEAR, 1) {
            if mode == PagingMode::Pae && slot < ROOT + 32 {
                continue;
            }
            let entry = guest.read(slot, 8);
            guest.write(slot, 8, entry | XD);
            guest.mmu.invlpg(LINEAR);
            for cpl in [0, 3] {
                let expected = pf::PRESENT | bits_of(&guest, cpl, Access::Fetch);
                assert_eq!(attempt(&mut guest, cpl, false, Access::Fetch), Some(expected));
                assert_eq!(attempt(&mut guest, cpl, false, Access::Read), None);
            }
            guest.write(slot, 8, entry);
        }
        // Without NXE the bit is reserved, for reads too.
        let slot = guest.map(LINEAR, DATA | ALL | XD);
        guest.state.efer &= !efer::NXE;
        guest.reload();
        let expected = pf::PRESENT | pf::RESERVED;
        assert_eq!(attempt(&mut guest, 0, false, Access::Read), Some(expected));
        assert_eq!(guest.accessed_dirty(slot), (false, false));
    }
}

#[test]
fn reserved_bits_at_each_level() {
    let expected =
        |guest: &Guest, cpl, access| Some(pf::PRESENT | pf::RESERVED | bits_of(guest, cpl, access));
    // (mode, level, large page, bit)
    let mut cases = Vec::new();
    for mode in [PagingMode::Pae, PagingMode::Level4, PagingMode::Level5] {
        for bit in 40..52 {
            cases.extend((1..=2).map(|level| (mode, level, false, bit)));
            cases.push((mode, 2, true, bit));
        }
        cases.extend((13..=20).map(|bit| (mode, 2, true, bit)));
    }
    cases.extend(
        (52..=62)
            .flat_map(|bit| [(PagingMode::Pae, 1, false, bit), (PagingMode::Pae, 2, true, bit)]),
    );
    for mode in [PagingMode::Level4, PagingMode::Level5] {
        cases.extend((3..=4).map(|level| (mode, level, false, 45)));
        cases.extend((13..=29).map(|bit| (mode, 3, true, bit)));
        cases.push((mode, 4, false, 7));
    }
    cases.push((PagingMode::Level5, 5, false, 7));
    cases.push((PagingMode::Level5, 5, false, 40));
    cases.push((PagingMode::Legacy32, 2, true, 21));
    for (mode, level, large, bit) in cases {
        let mut guest = Guest::new(mode);
        guest.map(LINEAR, DATA | ALL);
        let slots = guest.path(ROOT, LINEAR, level);
        let slot = *slots.last().expect("slot");
        let entry = if large { ALL | PS } else { guest.read(slot, guest.entry_size()) };
        guest.write(slot, guest.entry_size(), entry);
        for cpl in [0, 3] {
            assert_eq!(
                attempt(&mut guest, cpl, false, Access::Read),
                None,
                "{mode:?} {level} {bit}"
            );
        }
        guest.write(slot, guest.entry_size(), entry | 1 << bit);
        guest.mmu.flush_all();
        for cpl in [0, 3] {
            for access in ACCESSES {
                let want = expected(&guest, cpl, access);
                let got = attempt(&mut guest, cpl, false, access);
                assert_eq!(got, want, "{mode:?} level {level} large {large} bit {bit}");
            }
        }
    }
}

#[test]
fn pse_36_bits_beyond_maxphyaddr_are_reserved() {
    let mut guest = Guest::new(PagingMode::Legacy32);
    guest.state.maxphyaddr = 36;
    guest.reload();
    for bit in 13..=20 {
        guest.map_at(ROOT, LINEAR, 2, ALL | PS | 1 << bit);
        guest.mmu.flush_all();
        let expected = if bit > 16 { Some(pf::PRESENT | pf::RESERVED) } else { None };
        assert_eq!(attempt(&mut guest, 0, false, Access::Read), expected, "bit {bit}");
    }
}

#[test]
fn smep_keeps_the_supervisor_from_user_code() {
    for mode in MODES {
        let mut guest = Guest::new(mode);
        guest.map(LINEAR, DATA | ALL);
        assert_eq!(attempt(&mut guest, 0, false, Access::Fetch), None);
        guest.state.cr4 |= cr4::SMEP;
        guest.reload();
        assert_eq!(attempt(&mut guest, 0, true, Access::Fetch), Some(pf::PRESENT | pf::FETCH));
        assert_eq!(attempt(&mut guest, 0, false, Access::Read), None);
        assert_eq!(attempt(&mut guest, 3, false, Access::Fetch), None);
    }
}

#[test]
fn smap_keeps_the_supervisor_from_user_data_unless_ac() {
    for mode in MODES {
        let mut guest = Guest::new(mode);
        guest.map(LINEAR, DATA | ALL);
        guest.state.cr4 |= cr4::SMAP;
        guest.reload();
        for _ in 0..2 {
            assert_eq!(attempt(&mut guest, 0, false, Access::Read), Some(pf::PRESENT));
            let write = Some(pf::PRESENT | pf::WRITE);
            assert_eq!(attempt(&mut guest, 0, false, Access::Write), write);
            assert_eq!(attempt(&mut guest, 0, true, Access::Read), None);
            assert_eq!(attempt(&mut guest, 0, true, Access::Write), None);
            assert_eq!(attempt(&mut guest, 0, false, Access::Fetch), None);
            assert_eq!(attempt(&mut guest, 3, false, Access::Write), None);
        }
        // Implicit accesses are held back whatever AC says, and are never user accesses.
        guest.mmu.set_privilege(3, true);
        assert_eq!(code(guest.mmu.load_system::<u64>(LINEAR)), pf::PRESENT);
        assert_eq!(code(guest.mmu.store_system(LINEAR, 0u8)), pf::PRESENT | pf::WRITE);
        // Explicit ones at a new CPL follow AC.
        assert!(guest.mmu.store_as(0, LINEAR, 0u64).is_ok());
        guest.mmu.set_privilege(3, false);
        assert_eq!(code(guest.mmu.store_as(0, LINEAR, 0u64)), pf::PRESENT | pf::WRITE);
        assert!(guest.mmu.load_as::<u32>(3, LINEAR).is_ok());
    }
}

#[test]
fn system_accesses_reach_supervisor_pages_from_user_mode() {
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, DATA | P | RW);
    guest.set_user();
    guest.mmu.store_system(LINEAR, 0x55u16).expect("system");
    assert_eq!(guest.mmu.load_system::<u16>(LINEAR), Ok(0x55));
    assert_eq!(code(guest.mmu.load::<u16>(LINEAR)), pf::PRESENT | pf::USER);
    assert_eq!(code(guest.mmu.load_as::<u16>(3, LINEAR)), pf::PRESENT | pf::USER);
    assert_eq!(guest.mmu.load_as::<u16>(1, LINEAR), Ok(0x55));
}

#[test]
fn protection_keys() {
    const KEY: u64 = 5;
    let mut guest = Guest::new(PagingMode::Level4);
    guest.map(LINEAR, DATA | ALL | KEY << 59);
    guest.state.cr4 |= cr4::PKE;
    guest.reload();
    assert_eq!(attempt(&mut guest, 3, false, Access::Write), None);
    let (access_disable, write_disable) = (1 << (2 * KEY), 2 << (2 * KEY));
    let key = pf::PRESENT | pf::PROTECTION_KEY;
    guest.state.pkru = write_disable;
    guest.reload();
    assert_eq!(attempt(&mut guest, 3, false, Access::Read), None);
    assert_eq!(attempt(&mut guest, 3, false, Access::Write), Some(key | pf::WRITE | pf::USER));
    assert_eq!(attempt(&mut guest, 0, false, Access::Write), Some(key | pf::WRITE));
    guest.state.cr0 &= !cr0::WP;
    guest.reload();
    assert_eq!(attempt(&mut guest, 0, false, Access::Write), None);
    guest.state.pkru = access_disable;
    guest.reload();
    for cpl in [0, 3] {
        let user = bits_of(&guest, cpl, Access::Read);
        assert_eq!(attempt(&mut guest, cpl, false, Access::Read), Some(key | user));
        assert_eq!(attempt(&mut guest, cpl, false, Access::Fetch), None);
    }
    // Another key's bits do not matter; supervisor pages have no keys.
    guest.state.pkru = !(3 << (2 * KEY));
    guest.reload();
    assert_eq!(attempt(&mut guest, 3, false, Access::Read), None);
    guest.map(LINEAR, DATA | P | RW | KEY << 59);
    guest.state.pkru = u32::MAX;
    guest.reload();
    guest.mmu.invlpg(LINEAR);
    assert_eq!(attempt(&mut guest, 0, false, Access::Write), None);
    // A key violation is reported beside another one.
    guest.map(LINEAR, DATA | P | US | KEY << 59);
    guest.mmu.invlpg(LINEAR);
    assert_eq!(attempt(&mut guest, 3, false, Access::Write), Some(key | pf::WRITE | pf::USER));
}

#[test]
fn accessed_and_dirty_are_set_when_used_and_only_then() {
    for mode in MODES {
        let mut guest = Guest::new(mode);
        guest.map(LINEAR, DATA | ALL);
        let slots = guest.path(ROOT, LINEAR, 1);
        let (&leaf, upper) = slots.split_last().expect("slots");
        let flags = |guest: &Guest| guest.accessed_dirty(leaf);
        assert_eq!(flags(&guest), (false, false));
        assert_eq!(attempt(&mut guest, 0, false, Access::Read), None);
        assert_eq!(flags(&guest), (true, false), "{mode:?}");
        for &slot in upper {
            // PDPTEs have no accessed flag.
            let expected = !(mode == PagingMode::Pae && slot < ROOT + 32);
            assert_eq!(guest.accessed_dirty(slot), (expected, false), "{mode:?}");
        }
        assert_eq!(attempt(&mut guest, 3, false, Access::Write), None);
        assert_eq!(flags(&guest), (true, true));
        // Cached now: clearing the flags in memory goes unseen until an invalidation.
        guest.map(LINEAR, DATA | ALL);
        assert_eq!(attempt(&mut guest, 3, false, Access::Write), None);
        assert_eq!(flags(&guest), (false, false));
        guest.mmu.invlpg(LINEAR);
        assert_eq!(attempt(&mut guest, 3, false, Access::Fetch), None);
        assert_eq!(flags(&guest), (true, false));
        // An access that faults sets nothing in the entry that maps the page.
        guest.map(LINEAR, DATA | P);
        guest.mmu.invlpg(LINEAR);
        assert!(attempt(&mut guest, 3, false, Access::Read).is_some());
        assert!(attempt(&mut guest, 0, false, Access::Write).is_some());
        assert_eq!(flags(&guest), (false, false));
    }
}

#[test]
fn a_read_first_does_not_hide_the_dirty_flag_from_a_write() {
    let mut guest = Guest::new(PagingMode::Level4);
    let leaf = guest.map(LINEAR, DATA | ALL);
    for _ in 0..3 {
        assert_eq!(attempt(&mut guest, 0, false, Access::Read), None);
    }
    assert_eq!(guest.accessed_dirty(leaf), (true, false));
    let old = guest.mmu.modify(LINEAR, true, |v: u32| v.wrapping_add(1)).expect("modify");
    assert_eq!((old, guest.accessed_dirty(leaf)), (0, (true, true)));
}
