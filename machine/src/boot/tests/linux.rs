//! The Linux protocols: what the zero page says, and what is refused.

use super::images::{PAYLOAD, Segment, bzimage, elf, patch};
use super::*;
use crate::boot::{ElfClass, Entry, Kind};

fn modules() -> [Module<'static>; 2] {
    [
        Module { data: b"first", command_line: "ignored" },
        Module { data: b"second", command_line: "" },
    ]
}

/// Loads `image` with two modules; returns the entry and the zero page.
fn load_linux(guest: &TestGuest, image: &[u8], protocol: Protocol) -> (Entry, u64) {
    let modules = modules();
    let request = Request { modules: &modules, protocol, ..guest.request(image) };
    let entry = guest.load(&request).unwrap().entry;
    let zero_page = match entry {
        Entry::Long64(state) => state.rsi,
        Entry::Protected32(state) => state.esi.into(),
        Entry::Real16(_) => unreachable!(),
    };
    (entry, zero_page)
}

fn check_zero_page(guest: &TestGuest, zero_page: u64) {
    assert_eq!(guest.string(guest.u32(zero_page + 0x228).into()), "console=ttyS0");
    assert_eq!(guest.u8(zero_page + 0x210), 0xFF);
    assert_eq!(guest.u8(zero_page + 0x211), 1);
    assert_eq!(guest.u64(zero_page + 0x250), 0);
    assert_eq!(guest.u64(zero_page + 0x70), 0x9_FC00);
    // The initrd is both modules, the second at a multiple of four.
    let initrd = u64::from(guest.u32(zero_page + 0x218));
    assert_eq!(initrd, 32 * MIB - 4096);
    assert_eq!(guest.u32(zero_page + 0x21C), 14);
    assert_eq!(guest.bytes(initrd, 14), b"first\0\0\0second");
    // e820: the regions of a PC.
    assert_eq!(guest.u8(zero_page + 0x1E8), 4);
    let e820 = |index: u64| {
        let at = zero_page + 0x2D0 + 20 * index;
        (guest.u64(at), guest.u64(at + 8), guest.u32(at + 16))
    };
    assert_eq!(e820(0), (0, 0x9_FC00, 1));
    assert_eq!(e820(1), (0x9_FC00, 0x400, 2));
    assert_eq!(e820(2), (0xF_0000, 0x1_0000, 2));
    assert_eq!(e820(3), (0x10_0000, 31 * MIB, 1));
    assert_eq!(guest.u32(zero_page + 0x1E0), 31 << 10);
}

#[test]
fn a_bzimage_starts_by_the_64_bit_protocol() {
    let guest = guest();
    let (entry, zero_page) = load_linux(&guest, &bzimage(), Protocol::Best);
    let Entry::Long64(state) = entry else { panic!("{entry:?}") };
    assert_eq!(state.rip, 0x100_0200);
    assert_eq!((state.code.selector, state.data.selector), (0x10, 0x18));
    assert_eq!((entry.cr0(), entry.cr4(), entry.efer()), (0x8000_0011, 0x20, 0x500));
    assert_eq!(guest.bytes(0x100_0000, PAYLOAD.len()), PAYLOAD);
    assert_eq!(guest.u32(zero_page + 0x214), 0x100_0000);
    check_zero_page(&guest, zero_page);
}

#[test]
fn a_bzimage_starts_by_the_32_bit_protocol() {
    let mut without_64 = bzimage();
    patch(&mut without_64, 0x236, &[0, 0]);
    for (image, protocol) in [(bzimage(), Protocol::Linux32), (without_64, Protocol::Best)] {
        let guest = guest();
        let (entry, zero_page) = load_linux(&guest, &image, protocol);
        let Entry::Protected32(state) = entry else { panic!("{entry:?}") };
        assert_eq!((state.eip, state.eax, state.ebx), (0x100_0000, 0, 0));
        assert_eq!((entry.cr0(), entry.cr4(), entry.efer()), (0x11, 0, 0));
        check_zero_page(&guest, zero_page);
    }
}

#[test]
fn protocol_2_01_finds_its_command_line_by_the_old_magic() {
    let guest = guest();
    let mut image = bzimage();
    patch(&mut image, 0x206, &[1, 2]);
    let (entry, zero_page) = load_linux(&guest, &image, Protocol::Best);
    assert_eq!(entry.address(), 0x10_0000);
    assert_eq!(guest.u16(zero_page + 0x20), 0xA33F);
    let offset = u64::from(guest.u16(zero_page + 0x22));
    assert_eq!(guest.string(zero_page + offset), "console=ttyS0");
}

#[test]
fn an_initrd_that_does_not_fit_below_goes_above_four_gib() {
    let guest = TestGuest::new(32 * MIB, 24 * MIB);
    let mut image = bzimage();
    let data = vec![0xC3; 7 << 20];
    let modules = [Module { data: &data, command_line: "" }];
    let load = |image: &[u8]| guest.load(&Request { modules: &modules, ..guest.request(image) });
    // Room for seven MiB is from 1 to 16 MiB, out of reach for this kernel.
    patch(&mut image, 0x22C, &0x40_0000_u32.to_le_bytes());
    let Entry::Long64(state) = load(&image).unwrap().entry else { panic!() };
    let initrd = (1 << 32) + MIB;
    assert_eq!(guest.u32(state.rsi + 0x218), initrd as u32);
    assert_eq!(guest.u32(state.rsi + 0xC0), 1);
    assert_eq!((guest.u32(state.rsi + 0x21C), guest.u32(state.rsi + 0xC4)), (7 << 20, 0));
    assert_eq!(guest.bytes(initrd, data.len()), data);

    patch(&mut image, 0x236, &[1, 0]);
    let message = load(&image).unwrap_err().to_string();
    assert!(message.contains("no room for initrd: 7340032 bytes"), "{message}");
}

#[test]
fn a_vmlinux_without_note_starts_where_its_header_says() {
    for (wide, class) in [(true, ElfClass::Elf64), (false, ElfClass::Elf32)] {
        let guest = guest();
        let segment = Segment {
            physical: 0x100_0000,
            virtual_: 0xC100_0000,
            content: vec![0x90; 64],
            size: 0x1000,
        };
        // A virtual entry address means the same as the physical one.
        for entry in [0x100_0010, 0xC100_0010] {
            let image = elf(wide, entry, std::slice::from_ref(&segment), None);
            let loaded = guest.load(&guest.request(&image)).unwrap();
            assert_eq!(loaded.kind, Kind::Vmlinux(class));
            assert_eq!(loaded.entry.address(), 0x100_0010);
            assert_eq!(matches!(loaded.entry, Entry::Long64(_)), wide);
        }
        assert_eq!(guest.bytes(0x100_0000, 64), [0x90; 64]);
    }
}

#[test]
fn a_malformed_bzimage_is_refused_with_the_field_at_fault() {
    let spoil = |at: usize, bytes: &[u8]| {
        let mut image = bzimage();
        patch(&mut image, at, bytes);
        refusal(&image)
    };
    let header_cut = refusal(&bzimage()[..0x250]);
    assert!(header_cut.contains("cut short: the setup header ends at byte 620"), "{header_cut}");
    let setup_cut = refusal(&bzimage()[..0x400]);
    assert!(setup_cut.contains("cut short: the setup code"), "{setup_cut}");
    let kernel_cut = refusal(&bzimage()[..4096]);
    assert!(kernel_cut.contains("cut short: the compressed kernel"), "{kernel_cut}");
    for (message, words) in [
        (spoil(0x206, &[0, 1]), "boot protocol 1.00 is too old"),
        (spoil(0x211, &[0]), "loadflags 0x00"),
        (spoil(0x201, &[3]), "field jump is 0x3"),
        (spoil(0x230, &[3]), "field kernel_alignment is 0x200003"),
        (spoil(0x258, &[0; 8]), "field pref_address is 0x0: below 1 MiB"),
        (spoil(0x258, &[0xFF; 8]), "field pref_address is 0xffffffffffffffff: above 4 GiB"),
        (spoil(0x25B, &[0xF0]), "0x200000 bytes at 0xf0000000, which is not all RAM"),
        (spoil(0x260, &[0xFF; 4]), "0xffffffff bytes at 0x1000000, which is not all RAM"),
        (spoil(0x238, &[5, 0]), "has 13 bytes, this kernel takes at most 5"),
    ] {
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_command_line_with_a_nul_is_refused() {
    let (guest, image) = (guest(), bzimage());
    let request = Request { command_line: "a\0b", ..guest.request(&image) };
    assert!(matches!(guest.load(&request), Err(ImageError::CommandLineNul(1))));
}

#[test]
fn a_memory_map_too_long_for_the_zero_page_is_refused() {
    let (mut guest, image) = (guest(), bzimage());
    for index in 0..130 {
        guest.map.set(0x8000_0000 + index * 0x2000, 0x1000, crate::boot::RegionKind::Reserved);
    }
    let message = guest.load(&guest.request(&image)).unwrap_err().to_string();
    assert!(message.contains("has 134 regions, the boot protocol holds 128"), "{message}");
}
