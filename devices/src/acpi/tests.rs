//! The tables, read back as a guest reads them.

use std::collections::BTreeMap;

use super::*;

fn board(processors: u32) -> BoardInfo {
    BoardInfo {
        apic_ids: (0..processors).collect(),
        processor_signature: 0x0005_0654,
        processor_features: 0x0F8B_FBFF,
        local_apic_base: 0xFEE0_0000,
        io_apic_id: 0,
        io_apic_base: 0xFEC0_0000,
        power: PowerInfo {
            smi_command: None,
            sci_irq: 9,
            pm1a_event: 0x600,
            pm1a_control: 0x604,
            timer: 0x608,
            timer_32_bits: true,
            gpe0: 0x620,
            gpe0_length: 16,
            suspend_type: 1,
            power_off_type: 5,
        },
        reset: ResetInfo { port: 0xCF9, value: 6 },
        serial_ports: vec![SerialPortInfo { port: 0x3F8, irq: 4 }],
        keyboard_controller: true,
        vga: false,
        hpet: Some(HpetInfo {
            base: 0xFED0_0000,
            event_timer_block_id: 0x8086_A201,
            minimum_tick: 100,
        }),
        firmware_configuration: Some(0x510),
        devices: Vec::new(),
    }
}

/// Guest memory with the tables in it.
struct Memory(BTreeMap<u64, u8>);

impl Memory {
    fn new(tables: &FirmwareTables) -> Self {
        let mut bytes = BTreeMap::new();
        for (address, region) in &tables.regions {
            for (offset, byte) in region.iter().enumerate() {
                let old = bytes.insert(address + offset as u64, *byte);
                assert_eq!(old, None, "tables overlap");
            }
        }
        Self(bytes)
    }

    fn bytes(&self, address: u64, length: u64) -> Vec<u8> {
        (address..address + length).map(|address| self.0[&address]).collect()
    }

    fn number(&self, address: u64, length: u64) -> u64 {
        self.bytes(address, length)
            .iter()
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// Finds `signature` on a 16-byte boundary, as guests do.
    fn search(&self, signature: &[u8], base: u64) -> u64 {
        (base..0x10_0000)
            .step_by(16)
            .find(|address| {
                signature.iter().zip(*address..).all(|(byte, at)| self.0.get(&at) == Some(byte))
            })
            .unwrap()
    }

    /// A whole table, its checksum verified.
    fn table(&self, address: u64, signature: &[u8; 4]) -> Vec<u8> {
        let table = self.bytes(address, self.number(address + 4, 4));
        assert_eq!(&table[..4], signature);
        assert_eq!(checksum(&table), 0, "{}", String::from_utf8_lossy(signature));
        table
    }
}

fn word(table: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(table[offset..offset + 2].try_into().unwrap())
}

fn dword(table: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(table[offset..offset + 4].try_into().unwrap())
}

fn qword(table: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(table[offset..offset + 8].try_into().unwrap())
}

fn built(board: &BoardInfo) -> Memory {
    Memory::new(&build(board, TABLES_BASE, TABLES_END).unwrap())
}

/// Tables listed by the XSDT, each by signature.
fn listed(memory: &Memory) -> Vec<([u8; 4], u64)> {
    let rsdp = memory.search(b"RSD PTR ", 0xE_0000);
    assert_eq!(checksum(&memory.bytes(rsdp, 20)), 0);
    assert_eq!(checksum(&memory.bytes(rsdp, 36)), 0);
    assert_eq!(memory.number(rsdp + 15, 1), 2, "revision");
    let rsdt = memory.table(memory.number(rsdp + 16, 4), b"RSDT");
    let xsdt = memory.table(memory.number(rsdp + 24, 8), b"XSDT");
    let wide: Vec<u64> = xsdt[36..].chunks(8).map(|entry| qword(entry, 0)).collect();
    let narrow: Vec<u64> = rsdt[36..].chunks(4).map(|entry| dword(entry, 0).into()).collect();
    assert_eq!(wide, narrow);
    wide.iter().map(|&at| (memory.bytes(at, 4).try_into().unwrap(), at)).collect()
}

fn find(memory: &Memory, signature: &[u8; 4]) -> Vec<u8> {
    let (_, address) = *listed(memory).iter().find(|(found, _)| found == signature).unwrap();
    memory.table(address, signature)
}

#[test]
fn roots_list_the_tables() {
    let memory = built(&board(1));
    let signatures: Vec<_> = listed(&memory).iter().map(|(signature, _)| *signature).collect();
    assert_eq!(signatures, [*b"FACP", *b"APIC", *b"HPET"]);
    let memory = built(&BoardInfo { hpet: None, ..board(1) });
    assert_eq!(listed(&memory).len(), 2);
}

/// How firmware obeys the command to sum up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Summing {
    /// As SeaBIOS: the sum is taken from the byte.
    Subtracts,
    /// As OVMF: the byte is replaced.
    Replaces,
}

/// Guest memory as firmware leaves it after the table loader's commands.
fn loaded(board: &BoardInfo, summing: Summing) -> Memory {
    const TABLES: u64 = 0x7FF_0000;
    const RSDP: u64 = 0xF_5000;
    let files = loader::loader_files(board).unwrap();
    let mut memory = BTreeMap::new();
    let place = |name: &[u8]| match name.split(|&byte| byte == 0).next().unwrap() {
        b"etc/acpi/rsdp" => RSDP,
        b"etc/acpi/tables" => TABLES,
        other => panic!("{}", String::from_utf8_lossy(other)),
    };
    memory.extend((RSDP..).zip(files.rsdp));
    memory.extend((TABLES..).zip(files.tables));
    let mut memory = Memory(memory);
    for command in files.commands.chunks(128) {
        let file = place(&command[4..60]);
        match dword(command, 0) {
            1 => assert_eq!(file % u64::from(dword(command, 60)), 0),
            2 => {
                let at = file + u64::from(dword(command, 116));
                let size = u64::from(command[120]);
                let value = memory.number(at, size) + place(&command[60..116]);
                memory.0.extend((at..at + size).zip(value.to_le_bytes()));
            }
            3 => {
                let [at, start, length] = [60, 64, 68].map(|at| u64::from(dword(command, at)));
                let missing = checksum(&memory.bytes(file + start, length));
                let byte = memory.0.get_mut(&(file + at)).unwrap();
                *byte = match summing {
                    Summing::Subtracts => byte.wrapping_add(missing),
                    Summing::Replaces => missing,
                };
            }
            other => panic!("command {other}"),
        }
    }
    memory
}

#[test]
fn firmware_places_the_same_tables() {
    for summing in [Summing::Subtracts, Summing::Replaces] {
        let memory = loaded(&board(2), summing);
        let built = built(&board(2));
        let signatures = |memory| listed(memory).into_iter().map(|(name, _)| name);
        assert!(signatures(&memory).eq(signatures(&built)));
        for name in [b"APIC", b"HPET"] {
            assert_eq!(find(&memory, name), find(&built, name));
        }
        let fadt = find(&memory, b"FACP");
        assert_eq!(u64::from(dword(&fadt, 40)), qword(&fadt, 140));
        memory.table(qword(&fadt, 140), b"DSDT");
        assert_eq!(memory.bytes(dword(&fadt, 36).into(), 4), b"FACS");
    }
}

#[test]
fn fadt_describes_the_fixed_hardware() {
    let memory = built(&board(1));
    let fadt = find(&memory, b"FACP");
    assert_eq!(fadt.len(), 276);
    assert_eq!(word(&fadt, 46), 9, "SCI");
    assert_eq!(dword(&fadt, 48), 0, "SMI command port");
    assert_eq!(dword(&fadt, 56), 0x600);
    assert_eq!(dword(&fadt, 64), 0x604);
    assert_eq!(dword(&fadt, 76), 0x608);
    assert_eq!(dword(&fadt, 80), 0x620);
    assert_eq!(fadt[88..94], [4, 2, 0, 4, 16, 0]);
    assert_eq!(word(&fadt, 109), 0b111, "boot architecture flags");
    let flags = dword(&fadt, 112);
    assert_eq!(flags & 1 << 10, 1 << 10, "reset register supported");
    assert_eq!(flags & 1 << 8, 1 << 8, "32-bit timer");
    assert_eq!(flags & 1 << 4, 0, "fixed power button");
    assert_eq!(flags & 1 << 6, 0, "the RTC's alarm is a fixed event");
    assert_eq!(flags & 1 << 20, 0, "not hardware-reduced");
    assert_eq!(fadt[116..120], [1, 8, 0, 1]);
    assert_eq!(qword(&fadt, 120), 0xCF9);
    assert_eq!(fadt[128], 6);
    for (offset, port, bits) in
        [(148, 0x600, 32), (172, 0x604, 16), (208, 0x608, 32), (220, 0x620, 128)]
    {
        assert_eq!(fadt[offset..offset + 2], [1, bits], "{offset}");
        assert_eq!(qword(&fadt, offset + 4), port, "{offset}");
    }
    let facs = u64::from(dword(&fadt, 36));
    assert_eq!(facs % 64, 0);
    assert_eq!(memory.bytes(facs, 4), b"FACS");
    assert_eq!(memory.number(facs + 4, 4), 64);
    assert_eq!(u64::from(dword(&fadt, 40)), qword(&fadt, 140));
    memory.table(qword(&fadt, 140), b"DSDT");
}

#[test]
fn fadt_of_a_piix4() {
    let board = BoardInfo { power: PowerInfo::piix4(0xB000, 9), ..board(1) };
    let fadt = find(&built(&board), b"FACP");
    assert_eq!(dword(&fadt, 48), 0xB2);
    assert_eq!(fadt[52..54], [0xF1, 0xF0]);
    assert_eq!([dword(&fadt, 56), dword(&fadt, 64)], [0xB000, 0xB004]);
    assert_eq!([dword(&fadt, 76), dword(&fadt, 80)], [0xB008, 0xB00C]);
    assert_eq!(dword(&fadt, 112) & 1 << 8, 0, "24-bit timer");
    // Name (_S5, Package () {Zero, Zero, Zero, Zero})
    assert!(contains(&dsdt::build(&board), b"\x08_S5_\x12\x06\x04\0\0\0\0"));
    // Name (_S3, Package () {One, Zero, Zero, Zero})
    assert!(contains(&dsdt::build(&board), b"\x08_S3_\x12\x06\x04\x01\0\0\0"));
}

/// The structures of a MADT.
fn structures(madt: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = &madt[44..];
    let mut structures = Vec::new();
    while let [_, length, ..] = *rest {
        let (structure, next) = rest.split_at(length.into());
        structures.push(structure.to_vec());
        rest = next;
    }
    structures
}

#[test]
fn madt_lists_processors_and_wiring() {
    let madt = find(&built(&board(2)), b"APIC");
    assert_eq!(dword(&madt, 36), 0xFEE0_0000);
    assert_eq!(dword(&madt, 40), 1, "8259As present");
    assert_eq!(
        structures(&madt),
        [
            vec![0, 8, 0, 0, 1, 0, 0, 0],
            vec![0, 8, 1, 1, 1, 0, 0, 0],
            vec![1, 12, 0, 0, 0, 0, 0xC0, 0xFE, 0, 0, 0, 0],
            vec![2, 10, 0, 0, 2, 0, 0, 0, 0, 0],
            vec![2, 10, 0, 9, 9, 0, 0, 0, 0x0D, 0],
            vec![4, 6, 0xFF, 0, 0, 1],
        ]
    );
}

#[test]
fn wide_ids_are_x2apics() {
    let board = BoardInfo { apic_ids: vec![0, 254, 255, 0x1_0000], ..board(1) };
    let madt = find(&built(&board), b"APIC");
    let structures = structures(&madt);
    let kinds: Vec<u8> = structures.iter().map(|structure| structure[0]).collect();
    assert_eq!(kinds, [0, 0, 9, 9, 1, 2, 2, 4, 10]);
    assert_eq!(structures[1][2..4], [1, 254]);
    assert_eq!(dword(&structures[3], 4), 0x1_0000);
    assert_eq!(dword(&structures[3], 8), 1);
    assert_eq!(dword(&structures[3], 12), 3, "UID");
}

#[test]
fn hpet_has_its_address() {
    let hpet = find(&built(&board(1)), b"HPET");
    assert_eq!(hpet.len(), 56);
    assert_eq!(dword(&hpet, 36), 0x8086_A201);
    assert_eq!(hpet[40..44], [0, 64, 0, 0]);
    assert_eq!(qword(&hpet, 44), 0xFED0_0000);
    assert_eq!(word(&hpet, 53), 100);
}

/// Whether `needle` is somewhere in `haystack`.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn dsdt_has_power_off_and_devices() {
    let dsdt = dsdt::build(&board(2));
    assert_eq!(checksum(&dsdt), 0);
    // Name (_S5, Package () {5, 0, 0, 0})
    assert!(contains(&dsdt, b"\x08_S5_\x12\x07\x04\x0A\x05\x00\x00\x00"));
    for name in [&b"C000"[..], b"C001", b"COM1", b"KBD_", b"MOU_", b"RTC_", b"FWCF", b"HPET"] {
        assert!(contains(&dsdt, name), "{}", String::from_utf8_lossy(name));
    }
    assert!(!contains(&dsdt, b"C002"));
    // COM1: IO (Decode16, 0x3F8, 0x3F8, 1, 8), IRQNoFlags () {4}
    assert!(contains(&dsdt, b"\x47\x01\xF8\x03\xF8\x03\x01\x08\x22\x10\x00\x79\x00"));
    // EISAID ("PNP0501")
    assert!(contains(&dsdt, b"\x08_HID\x0C\x41\xD0\x05\x01"));

    let bare = BoardInfo {
        keyboard_controller: false,
        hpet: None,
        firmware_configuration: None,
        serial_ports: Vec::new(),
        // Name (TEST, One)
        devices: b"\x08TEST\x01".to_vec(),
        ..board(1)
    };
    let dsdt = dsdt::build(&bare);
    for name in [&b"COM1"[..], b"KBD_", b"MOU_", b"FWCF", b"HPET"] {
        assert!(!contains(&dsdt, name), "{}", String::from_utf8_lossy(name));
    }
    assert!(dsdt.ends_with(b"\x08TEST\x01"));
}

#[test]
fn mp_table_has_every_entry() {
    let memory = built(&board(4));
    let pointer = memory.search(b"_MP_", 0xF_0000);
    assert_eq!(checksum(&memory.bytes(pointer, 16)), 0);
    assert_eq!(memory.number(pointer + 8, 2), 0x401);
    let address = memory.number(pointer + 4, 4);
    let table = memory.bytes(address, memory.number(address + 4, 2));
    assert_eq!(&table[..4], b"PCMP");
    assert_eq!(checksum(&table), 0);
    assert_eq!(dword(&table, 36), 0xFEE0_0000);

    let mut counts = [0; 5];
    let mut rest = &table[44..];
    while let Some(&kind) = rest.first() {
        counts[usize::from(kind)] += 1;
        rest = &rest[if kind == 0 { 20 } else { 8 }..];
    }
    assert_eq!(counts, [4, 1, 1, 15, 2]);
    assert_eq!(word(&table, 34), 4 + 1 + 1 + 15 + 2);
    // The bootstrap processor alone is marked so.
    assert_eq!([table[44 + 3], table[64 + 3]], [3, 1]);
    assert!(contains(&table, &[3, 0, 0, 0, 0, 0, 0, 2]), "IRQ 0 on pin 2");
    assert!(contains(&table, &[3, 0, 0x0D, 0, 0, 9, 0, 9]), "SCI");
}

#[test]
fn regions_that_do_not_do() {
    assert_eq!(
        build(&board(1), 0xF_0010, TABLES_END).unwrap_err(),
        AcpiError::Misaligned(0xF_0010)
    );
    let error = build(&board(1), TABLES_BASE, TABLES_BASE + 64).unwrap_err();
    assert!(matches!(error, AcpiError::TooLarge { available: 64, .. }));
    assert!(build(&board(1), 1 << 32, 1 << 33).is_err());
    assert!(build(&board(255), TABLES_BASE, TABLES_END).is_ok());
}
