use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::bus::lock;
use crate::interrupt::ProbeIrq;
use crate::legacy::reset::ResetKind;

struct Board {
    irq_1: Arc<ProbeIrq>,
    irq_12: Arc<ProbeIrq>,
    a20: Arc<Mutex<Vec<bool>>>,
    resets: Arc<Mutex<Vec<ResetKind>>>,
    i8042: I8042Device,
}

impl Board {
    fn new() -> Self {
        let (irq_1, irq_12) = (Arc::new(ProbeIrq::new()), Arc::new(ProbeIrq::new()));
        let (a20, resets) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (a20_log, reset_log) = (a20.clone(), resets.clone());
        let i8042 = I8042Device::new(Outputs {
            irq_1: Box::new(irq_1.clone()),
            irq_12: Box::new(irq_12.clone()),
            a20: Box::new(move |open| lock(&a20_log).push(open)),
            reset: Box::new(move |kind| lock(&reset_log).push(kind)),
        });
        Self { irq_1, irq_12, a20, resets, i8042 }
    }

    /// With translation off, so that the devices' own bytes show.
    fn raw() -> Self {
        let mut board = Self::new();
        board.command_with(0x60, 0x03);
        board
    }

    fn inb(&mut self, port: u64) -> u8 {
        let mut data = [0];
        self.i8042.read(port, &mut data);
        data[0]
    }

    fn outb(&mut self, port: u64, value: u8) {
        self.i8042.write(port, &[value]);
    }

    fn command_with(&mut self, command: u8, parameter: u8) {
        self.outb(0x64, command);
        self.outb(0x60, parameter);
    }

    /// Everything that waits, read the way a polling driver reads.
    fn drain(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.inb(0x64) & 1 != 0 {
            bytes.push(self.inb(0x60));
        }
        bytes
    }

    fn ask(&mut self, command: u8) -> Vec<u8> {
        self.outb(0x64, command);
        self.drain()
    }

    fn ask_keyboard(&mut self, byte: u8) -> Vec<u8> {
        self.outb(0x60, byte);
        self.drain()
    }

    fn ask_mouse(&mut self, byte: u8) -> Vec<u8> {
        self.command_with(0xd4, byte);
        assert!(self.inb(0x64) & 0x21 == 0x21, "marked as the mouse's");
        self.drain()
    }
}

#[test]
fn detection() {
    let mut board = Board::new();
    assert_eq!(board.inb(0x64), 0x14);
    assert_eq!(board.ask(0xaa), [0x55]);
    assert_eq!(board.ask(0xab), [0x00]);
    assert_eq!(board.ask(0xa9), [0x00]);
    assert_eq!(board.ask(0xa4), [0xf1]);
    assert_eq!(board.ask(0x20), [0x65]);
    assert_eq!(board.inb(0x64) & 0x08, 0x08, "the last write was a command");
    assert_eq!(board.inb(0x60), 0x65, "an empty buffer reads as it was");
}

#[test]
fn configuration_byte_and_ram() {
    let mut board = Board::new();
    board.command_with(0x60, 0x47);
    assert_eq!(board.ask(0x20), [0x47]);
    board.command_with(0x7f, 0x99);
    assert_eq!(board.ask(0x3f), [0x99]);
    for (command, config) in [(0xad, 0x57), (0xa7, 0x77), (0xae, 0x67), (0xa8, 0x47)] {
        board.outb(0x64, command);
        assert_eq!(board.ask(0x20), [config]);
    }
    board.command_with(0x60, 0x43);
    assert_eq!(board.inb(0x64) & 0x04, 0, "the system flag is the configuration's");
}

#[test]
fn linux_finds_the_auxiliary_port() {
    let mut board = Board::new();
    // The loop command's byte comes back as the mouse's.
    board.command_with(0xd3, 0x5a);
    assert_eq!(board.inb(0x64) & 0x21, 0x21);
    assert_eq!(board.drain(), [0x5a]);
    board.outb(0x64, 0xa7);
    assert_eq!(board.ask(0x20)[0] & 0x20, 0x20);
    board.outb(0x64, 0xa8);
    assert_eq!(board.ask(0x20)[0] & 0x20, 0);
    // And its interrupt arrives.
    board.command_with(0x60, 0x47);
    board.command_with(0xd3, 0xa5);
    assert!(board.irq_12.level() && !board.irq_1.level());
    assert_eq!(board.drain(), [0xa5]);
    assert!(!board.irq_12.level());
    board.command_with(0xd2, 0x11);
    assert!(board.irq_1.level());
    assert_eq!(board.inb(0x64) & 0x21, 0x01);
}

#[test]
fn keyboard_commands() {
    let mut board = Board::raw();
    assert_eq!(board.ask_keyboard(0xff), [0xfa, 0xaa]);
    assert_eq!(board.ask_keyboard(0xf2), [0xfa, 0xab, 0x83]);
    assert_eq!(board.ask_keyboard(0xee), [0xee]);
    assert_eq!(board.ask_keyboard(0xed), [0xfa]);
    assert_eq!(board.ask_keyboard(0x05), [0xfa]);
    assert_eq!(board.i8042.state().leds(), 5);
    assert_eq!(board.ask_keyboard(0xf3), [0xfa]);
    assert_eq!(board.ask_keyboard(0x20), [0xfa]);
    for command in [0xf4, 0xf5, 0xf6] {
        assert_eq!(board.ask_keyboard(command), [0xfa]);
    }
    assert_eq!(board.ask_keyboard(0x12), [0xfe], "not a command");
    assert_eq!(board.ask_keyboard(0xfe), [0xfe], "the last byte once more");
    // A command where a parameter is due is a command.
    assert_eq!(board.ask_keyboard(0xed), [0xfa]);
    assert_eq!(board.ask_keyboard(0xf2), [0xfa, 0xab, 0x83]);
    assert_eq!(board.ask_keyboard(0x02), [0xfe]);
}

#[test]
fn identification_is_translated_like_everything() {
    let mut board = Board::new();
    assert_eq!(board.ask_keyboard(0xf2), [0xfa, 0xab, 0x41]);
}

#[test]
fn scan_code_sets() {
    let mut board = Board::raw();
    let ask_set = |board: &mut Board, set| {
        assert_eq!(board.ask_keyboard(0xf0), [0xfa]);
        board.ask_keyboard(set)
    };
    assert_eq!(ask_set(&mut board, 0), [0xfa, 2]);
    board.i8042.key_scancodes(&[0xf0, 0x1c]);
    assert_eq!(board.drain(), [0xf0, 0x1c]);
    assert_eq!(ask_set(&mut board, 1), [0xfa]);
    assert_eq!(ask_set(&mut board, 0), [0xfa, 1]);
    board.i8042.key_scancodes(&[0xf0, 0x1c]);
    assert_eq!(board.drain(), [0x9e]);
    assert_eq!(ask_set(&mut board, 3), [0xfe]);
    assert_eq!(board.ask_keyboard(0xf6), [0xfa]);
    assert_eq!(ask_set(&mut board, 0), [0xfa, 2]);
}

#[test]
fn keys_arrive_translated_with_an_edge_for_each_byte() {
    let mut board = Board::new();
    assert!(board.i8042.key_scancodes(&[0xe0, 0x75, 0xe0, 0xf0, 0x75]));
    assert!(board.irq_1.level());
    assert_eq!(board.drain(), [0xe0, 0x48, 0xe0, 0xc8]);
    assert!(!board.irq_1.level());
    assert_eq!(board.irq_1.rising_edges(), 4);
}

#[test]
fn a_full_keyboard_takes_no_half_keys() {
    let mut board = Board::new();
    let mut taken = 0;
    while board.i8042.key_scancodes(&[0xf0, 0x1c]) {
        taken += 1;
        assert!(taken < 100);
    }
    assert_eq!(board.drain(), vec![0x9e; taken]);
}

#[test]
fn disabled_ports_hold_their_bytes() {
    let mut board = Board::new();
    board.outb(0x64, 0xad);
    board.i8042.key_scancodes(&[0x1c]);
    assert!(board.drain().is_empty());
    board.outb(0x64, 0xae);
    assert_eq!(board.drain(), [0x1e]);
    // Talking to the keyboard turns its port on.
    board.outb(0x64, 0xad);
    assert_eq!(board.ask_keyboard(0xf4), [0xfa]);
    // Scanning off: keys are lost.
    assert_eq!(board.ask_keyboard(0xf5), [0xfa]);
    assert!(!board.i8042.key_scancodes(&[0x1c]));
    assert!(board.drain().is_empty());
}

#[test]
fn answers_overtake_keys() {
    let mut board = Board::raw();
    board.i8042.key_scancodes(&[0x1c]);
    board.i8042.key_scancodes(&[0x1b]);
    board.outb(0x64, 0xab);
    // The first key was in the output buffer already.
    assert_eq!(board.drain(), [0x1c, 0x00, 0x1b]);
}

#[test]
fn mouse_commands() {
    let mut board = Board::raw();
    assert_eq!(board.ask_mouse(0xff), [0xfa, 0xaa, 0x00]);
    assert_eq!(board.ask_mouse(0xf2), [0xfa, 0x00]);
    assert_eq!(board.ask_mouse(0xe9), [0xfa, 0x00, 0x02, 100]);
    for (command, parameter) in [(0xe8, 3), (0xf3, 40)] {
        assert_eq!(board.ask_mouse(command), [0xfa]);
        assert_eq!(board.ask_mouse(parameter), [0xfa]);
    }
    for command in [0xe7, 0xf4, 0xf0] {
        assert_eq!(board.ask_mouse(command), [0xfa]);
    }
    assert_eq!(board.ask_mouse(0xe9), [0xfa, 0x70, 3, 40]);
    assert_eq!(board.ask_mouse(0xe8), [0xfa]);
    assert_eq!(board.ask_mouse(9), [0xfe]);
    assert_eq!(board.ask_mouse(0xf6), [0xfa]);
    assert_eq!(board.ask_mouse(0xe9), [0xfa, 0x00, 0x02, 100]);
    assert_eq!(board.ask_mouse(0xeb), [0xfa, 0x08, 0, 0]);
    assert_eq!(board.ask_mouse(0x11), [0xfe]);
    assert_eq!(board.ask_mouse(0xfe), [0xfe]);
    // Wrap mode echoes all but the commands that leave it.
    assert_eq!(board.ask_mouse(0xee), [0xfa]);
    assert_eq!(board.ask_mouse(0xf2), [0xf2]);
    assert_eq!(board.ask_mouse(0xec), [0xfa]);
    assert_eq!(board.ask_mouse(0xf2), [0xfa, 0x00]);
}

#[test]
fn mouse_reports_and_wheel() {
    let mut board = Board::raw();
    let event = MouseEvent { dx: 5, dy: -3, wheel: -1, buttons: 1 };
    assert!(!board.i8042.mouse_event(event), "not enabled");
    board.ask_mouse(0xf4);
    assert!(board.i8042.mouse_event(event));
    assert!(board.irq_12.level());
    assert_eq!(board.drain(), [0x29, 5, 0xfd]);
    assert!(board.i8042.mouse_event(MouseEvent { dx: 300, dy: -300, wheel: 0, buttons: 2 }));
    assert_eq!(board.drain(), [0xea, 0xff, 0x01]);
    for rate in [200, 100, 80] {
        board.ask_mouse(0xf3);
        board.ask_mouse(rate);
    }
    assert_eq!(board.ask_mouse(0xf2), [0xfa, 3]);
    assert!(board.i8042.mouse_event(event));
    assert_eq!(board.drain(), [0x29, 5, 0xfd, 0xff]);
    assert_eq!(board.ask_mouse(0xeb), [0xfa, 0x09, 0, 0, 0]);
}

#[test]
fn a_mouse_that_nobody_reads_counts_on() {
    let mut board = Board::raw();
    board.ask_mouse(0xf4);
    for _ in 0..20 {
        board.i8042.mouse_event(MouseEvent { dx: 2, dy: -1, wheel: 0, buttons: 1 });
    }
    board.i8042.mouse_event(MouseEvent { dx: 2, dy: 0, wheel: 0, buttons: 0 });
    let reports = board.drain();
    let reports = reports.as_chunks::<3>().0;
    let sum = |at: usize| reports.iter().map(|report| i32::from(report[at] as i8)).sum::<i32>();
    assert_eq!((sum(1), sum(2)), (42, -20));
    assert_eq!(reports.first().map(|report| report[0] & 1), Some(1));
    assert_eq!(reports.last().map(|report| report[0] & 1), Some(0), "the button was let go");
}

#[test]
fn a20_has_two_gates() {
    let mut board = Board::new();
    assert_eq!(board.ask(0xd0), [0xc3]);
    board.command_with(0xd1, 0xdd);
    assert_eq!(board.ask(0xd0), [0xc1]);
    board.outb(0x92, 0x02);
    board.outb(0x92, 0x02);
    assert_eq!(board.inb(0x92), 0x02);
    board.command_with(0xd1, 0xdf);
    board.outb(0x92, 0x00);
    board.outb(0x64, 0xdd);
    board.outb(0x64, 0xdf);
    assert_eq!(*lock(&board.a20), [true, false, true, false, true]);
    assert!(lock(&board.resets).is_empty());
}

#[test]
fn the_output_port_shows_the_buffer() {
    let mut board = Board::raw();
    board.i8042.key_scancodes(&[0x1c]);
    board.outb(0x64, 0xd0);
    assert_eq!(board.drain(), [0x1c, 0xd3]);
}

#[test]
fn resets() {
    let mut board = Board::new();
    board.outb(0x64, 0xff);
    board.outb(0x64, 0xf1);
    assert!(lock(&board.resets).is_empty());
    board.outb(0x64, 0xfe);
    board.command_with(0xd1, 0xde);
    board.outb(0x92, 0x01);
    board.outb(0x92, 0x01);
    assert_eq!(*lock(&board.resets), [ResetKind::Cpu; 3]);
}

#[test]
fn a_command_takes_back_a_parameter_request() {
    let mut board = Board::new();
    board.outb(0x64, 0xd1);
    board.outb(0x64, 0xaa);
    board.drain();
    assert_eq!(board.ask_keyboard(0xf4), [0xfa]);
    assert_eq!(*lock(&board.a20), [true]);
}

#[test]
fn restore_drives_everything() {
    let mut board = Board::new();
    board.command_with(0xd1, 0xdd);
    board.i8042.key_scancodes(&[0x1c]);
    let saved = serde_json::to_string(board.i8042.state()).unwrap();
    let mut other = Board::new();
    other.i8042.restore(serde_json::from_str(&saved).unwrap());
    assert!(other.irq_1.level());
    assert_eq!(*lock(&other.a20), [true, false]);
    assert_eq!(other.i8042.state(), board.i8042.state());
    assert_eq!(other.drain(), [0x1e]);
}

proptest! {
    #[test]
    fn random_use_keeps_lines_and_status_true(
        accesses in prop::collection::vec((0u8..6, any::<u8>()), 0..300),
    ) {
        let mut board = Board::new();
        for (kind, value) in accesses {
            match kind {
                0 => {
                    board.inb(0x60);
                }
                1 => board.outb(0x60, value),
                2 => board.outb(0x64, value),
                3 => board.outb(0x92, value),
                4 => {
                    board.i8042.key_scancodes(&[value]);
                }
                _ => {
                    let dx = i16::from(value) * 3 - 300;
                    let event = MouseEvent { dx, dy: -dx, wheel: value as i8, buttons: value };
                    board.i8042.mouse_event(event);
                }
            }
            let status = board.inb(0x64);
            prop_assert!(!(board.irq_1.level() && board.irq_12.level()));
            prop_assert!(!board.irq_1.level() || status & 0x21 == 0x01);
            prop_assert!(!board.irq_12.level() || status & 0x21 == 0x21);
            let told = lock(&board.a20).last().copied();
            prop_assert_eq!(told, Some(board.i8042.state().a20()));
        }
        // All that waits is finite.
        prop_assert!(board.drain().len() < 100);
    }
}
