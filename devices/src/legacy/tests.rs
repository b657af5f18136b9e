//! All of a PC's fixed-port devices on one bus.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::bus::{Bus, lock};
use crate::clock::{Clock, ManualClock, ProbeTimer, TimerClient};
use crate::interrupt::UnconnectedIrq;

/// Where the machine might put the relocatable ones.
const COM1: u64 = 0x3f8;
const PM_BASE: u64 = 0x600;

/// A device's alarm, and the device.
type Alarm = (Arc<ProbeTimer>, Arc<Mutex<dyn TimerClient>>);

struct Board {
    bus: Bus,
    clock: Arc<ManualClock>,
    pic: Arc<Mutex<pic8259::PicDevice>>,
    alarms: Vec<Alarm>,
}

impl Board {
    fn new() -> Self {
        let bus = Bus::new();
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
        let pic = pic8259::PicDevice::new(pic8259::Pic::new(), Box::new(UnconnectedIrq));
        let pic = Arc::new(Mutex::new(pic));
        bus.insert_ports(pic8259::PORTS, pic.clone()).unwrap();
        let line = |line| Box::new(pic8259::PicLine::new(pic.clone(), line));
        let mut alarms: Vec<Alarm> = Vec::new();

        let timer = Arc::new(ProbeTimer::new());
        let pit = pit8254::PitDevice::new(clock.clone(), line(0), Box::new(timer.clone()));
        let pit = Arc::new(Mutex::new(pit));
        bus.insert_ports(pit8254::PORTS, pit.clone()).unwrap();
        alarms.push((timer, pit));

        let timer = Arc::new(ProbeTimer::new());
        let rtc = rtc::RtcDevice::new(clock.clone(), line(8), Box::new(timer.clone()));
        let rtc = Arc::new(Mutex::new(rtc));
        bus.insert_ports(rtc::PORTS, rtc.clone()).unwrap();
        alarms.push((timer, rtc));

        let timer = Arc::new(ProbeTimer::new());
        let alarm = Box::new(timer.clone());
        let pm = acpi_pm::AcpiPmDevice::new(clock.clone(), line(9), alarm, Box::new(|_| {}));
        let pm = Arc::new(Mutex::new(pm));
        bus.insert(PM_BASE, acpi_pm::BLOCK_BYTES, pm.clone()).unwrap();
        bus.insert_ports(acpi_pm::SMI_PORTS, pm.clone()).unwrap();
        alarms.push((timer, pm));

        let i8042 = i8042::I8042Device::new(i8042::Outputs {
            irq_1: line(1),
            irq_12: line(12),
            a20: Box::new(|_| {}),
            reset: Box::new(|_| {}),
        });
        bus.insert_ports(i8042::PORTS, Arc::new(Mutex::new(i8042))).unwrap();

        let com1 = serial::Serial::new(line(4), Box::new(std::io::sink()));
        bus.insert(COM1, serial::REGISTERS, Arc::new(Mutex::new(com1))).unwrap();

        let reset = reset::ResetControlDevice::new(Box::new(|_| {}));
        bus.insert_ports(reset::PORTS, Arc::new(Mutex::new(reset))).unwrap();
        let post_code = Arc::new(Mutex::new(debug::PostCode::default()));
        bus.insert_ports(debug::POST_CODE_PORTS, post_code).unwrap();
        let console = debug::DebugConsole::new(Box::new(std::io::sink()));
        bus.insert_ports(debug::DEBUG_CONSOLE_PORTS, Arc::new(Mutex::new(console))).unwrap();
        let exit = debug::DebugExit::new(Box::new(|_| {}));
        bus.insert_ports(debug::DEBUG_EXIT_PORTS, Arc::new(Mutex::new(exit))).unwrap();
        Self { bus, clock, pic, alarms }
    }

    fn outb(&self, port: u64, value: u8) {
        assert!(self.bus.write(port, &[value]), "nobody at {port:#x}");
    }

    fn inb(&self, port: u64) -> u8 {
        let mut data = [0];
        assert!(self.bus.read(port, &mut data), "nobody at {port:#x}");
        data[0]
    }

    /// Plays the alarms that are due after `ns`, at most `limit` of them.
    fn advance(&self, ns: u64, limit: usize) {
        let end = self.clock.now_ns().saturating_add(ns);
        for _ in 0..limit {
            let next = self.alarms.iter().filter_map(|alarm| Some((alarm.0.deadline()?, alarm)));
            match next.min_by_key(|&(deadline, _)| deadline) {
                Some((deadline, (_, device))) if deadline <= end => {
                    self.clock.set(deadline.max(self.clock.now_ns()));
                    lock(device).timer_expired(self.clock.now_ns());
                }
                _ => break,
            }
        }
        self.clock.set(end);
    }
}

/// A bare-metal kernel's first steps: remap the PICs, tick, type, talk.
#[test]
fn interrupts_find_their_vectors() {
    let board = Board::new();
    for (command, data, base, wiring) in [(0x20, 0x21, 0x20, 4), (0xa0, 0xa1, 0x28, 2)] {
        board.outb(command, 0x11);
        for value in [base, wiring, 1, 0] {
            board.outb(data, value);
        }
    }
    let service = || {
        let vector = lock(&board.pic).acknowledge();
        if vector >= 0x28 {
            board.outb(0xa0, 0x20);
        }
        board.outb(0x20, 0x20);
        vector
    };
    // The timer at 1 kHz.
    for (port, value) in [(0x43, 0x34), (0x40, 0xa9), (0x40, 0x04)] {
        board.outb(port, value);
    }
    board.advance(1_100_000, 10);
    assert_eq!(service(), 0x20);
    board.outb(0x43, 0x34);
    // The clock's update interrupt.
    board.outb(0x70, 0x0b);
    board.outb(0x71, 0x12);
    board.advance(1_000_000_000, 10);
    assert_eq!(service(), 0x28);
    assert!(!lock(&board.pic).intr());
    board.outb(0x70, 0x0c);
    assert_eq!(board.inb(0x71) & 0x90, 0x90);
    board.outb(0x70, 0x0b);
    board.outb(0x71, 0x02);
    // The keyboard's echo.
    board.outb(0x60, 0xee);
    assert_eq!(service(), 0x21);
    assert_eq!(board.inb(0x60), 0xee);
    // The serial port's transmitter.
    board.outb(COM1 + 1, 0x02);
    assert_eq!(service(), 0x24);
    assert_eq!(board.inb(COM1 + 2), 0x02);
    // SCI by the timer's carry.
    board.outb(0xb2, acpi_pm::ACPI_ENABLE);
    board.outb(PM_BASE + 2, 0x01);
    board.advance(2_400_000_000, 10);
    assert_eq!(service(), 0x29);
    assert!(!lock(&board.pic).intr());
}

proptest! {
    /// Any width at any port, at any time: nothing panics, nothing hangs, and bytes that nobody
    /// claims are all-ones.
    #[test]
    fn random_port_accesses_are_survived(
        accesses in prop::collection::vec(
            (0usize..60, any::<u64>(), 1usize..=8, any::<bool>(), 0u64..5_000_000), 0..200),
    ) {
        let mut ports: Vec<u64> = vec![COM1, COM1 + 1, COM1 + 2, COM1 + 3, COM1 + 4, COM1 + 5];
        ports.extend((0..16).map(|offset| PM_BASE + offset));
        for list in [
            pic8259::PORTS, pit8254::PORTS, rtc::PORTS, i8042::PORTS, acpi_pm::SMI_PORTS,
            reset::PORTS, debug::POST_CODE_PORTS, debug::DEBUG_CONSOLE_PORTS,
            debug::DEBUG_EXIT_PORTS,
        ] {
            ports.extend(list.iter().flat_map(|&(port, count)| {
                (port..port + count).map(u64::from)
            }));
        }
        let board = Board::new();
        for (port, value, len, write, ns) in accesses {
            board.advance(ns, 20);
            let port = ports[port % ports.len()];
            let mut data = value.to_le_bytes();
            if write {
                board.bus.write(port, &data[..len]);
            } else {
                board.bus.read(port, &mut data[..len]);
            }
            if lock(&board.pic).intr() {
                lock(&board.pic).acknowledge();
            }
        }
    }
}
