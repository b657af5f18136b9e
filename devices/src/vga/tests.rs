use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::bus::{BusDevice, lock};
use crate::clock::ManualClock;

fn device() -> VgaDevice {
    VgaDevice::new(Arc::new(ManualClock::new(0)))
}

fn indexed(device: &mut VgaDevice, port: u64, index: u8, value: u8) {
    device.write(port, &[index, value]);
}

/// The registers of text mode 3 that matter here.
fn set_text_mode(device: &mut VgaDevice) {
    device.write(0x3c2, &[0x67]);
    for (index, value) in [(1, 0x00), (2, 0x03), (3, 0x00), (4, 0x02)] {
        indexed(device, 0x3c4, index, value);
    }
    for (index, value) in
        [(1, 79), (7, 0x1f), (9, 0x4f), (0xa, 0x0d), (0xb, 0x0e), (0x12, 0x8f), (0x13, 40)]
    {
        indexed(device, 0x3d4, index, value);
    }
    for (index, value) in [(5, 0x10), (6, 0x0e), (8, 0xff)] {
        indexed(device, 0x3ce, index, value);
    }
    device.read(0x3da, &mut [0]);
    for index in 0..16 {
        device.write(0x3c0, &[index]);
        device.write(0x3c0, &[index]);
    }
    for (index, value) in [(0x10, 0x0c), (0x12, 0x0f), (0x13, 8)] {
        device.write(0x3c0, &[index]);
        device.write(0x3c0, &[value]);
    }
    device.write(0x3c0, &[0x20]);
    device.write(0x3c8, &[0]);
    for index in 0..16u8 {
        for bit in [2, 1, 0] {
            device.write(0x3c9, &[if index >> bit & 1 != 0 { 0x3f } else { 0 }]);
        }
    }
}

#[test]
fn text_is_read_back_as_lines() {
    let device = Arc::new(Mutex::new(device()));
    set_text_mode(&mut lock(&device));
    let mut window = VgaWindow::new(device.clone());
    for (index, byte) in b"GNU GRUB \xda\xc4".iter().enumerate() {
        window.write(0x1_8000 + 160 + 2 * index as u64, &[*byte, 0x07]);
    }
    indexed(&mut lock(&device), 0x3d4, 0xf, 82);
    let screen = lock(&device).vga().text().unwrap();
    assert_eq!((screen.lines.len(), screen.lines[1].as_str()), (25, "GNU GRUB ┌─"));
    assert_eq!(screen.cursor, Some((2, 1)));
    let mut cell = [0; 2];
    window.read(0x1_8000 + 160, &mut cell);
    assert_eq!(cell, [b'G', 7]);
    window.read(0, &mut cell);
    assert_eq!(cell, [0xff; 2], "0xA0000 is not mapped in text mode");
}

#[test]
fn text_is_drawn_with_the_font_in_plane_2() {
    let device = Arc::new(Mutex::new(device()));
    set_text_mode(&mut lock(&device));
    let mut window = VgaWindow::new(device.clone());
    window.write(0x1_8000, &[b'A', 0x4e]);
    // The font: plane 2, not odd/even, at 0xA0000.
    {
        let mut device = lock(&device);
        indexed(&mut device, 0x3c4, 2, 4);
        indexed(&mut device, 0x3c4, 4, 6);
        indexed(&mut device, 0x3ce, 5, 0);
        indexed(&mut device, 0x3ce, 6, 4);
    }
    window.write(u64::from(b'A') * 32 + 3, &[0x81]);
    set_text_mode(&mut lock(&device));
    indexed(&mut lock(&device), 0x3d4, 0xf, 9);
    let frame = lock(&device).vga().frame();
    assert_eq!((frame.width, frame.height), (720, 400));
    let pixel = |x: usize, y: usize| &frame.rgb[(y * 720 + x) * 3..][..3];
    assert_eq!(pixel(0, 3), [255, 255, 0]);
    assert_eq!(pixel(1, 3), [255, 0, 0]);
    assert_eq!(pixel(7, 3), [255, 255, 0]);
    assert_eq!(pixel(8, 3), [255, 0, 0]);
    let mut png = Vec::new();
    frame.write_png(&mut png).unwrap();
    assert_eq!(&png[1..4], b"PNG");
}

/// A text screen whose first rows are full of the digits 0 to 9, by rows, in a font where scan line
/// `n` of digit `d` has the bits of `d * 16 + n`.
fn digits() -> VgaDevice {
    let mut device = device();
    set_text_mode(&mut device);
    for row in 0..10_usize {
        for column in 0..80 {
            device.vga.memory[(row * 80 + column) * 4] = b'0' + row as u8;
            device.vga.memory[(row * 80 + column) * 4 + 1] = 0x07;
        }
        for line in 0..16 {
            let at = (usize::from(b'0') + row) * 32 + line;
            device.vga.memory[at * 4 + 2] = (row * 16 + line) as u8;
        }
    }
    // No cursor.
    indexed(&mut device, 0x3d4, 0xa, 0x20);
    device
}

/// The bits that scan line `y` shows, from dot `x` on.
fn bits(frame: &Frame, x: usize, y: usize) -> u8 {
    (0..8)
        .fold(0, |bits, dot| bits << 1 | u8::from(frame.rgb[(y * frame.width + x + dot) * 3] != 0))
}

#[test]
fn text_scrolls_smoothly() {
    let mut device = digits();
    let lines = |device: &VgaDevice, x| {
        let frame = device.vga().frame();
        [0, 1, 15, 16, 159, 160].map(|y| bits(&frame, x, y))
    };
    assert_eq!(lines(&device, 0), [0, 1, 15, 16, 159, 0]);
    // Preset row scan: the picture begins within the first row.
    indexed(&mut device, 0x3d4, 8, 5);
    assert_eq!(lines(&device, 0), [5, 6, 20, 21, 0, 0]);
    // Panning by three dots, which 9-dot characters count from 8: 0 is one dot.
    indexed(&mut device, 0x3d4, 8, 0);
    device.read(0x3da, &mut [0]);
    device.write(0x3c0, &[0x33]);
    device.write(0x3c0, &[2]);
    assert_eq!(lines(&device, 6), [0, 1, 15, 16, 159, 0]);
    // A split at line 32: below it is the screen's first row, from its first scan line.
    indexed(&mut device, 0x3d4, 8, 5);
    indexed(&mut device, 0x3d4, 7, 0x0f);
    indexed(&mut device, 0x3d4, 9, 0x0f);
    indexed(&mut device, 0x3d4, 0x18, 31);
    let frame = device.vga().frame();
    assert_eq!([31, 32, 33].map(|y| bits(&frame, 6, y)), [36, 0, 1]);
}

#[test]
fn the_cursor_and_characters_blink() {
    let mut device = digits();
    let line = |device: &VgaDevice, cursor, characters| {
        let frame = device.vga().frame_at(Blink { cursor, characters });
        [bits(&frame, 0, 16 + 14), bits(&frame, 9, 16 + 14)]
    };
    assert!(!device.vga().blinks());
    // Attribute bit 7, in the second row's second cell.
    device.vga.memory[81 * 4 + 1] = 0x87;
    assert!(device.vga().blinks());
    assert_eq!(line(&device, true, true), [30, 30]);
    assert_eq!(line(&device, true, false), [30, 0]);
    let cells = device.vga().text_cells().unwrap().cells;
    assert_eq!(cells[80..82], [('1', 0x07), ('1', 0x07 | BLINKING)]);
    // Without blinking, the bit is a bright background.
    device.read(0x3da, &mut [0]);
    device.write(0x3c0, &[0x30]);
    device.write(0x3c0, &[0x04]);
    assert!(!device.vga().blinks());
    assert_eq!(device.vga().text_cells().unwrap().cells[81], ('1', 0x87));
    // The cursor, on lines 13 and 14.
    indexed(&mut device, 0x3d4, 0xa, 0x0d);
    indexed(&mut device, 0x3d4, 0xf, 80);
    assert!(device.vga().blinks());
    assert_eq!(line(&device, true, true)[0], 0xFF);
    assert_eq!(line(&device, false, true)[0], 30);
}

#[test]
fn write_modes_and_latches() {
    let device = Arc::new(Mutex::new(device()));
    let mut window = VgaWindow::new(device.clone());
    let set = |port, index, value| indexed(&mut lock(&device), port, index, value);
    lock(&device).write(0x3c2, &[0x63]);
    for (port, index, value) in
        [(0x3c4, 2, 0x0f), (0x3c4, 4, 0x06), (0x3ce, 6, 0x05), (0x3ce, 8, 0xff), (0x3ce, 5, 2)]
    {
        set(port, index, value);
    }
    window.write(0x10, &[0x05]);
    let mut byte = [0];
    for (plane, expected) in [(0, 0xff), (1, 0), (2, 0xff), (3, 0)] {
        set(0x3ce, 4, plane);
        window.read(0x10, &mut byte);
        assert_eq!(byte[0], expected, "plane {plane}");
    }
    // Write mode 1 copies the latches.
    set(0x3ce, 5, 1);
    window.write(0x20, &[0]);
    set(0x3ce, 4, 2);
    window.read(0x20, &mut byte);
    assert_eq!(byte, [0xff]);
    // Write mode 0 with XOR, rotation and a bit mask.
    set(0x3ce, 5, 0);
    set(0x3ce, 3, 0x19);
    set(0x3ce, 8, 0xf0);
    window.write(0x20, &[0x21]);
    window.read(0x20, &mut byte);
    assert_eq!(byte, [0x6f], "0x21 rotated is 0x90; its high half XORed");
    // Read mode 1 compares.
    set(0x3ce, 5, 8);
    set(0x3ce, 2, 5);
    set(0x3ce, 7, 0xf);
    window.read(0x10, &mut byte);
    assert_eq!(byte, [0xff]);
}

#[test]
fn vbe_modes_are_linear() {
    let mut device = device();
    let mut set = |index: u16, value: u16| {
        device.write(0x1ce, &index.to_le_bytes());
        device.write(0x1cf, &value.to_le_bytes());
    };
    for (index, value) in [(1, 800), (2, 600), (3, 32), (4, 0x41)] {
        set(index, value);
    }
    device.vga.write_linear(4 * 800 * 10 + 4 * 5, &[1, 2, 3, 0]);
    let frame = device.vga().frame();
    assert_eq!((frame.width, frame.height), (800, 600));
    assert_eq!(frame.rgb[(10 * 800 + 5) * 3..][..3], [3, 2, 1]);
    let mut id = [0; 2];
    device.write(0x1ce, &[0, 0]);
    device.read(0x1cf, &mut id);
    assert_eq!(u16::from_le_bytes(id), 0xb0c5);
}

/// The registers of mode 13h that matter here: 320 × 200, 256 colors, chain-4.
fn set_mode_13h(device: &mut VgaDevice) {
    device.set_text_mode(&[]);
    device.write(0x3c2, &[0x63]);
    for (index, value) in [(1, 0x01), (2, 0x0f), (4, 0x0e)] {
        indexed(device, 0x3c4, index, value);
    }
    for (index, value) in [(9, 0x41), (0x14, 0x40)] {
        indexed(device, 0x3d4, index, value);
    }
    for (index, value) in [(5, 0x40), (6, 0x05)] {
        indexed(device, 0x3ce, index, value);
    }
    device.read(0x3da, &mut [0]);
    for (index, value) in [(0x10, 0x41), (0x13, 0x00)] {
        device.write(0x3c0, &[index]);
        device.write(0x3c0, &[value]);
    }
    device.write(0x3c0, &[0x20]);
}

#[test]
fn mode_13h_splits_and_pans() {
    let device = Arc::new(Mutex::new(device()));
    set_mode_13h(&mut lock(&device));
    let mut window = VgaWindow::new(device.clone());
    window.write(0, &[1; 8]);
    window.write(320 * 100 + 7, &[4]);
    let blue = [0, 0, 0xaa];
    let pixel = |x: usize, y: usize| -> [u8; 3] {
        let frame = lock(&device).vga().frame();
        assert_eq!((frame.width, frame.height), (320, 200));
        frame.rgb[(y * 320 + x) * 3..][..3].try_into().unwrap()
    };
    assert_eq!([pixel(0, 0), pixel(7, 100)], [blue, [0xaa, 0, 0]]);
    // Start at line 100; from scan line 200 (line 100 of the picture) on, address 0.
    {
        let mut device = lock(&device);
        let start = 320 * 100 / 4u16;
        indexed(&mut device, 0x3d4, 0x0c, (start >> 8) as u8);
        indexed(&mut device, 0x3d4, 0x0d, start as u8);
        indexed(&mut device, 0x3d4, 0x18, 199);
        indexed(&mut device, 0x3d4, 0x11, 0);
        indexed(&mut device, 0x3d4, 0x07, 0x0f);
        indexed(&mut device, 0x3d4, 0x09, 0x01);
    }
    assert_eq!([pixel(7, 0), pixel(0, 100)], [[0xaa, 0, 0], blue]);
    // Two pixels to the left, but not below the split.
    {
        let mut device = lock(&device);
        device.read(0x3da, &mut [0]);
        for (index, value) in [(0x10, 0x61), (0x13, 0x04)] {
            device.write(0x3c0, &[index]);
            device.write(0x3c0, &[value]);
        }
        device.write(0x3c0, &[0x20]);
    }
    assert_eq!([pixel(5, 0), pixel(7, 100)], [[0xaa, 0, 0], blue]);
    assert_ne!(pixel(8, 100), blue);
}

#[test]
fn protected_crtc_registers_hold() {
    let mut device = device();
    indexed(&mut device, 0x3d4, 1, 79);
    indexed(&mut device, 0x3d4, 0x11, 0x80);
    indexed(&mut device, 0x3d4, 1, 10);
    indexed(&mut device, 0x3d4, 7, 0xff);
    assert_eq!((device.vga.registers.crtc[1], device.vga.registers.crtc[7]), (79, 0x10));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_accesses(accesses in prop::collection::vec(
        (0u8..4, prop_oneof![0x3b0u64..0x3e0, 0x1ceu64..0x1d1, 0u64..0x2_0000], prop::sample::select(vec![1usize, 2, 4, 8]), any::<u64>()),
        0..300,
    )) {
        let device = Arc::new(Mutex::new(device()));
        let mut window = VgaWindow::new(device.clone());
        for (kind, offset, len, value) in accesses {
            let mut data = value.to_le_bytes();
            match kind {
                0 => lock(&device).write(offset, &data[..len.min(4)]),
                1 => lock(&device).read(offset, &mut data[..len.min(4)]),
                2 => window.write(offset, &data[..len]),
                _ => window.read(offset, &mut data[..len]),
            }
        }
        let device = lock(&device);
        let frame = device.vga().frame();
        prop_assert_eq!(frame.rgb.len(), frame.width * frame.height * 3);
        device.vga().text();
    }
}
