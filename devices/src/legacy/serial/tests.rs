use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::bus::lock;
use crate::interrupt::ProbeIrq;

const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Port {
    irq: Arc<ProbeIrq>,
    sink: Sink,
    serial: Serial,
}

impl Port {
    fn new() -> Self {
        let irq = Arc::new(ProbeIrq::new());
        let sink = Sink::default();
        let serial = Serial::new(Box::new(irq.clone()), Box::new(sink.clone()));
        Self { irq, sink, serial }
    }

    fn inb(&mut self, offset: u64) -> u8 {
        let mut data = [0];
        self.serial.read(offset, &mut data);
        data[0]
    }

    fn outb(&mut self, offset: u64, value: u8) {
        self.serial.write(offset, &[value]);
    }

    fn sent(&self) -> Vec<u8> {
        lock(&self.sink.0).clone()
    }
}

#[test]
fn reset_values() {
    let mut port = Port::new();
    assert_eq!((0..8).map(|at| port.inb(at)).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 0x60, 0xb0, 0]);
    assert!(!port.irq.level());
}

#[test]
fn output_leaves_at_once() {
    let mut port = Port::new();
    for byte in *b"boot" {
        port.outb(0, byte);
        assert_eq!(port.inb(LSR), 0x60);
    }
    assert_eq!(port.sent(), b"boot");
}

#[test]
fn the_divisor_latch_hides_data_and_ier() {
    let mut port = Port::new();
    port.outb(LCR, 0x83);
    port.outb(0, 0x01);
    port.outb(1, 0x02);
    assert_eq!((port.inb(0), port.inb(1)), (1, 2));
    port.outb(LCR, 0x03);
    assert_eq!((port.inb(0), port.inb(1)), (0, 0));
    assert_eq!(port.sent(), b"");
}

#[test]
fn linux_detects_a_16550a() {
    let mut port = Port::new();
    // autoconfig: IER holds four bits, and only those.
    port.outb(IER, 0xff);
    assert_eq!(port.inb(IER), 0x0f);
    port.outb(IER, 0);
    assert_eq!(port.inb(IER), 0);
    // Loopback test: OUT2 and RTS come back as DCD and CTS.
    port.outb(MCR, 0x1a);
    assert_eq!(port.inb(MSR) & 0xf0, 0x90);
    port.outb(MCR, 0);
    // FIFO detection, and neither a 16650's EFR nor a 16750's 64-byte FIFO.
    port.outb(LCR, 0xbf);
    port.outb(FCR, 0x01);
    assert_eq!(port.inb(IIR) >> 6, 3);
    assert_ne!(port.inb(IIR), 0);
    port.outb(LCR, 0);
    port.outb(FCR, 0x21);
    assert_eq!(port.inb(IIR) >> 5, 6);
    port.outb(LCR, 0x80);
    port.outb(FCR, 0x21);
    assert_eq!(port.inb(IIR) >> 5, 6);
    port.outb(LCR, 0);
    port.outb(FCR, 0);
    assert_eq!(port.inb(IIR), 1);
    // Scratch register.
    port.outb(7, 0x5a);
    assert_eq!(port.inb(7), 0x5a);
}

#[test]
fn linux_finds_no_thre_bug() {
    let mut port = Port::new();
    for _ in 0..2 {
        port.outb(IER, 0x02);
        assert_eq!(port.inb(IIR), 0x02);
        port.outb(IER, 0);
    }
    // UART_BUG_TXEN: enabling raises the interrupt although nothing was sent.
    port.outb(IER, 0x02);
    assert!(port.irq.level());
}

#[test]
fn thre_is_cleared_by_iir_and_raised_by_every_byte() {
    let mut port = Port::new();
    port.outb(IER, 0x02);
    assert!(port.irq.level());
    assert_eq!(port.inb(IIR), 0x02);
    assert!(!port.irq.level());
    assert_eq!(port.inb(IIR), 0x01);
    // Writing IER again without a rising enable bit does not raise it.
    port.outb(IER, 0x03);
    assert!(!port.irq.level());
    // Every byte makes an edge, even if nobody looked at IIR in between.
    let edges = port.irq.rising_edges();
    for _ in 0..3 {
        port.outb(0, b'x');
        assert!(port.irq.level());
    }
    assert_eq!(port.irq.rising_edges(), edges + 3);
}

#[test]
fn input_without_fifos_is_one_byte() {
    let mut port = Port::new();
    port.outb(IER, 0x01);
    assert_eq!(port.serial.enqueue_input(b"ab"), 1);
    assert!(port.irq.level());
    assert_eq!(port.inb(IIR), 0x04);
    assert_eq!(port.inb(LSR), 0x61);
    assert_eq!(port.inb(0), b'a');
    assert!(!port.irq.level());
    assert_eq!(port.inb(LSR), 0x60);
    assert_eq!(port.serial.enqueue_input(b"b"), 1);
    assert_eq!(port.inb(0), b'b');
}

#[test]
fn trigger_levels_and_time_out() {
    for (fcr, level) in [(0x01, 1), (0x41, 4), (0x81, 8), (0xc1, 14)] {
        let mut port = Port::new();
        port.outb(FCR, fcr);
        port.outb(IER, 0x01);
        assert_eq!(port.serial.enqueue_input(&[1; 20]), 16);
        assert_eq!(port.serial.input_room(), 0);
        for left in (1..=16).rev() {
            let expected = if left >= level { 0xc4 } else { 0xcc };
            assert_eq!(port.inb(IIR), expected, "{left} bytes at level {level}");
            assert!(port.irq.level());
            port.inb(0);
        }
        assert_eq!(port.inb(IIR), 0xc1);
        assert!(!port.irq.level());
    }
}

#[test]
fn receiver_reset_and_fifo_toggle_drop_input() {
    let mut port = Port::new();
    port.outb(FCR, 0x01);
    port.serial.enqueue_input(b"abc");
    port.outb(FCR, 0x03);
    assert_eq!(port.inb(LSR) & 1, 0);
    port.serial.enqueue_input(b"abc");
    port.outb(FCR, 0x05);
    assert_eq!(port.inb(LSR) & 1, 1, "the transmitter reset leaves the receiver alone");
    port.outb(FCR, 0x00);
    assert_eq!(port.inb(LSR) & 1, 0);
    // Trigger bits without the enable bit are not programmed.
    port.outb(FCR, 0xc0);
    port.outb(IER, 1);
    port.serial.enqueue_input(b"a");
    assert_eq!(port.inb(IIR), 0x04);
}

#[test]
fn loopback_connects_transmitter_to_receiver() {
    let mut port = Port::new();
    port.outb(FCR, 0x01);
    port.outb(MCR, 0x10);
    assert_eq!(port.serial.enqueue_input(b"z"), 0);
    port.outb(0, b'q');
    assert_eq!(port.sent(), b"");
    assert_eq!(port.inb(LSR) & 1, 1);
    assert_eq!(port.inb(0), b'q');
    for (mcr, msr) in [(0x11, 0x20), (0x12, 0x10), (0x14, 0x40), (0x18, 0x80)] {
        port.outb(MCR, mcr);
        assert_eq!(port.inb(MSR) & 0xf0, msr);
    }
}

#[test]
fn modem_deltas_interrupt_and_clear() {
    let mut port = Port::new();
    port.outb(MCR, 0x10);
    assert_eq!(port.inb(MSR), 0x0b, "CTS, DSR and DCD went away");
    port.outb(IER, 0x08);
    port.outb(MCR, 0x14);
    assert!(!port.irq.level(), "RI rising is no event");
    port.outb(MCR, 0x10);
    assert!(port.irq.level());
    assert_eq!(port.inb(IIR), 0x00);
    assert_eq!(port.inb(MSR), 0x04);
    assert!(!port.irq.level());
    assert_eq!(port.inb(MSR), 0x00);
}

#[test]
fn overrun_keeps_a_fifo_and_replaces_a_register() {
    for (fcr, mcr) in [(0x01, 0x10), (0x00, 0x10)] {
        let mut port = Port::new();
        port.outb(FCR, fcr);
        port.outb(MCR, mcr);
        port.outb(IER, 0x04);
        for byte in 0..17 {
            port.outb(0, byte);
        }
        assert!(port.irq.level());
        assert_eq!(port.inb(IIR) & 0x0f, 0x06);
        assert_eq!(port.inb(LSR), 0x63);
        assert_eq!(port.inb(LSR), 0x61);
        assert!(!port.irq.level());
        assert_eq!(port.inb(0), if fcr == 1 { 0 } else { 16 });
    }
}

#[test]
fn a_break_shows_when_it_is_next() {
    let mut port = Port::new();
    port.outb(FCR, 0x01);
    port.outb(IER, 0x04);
    port.serial.enqueue_input(b"a");
    port.serial.send_break();
    assert!(!port.irq.level());
    assert_eq!(port.inb(LSR), 0xe1);
    port.inb(0);
    assert!(port.irq.level());
    assert_eq!(port.inb(LSR), 0xf9);
    assert!(!port.irq.level());
    assert_eq!(port.inb(LSR), 0x61);
    assert_eq!(port.inb(0), 0);
}

#[test]
fn sending_a_break_sends_no_bytes_and_loops_back() {
    let mut port = Port::new();
    port.outb(LCR, 0x43);
    port.outb(0, b'x');
    assert_eq!(port.sent(), b"");
    port.outb(LCR, 0x03);
    port.outb(MCR, 0x10);
    port.outb(LCR, 0x43);
    assert_eq!(port.inb(LSR), 0x79);
}

#[test]
fn interrupt_priority_is_the_datasheets() {
    let mut port = Port::new();
    port.outb(FCR, 0x01);
    port.outb(MCR, 0x10);
    port.outb(IER, 0x0f);
    for byte in 0..17 {
        port.outb(0, byte);
    }
    assert_eq!(port.inb(IIR) & 0x0f, 0x06);
    port.inb(LSR);
    assert_eq!(port.inb(IIR) & 0x0f, 0x04);
    while port.inb(LSR) & 1 != 0 {
        port.inb(0);
    }
    assert_eq!(port.inb(IIR) & 0x0f, 0x02);
    assert_eq!(port.inb(IIR) & 0x0f, 0x00);
    port.inb(MSR);
    assert_eq!(port.inb(IIR) & 0x0f, 0x01);
}

#[test]
fn room_is_announced_once() {
    let mut port = Port::new();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    port.serial.on_input_ready(Box::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    port.outb(FCR, 0x01);
    port.serial.enqueue_input(&[7; 16]);
    port.inb(0);
    port.inb(0);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    // Loopback has no room; leaving it has.
    port.outb(MCR, 0x10);
    port.outb(MCR, 0x00);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[test]
fn word_accesses_split() {
    let mut port = Port::new();
    port.serial.write(6, &[0, 0x77]);
    let mut data = [0; 4];
    port.serial.read(6, &mut data);
    assert_eq!(data, [0xb0, 0x77, 0xff, 0xff]);
}

#[test]
fn restore_drives_the_line() {
    let mut port = Port::new();
    port.outb(FCR, 0x41);
    port.outb(IER, 0x01);
    port.serial.enqueue_input(b"abc");
    let saved = serde_json::to_string(port.serial.state()).unwrap();
    let mut other = Port::new();
    other.serial.restore(serde_json::from_str(&saved).unwrap());
    assert!(other.irq.level());
    assert_eq!(other.serial.state(), port.serial.state());
    assert_eq!(other.inb(0), b'a');
}

proptest! {
    #[test]
    fn random_use_keeps_the_line_equal_to_iir(
        accesses in prop::collection::vec((0u64..10, any::<u8>(), 0u8..4), 0..200),
    ) {
        let mut port = Port::new();
        for (offset, value, kind) in accesses {
            match kind {
                0 => {
                    port.inb(offset);
                }
                1 => port.outb(offset, value),
                2 => {
                    let room = port.serial.input_room();
                    let accepted = port.serial.enqueue_input(&[value; 20]);
                    prop_assert_eq!(accepted, room);
                }
                _ => port.serial.send_break(),
            }
            let mut probe = port.serial.state().clone();
            prop_assert!(probe.input_room() <= 16);
            prop_assert_eq!(probe.read(IIR) & 1 == 0, port.irq.level());
        }
    }
}
