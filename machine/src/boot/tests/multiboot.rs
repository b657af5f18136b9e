//! Multiboot 1, with and without ELF.

use super::images::{CONTENT_AT, Segment, elf, multiboot_header};
use super::*;
use crate::boot::{Entry, Kind, Protected32};

fn load_multiboot(guest: &TestGuest, request: &Request<'_>) -> Protected32 {
    let loaded = guest.load(request).unwrap();
    assert_eq!(loaded.kind, Kind::Multiboot);
    let Entry::Protected32(state) = loaded.entry else { panic!("{:?}", loaded.entry) };
    assert_eq!(state.eax, 0x2BAD_B002);
    state
}

#[test]
fn an_elf_kernel_gets_its_information_block() {
    for wide in [false, true] {
        let guest = guest();
        let content = multiboot_header(3, &[]);
        let image = elf(wide, 0x40_000C, &[Segment::flat(0x40_0000, &content, 17 << 20)], None);
        let modules = [
            Module { data: b"NAME=value\n", command_line: "env" },
            Module { data: b"", command_line: "empty" },
        ];
        let request = Request { modules: &modules, ..guest.request(&image) };
        let state = load_multiboot(&guest, &request);
        assert_eq!(state.eip, 0x40_000C);

        let info = u64::from(state.ebx);
        assert_eq!(guest.u32(info), 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9);
        assert_eq!((guest.u32(info + 4), guest.u32(info + 8)), (639, 31 << 10));
        assert_eq!(guest.string(guest.u32(info + 16).into()), "kernel console=ttyS0");
        assert_eq!(guest.string(guest.u32(info + 64).into()), "Ringshift");
        // Modules lie upwards from the end of the kernel, page by page.
        assert_eq!(guest.u32(info + 20), 2);
        let list = u64::from(guest.u32(info + 24));
        let start = 0x40_0000 + (17 << 20);
        assert_eq!((guest.u32(list), guest.u32(list + 4)), (start, start + 11));
        assert_eq!(guest.bytes(start.into(), 11), b"NAME=value\n");
        assert_eq!(guest.string(guest.u32(list + 8).into()), "env");
        assert_eq!((guest.u32(list + 16), guest.u32(list + 20)), (start + 4096, start + 4096));
        assert_eq!(guest.string(guest.u32(list + 24).into()), "empty");
        // The memory map has 20 bytes after each size.
        assert_eq!(guest.u32(info + 44), 4 * 24);
        let map = u64::from(guest.u32(info + 48));
        assert_eq!(guest.u32(map + 24), 20);
        assert_eq!((guest.u64(map + 28), guest.u64(map + 36)), (0x9_FC00, 0x400));
        assert_eq!(guest.u32(map + 44), 2);
    }
}

#[test]
fn without_arguments_the_command_line_is_the_name() {
    let guest = guest();
    let content = multiboot_header(0, &[]);
    let image = elf(false, 0x10_0000, &[Segment::flat(0x10_0000, &content, 4096)], None);
    let state = load_multiboot(&guest, &Request { command_line: "", ..guest.request(&image) });
    assert_eq!(guest.string(guest.u32(u64::from(state.ebx) + 16).into()), "kernel");
    assert_eq!(guest.u32(state.ebx.into()) & 1 << 3, 0);
}

/// A flat image with its header 16 bytes in, loaded by address fields.
fn flat(fields: [u32; 5]) -> Vec<u8> {
    let mut image = vec![0xEE; 16];
    image.extend_from_slice(&multiboot_header(1 << 16, &fields));
    image.resize(256, 0xEE);
    image
}

#[test]
fn a_flat_kernel_is_loaded_by_its_address_fields() {
    for (fields, loaded, size) in [
        ([0x10_0010, 0x10_0000, 0x10_0080, 0x10_1000, 0x10_0040], 0x80, 0x1000),
        ([0x10_0010, 0x10_0000, 0, 0, 0x10_0040], 256, 256),
        // The first 16 bytes of the file are not loaded.
        ([0x10_0000, 0x10_0000, 0, 0, 0x10_0040], 240, 240),
    ] {
        let guest = guest();
        guest.memory.write_slice(&[0x77; 0x2000], GuestAddress(0x10_0000)).unwrap();
        let image = flat(fields);
        let state = load_multiboot(&guest, &guest.request(&image));
        assert_eq!(state.eip, 0x10_0040);
        let skipped = 0x10 - (fields[0] - fields[1]) as usize;
        assert_eq!(guest.bytes(0x10_0000, loaded), &image[skipped..skipped + loaded]);
        assert_eq!(guest.bytes(0x10_0000 + loaded as u64, size - loaded), vec![0; size - loaded]);
        assert_eq!(guest.u8(0x10_0000 + size as u64), 0x77);
    }
}

#[test]
fn the_header_is_found_only_where_the_specification_has_it() {
    let guest = guest();
    for (at, found) in [(8192 - 12, true), (8192 - 8, false), (4098, false)] {
        let mut content = vec![0; at - CONTENT_AT];
        content.extend_from_slice(&multiboot_header(0, &[]));
        let size = content.len() as u64;
        let image = elf(false, 0x10_0000, &[Segment::flat(0x10_0000, &content, size)], None);
        let kind = guest.load(&guest.request(&image)).unwrap().kind;
        assert_eq!(kind == Kind::Multiboot, found, "{at}");
    }
}

#[test]
fn a_malformed_header_is_refused_with_the_field_at_fault() {
    let good = [0x10_0010, 0x10_0000, 0x10_0080, 0x10_1000, 0x10_0040];
    let spoil = |index: usize, value: u32| {
        let mut fields = good;
        fields[index] = value;
        refusal(&flat(fields))
    };
    for (message, words) in [
        (refusal(&multiboot_header(1 << 5, &[])), "unknown features (flags 0x00000020)"),
        (refusal(&multiboot_header(0, &[])), "no address fields"),
        (refusal(&multiboot_header(1 << 16, &[1, 2])), "cut short: the Multiboot header"),
        (spoil(0, 0), "load_addr is 0x100000: above header_addr"),
        (spoil(0, u32::MAX), "header_addr is 0xffffffff: too far above"),
        (spoil(2, 0x1000), "load_end_addr is 0x1000: below load_addr"),
        (spoil(2, u32::MAX), "cut short: the image (load_end_addr)"),
        (spoil(3, 0x10_0010), "bss_end_addr is 0x100010: below the end"),
        (spoil(3, u32::MAX), "bytes at 0x100000, which is not all RAM"),
        (spoil(4, 0x10_1000), "entry point 0x101000 is outside"),
    ] {
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn modules_larger_than_memory_are_refused() {
    let guest = guest();
    let data = vec![0; 40 << 20];
    let modules = [Module { data: &data, command_line: "" }];
    let image = flat([0x10_0010, 0x10_0000, 0, 0, 0x10_0040]);
    let message = guest
        .load(&Request { modules: &modules, ..guest.request(&image) })
        .unwrap_err()
        .to_string();
    assert!(message.contains("no room for module: 41943040 bytes"), "{message}");
}
