use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::interrupt::ProbeIrq;

/// A pair with vectors 0x20 and 0x28 and nothing masked, as Linux programs it.
fn programmed_with(icw4_master: u8, icw4_slave: u8) -> Pic {
    let mut pic = Pic::new();
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 0x04),
        (0x21, icw4_master),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 0x02),
        (0xa1, icw4_slave),
    ] {
        pic.write_port(port, value);
    }
    pic
}

fn programmed() -> Pic {
    programmed_with(1, 1)
}

fn read_isr(pic: &mut Pic, command: u64) -> u8 {
    pic.write_port(command, 0x0b);
    pic.read_port(command)
}

fn read_irr(pic: &mut Pic, command: u64) -> u8 {
    pic.write_port(command, 0x0a);
    pic.read_port(command)
}

#[test]
fn power_on_is_silent() {
    let mut pic = Pic::new();
    for line in 0..16 {
        pic.set_irq(line, true);
    }
    assert!(!pic.intr());
}

#[test]
fn bios_programming_has_the_bios_vectors_and_masks() {
    let mut pic = Pic::new();
    pic.program_as_bios();
    assert_eq!((pic.read_port(0x21), pic.read_port(0xa1)), (0xb8, 0x8e));
    pic.set_irq(0, true);
    assert_eq!(pic.acknowledge(), 0x08);
    pic.write_port(0x20, 0x20);
    pic.set_irq(8, true);
    assert_eq!(pic.acknowledge(), 0x70);
}

#[test]
fn an_edge_is_serviced_once() {
    let mut pic = programmed();
    pic.set_irq(4, true);
    assert!(pic.intr());
    assert_eq!(read_irr(&mut pic, 0x20), 0x10);
    assert_eq!(pic.acknowledge(), 0x24);
    assert_eq!((read_irr(&mut pic, 0x20), read_isr(&mut pic, 0x20)), (0, 0x10));
    pic.write_port(0x20, 0x20);
    assert_eq!(read_isr(&mut pic, 0x20), 0);
    assert!(!pic.intr());
    // Held high, it asks again only after a low phase.
    pic.set_irq(4, true);
    assert!(!pic.intr());
    pic.set_irq(4, false);
    pic.set_irq(4, true);
    assert!(pic.intr());
}

#[test]
fn a_level_asks_again_until_it_is_lowered() {
    let mut pic = programmed();
    pic.write_port(0x4d0, 0xff);
    pic.write_port(0x4d1, 0xff);
    assert_eq!((pic.read_port(0x4d0), pic.read_port(0x4d1)), (0xf8, 0xde));
    pic.set_irq(11, true);
    assert_eq!(pic.acknowledge(), 0x2b);
    assert!(!pic.intr());
    pic.write_port(0xa0, 0x20);
    pic.write_port(0x20, 0x20);
    assert!(pic.intr());
    pic.set_irq(11, false);
    assert!(!pic.intr());
}

#[test]
fn switching_an_input_to_level_sees_the_level() {
    let mut pic = programmed();
    pic.set_irq(5, true);
    assert_eq!(pic.acknowledge(), 0x25);
    pic.write_port(0x20, 0x20);
    assert!(!pic.intr());
    pic.write_port(0x4d0, 0x20);
    assert!(pic.intr());
}

#[test]
fn an_edge_withdrawn_before_inta_is_spurious() {
    let mut pic = programmed();
    pic.set_irq(3, true);
    pic.set_irq(3, false);
    assert!(!pic.intr());
    assert_eq!(pic.acknowledge(), 0x27);
    assert_eq!(read_isr(&mut pic, 0x20), 0);
}

#[test]
fn a_slave_without_a_request_answers_spurious_15() {
    let mut pic = programmed();
    // The master's latch is what the CPU sees; mask the slave's input in between.
    pic.set_irq(10, true);
    assert!(pic.intr());
    pic.slave.write_data(0xff);
    assert_eq!(pic.acknowledge(), 0x2f);
    assert_eq!(read_isr(&mut pic, 0xa0), 0);
    assert_eq!(read_isr(&mut pic, 0x20), 0x04);
}

#[test]
fn fixed_priority_nests() {
    let mut pic = programmed();
    pic.set_irq(5, true);
    assert_eq!(pic.acknowledge(), 0x25);
    pic.set_irq(6, true);
    assert!(!pic.intr());
    pic.set_irq(1, true);
    assert_eq!(pic.acknowledge(), 0x21);
    assert_eq!(read_isr(&mut pic, 0x20), 0x22);
    // The non-specific EOI ends the innermost.
    pic.write_port(0x20, 0x20);
    assert_eq!(read_isr(&mut pic, 0x20), 0x20);
    assert!(!pic.intr());
    pic.write_port(0x20, 0x20);
    assert_eq!(pic.acknowledge(), 0x26);
}

#[test]
fn specific_eoi_ends_the_named_input() {
    let mut pic = programmed();
    pic.set_irq(5, true);
    pic.acknowledge();
    pic.set_irq(1, true);
    pic.acknowledge();
    pic.write_port(0x20, 0x65);
    assert_eq!(read_isr(&mut pic, 0x20), 0x02);
    pic.write_port(0x20, 0x61);
    assert_eq!(read_isr(&mut pic, 0x20), 0);
}

#[test]
fn the_slave_sits_at_priority_2() {
    let mut pic = programmed();
    pic.set_irq(3, true);
    pic.set_irq(12, true);
    assert_eq!(pic.acknowledge(), 0x2c);
    assert_eq!((read_isr(&mut pic, 0x20), read_isr(&mut pic, 0xa0)), (0x04, 0x10));
    // Without special fully nested mode the slave waits for both EOIs.
    pic.set_irq(8, true);
    assert!(!pic.intr());
    pic.write_port(0xa0, 0x20);
    assert!(!pic.intr());
    pic.write_port(0x20, 0x20);
    assert_eq!(pic.acknowledge(), 0x28);
}

#[test]
fn special_fully_nested_lets_the_slave_nest() {
    let mut pic = programmed_with(0x11, 0x01);
    pic.set_irq(12, true);
    assert_eq!(pic.acknowledge(), 0x2c);
    pic.set_irq(3, true);
    assert!(!pic.intr(), "lower than the slave: still held back");
    pic.set_irq(8, true);
    assert_eq!(pic.acknowledge(), 0x28);
    assert_eq!(read_isr(&mut pic, 0xa0), 0x11);
}

#[test]
fn automatic_eoi_leaves_nothing_in_service() {
    let mut pic = programmed_with(0x03, 0x03);
    pic.set_irq(7, true);
    pic.set_irq(9, true);
    pic.set_irq(10, true);
    assert_eq!(pic.acknowledge(), 0x29);
    assert_eq!((read_isr(&mut pic, 0x20), read_isr(&mut pic, 0xa0)), (0, 0));
    // The second slave request makes its own edge at the master.
    assert_eq!(pic.acknowledge(), 0x2a);
    assert_eq!(pic.acknowledge(), 0x27);
    assert!(!pic.intr());
}

#[test]
fn rotate_in_automatic_eoi_goes_round() {
    let mut pic = programmed_with(0x03, 0x01);
    pic.write_port(0x20, 0x80);
    let mut order = Vec::new();
    for line in [0, 1] {
        pic.set_irq(line, true);
    }
    for _ in 0..4 {
        let vector = pic.acknowledge();
        order.push(vector);
        let line = vector - 0x20;
        pic.set_irq(line, false);
        pic.set_irq(line, true);
    }
    assert_eq!(order, [0x20, 0x21, 0x20, 0x21]);
    pic.write_port(0x20, 0x00);
    order.clear();
    for _ in 0..2 {
        let vector = pic.acknowledge();
        order.push(vector);
        pic.set_irq(vector - 0x20, false);
        pic.set_irq(vector - 0x20, true);
    }
    assert_eq!(order, [0x20, 0x20]);
}

#[test]
fn rotate_on_eoi_makes_the_ended_input_lowest() {
    let mut pic = programmed();
    pic.set_irq(4, true);
    pic.acknowledge();
    pic.write_port(0x20, 0xa0);
    for line in [3, 4, 5] {
        pic.set_irq(line, false);
        pic.set_irq(line, true);
    }
    assert_eq!(pic.acknowledge(), 0x25);
    // Rotate on specific EOI names it.
    pic.write_port(0x20, 0xe5);
    assert_eq!(pic.acknowledge(), 0x23);
}

#[test]
fn set_priority_moves_the_ring() {
    let mut pic = programmed();
    pic.write_port(0x20, 0xc4);
    for line in 0..8 {
        pic.set_irq(line, true);
    }
    assert_eq!(pic.acknowledge(), 0x25);
}

#[test]
fn rotate_on_eoi_with_nothing_in_service_changes_nothing() {
    let mut pic = programmed();
    let before = pic.clone();
    pic.write_port(0x20, 0xa0);
    pic.write_port(0x20, 0x40);
    assert_eq!(pic, before);
}

#[test]
fn special_mask_mode_opens_the_levels_below() {
    let mut pic = programmed();
    pic.set_irq(3, true);
    pic.acknowledge();
    pic.set_irq(6, true);
    assert!(!pic.intr());
    pic.write_port(0x21, 0x08);
    assert!(!pic.intr(), "masking alone does not open them");
    pic.write_port(0x20, 0x68);
    assert_eq!(pic.acknowledge(), 0x26);
    // The non-specific EOI passes the masked input over.
    pic.write_port(0x20, 0x20);
    assert_eq!(read_isr(&mut pic, 0x20), 0x08);
    pic.write_port(0x20, 0x48);
    pic.write_port(0x20, 0x20);
    assert_eq!(read_isr(&mut pic, 0x20), 0);
}

#[test]
fn poll_acknowledges_one_request() {
    let mut pic = programmed();
    pic.write_port(0x20, 0x0c);
    assert_eq!(pic.read_port(0x20) & 0x80, 0);
    pic.set_irq(6, true);
    pic.write_port(0x20, 0x0c);
    assert_eq!(pic.read_port(0x20), 0x86);
    assert!(!pic.intr());
    assert_eq!(read_isr(&mut pic, 0x20), 0x40);
    // Any read answers a poll, once.
    pic.set_irq(1, true);
    pic.write_port(0x20, 0x0c);
    assert_eq!(pic.read_port(0x21), 0x81);
    assert_eq!(pic.read_port(0x21), 0);
}

#[test]
fn polling_the_slave_lowers_the_cascade() {
    let mut pic = programmed();
    pic.set_irq(14, true);
    pic.write_port(0xa0, 0x0c);
    assert_eq!(pic.read_port(0xa0), 0x86);
    assert!(!pic.intr());
}

#[test]
fn masks_hide_but_do_not_lose_requests() {
    let mut pic = programmed();
    pic.write_port(0x21, 0xff);
    pic.set_irq(1, true);
    assert!(!pic.intr());
    assert_eq!(read_irr(&mut pic, 0x20), 0x02);
    pic.write_port(0x21, 0x00);
    assert_eq!(pic.acknowledge(), 0x21);
    // The whole slave goes silent with the cascade masked.
    pic.write_port(0x20, 0x20);
    pic.write_port(0x21, 0x04);
    pic.set_irq(8, true);
    assert!(!pic.intr());
}

#[test]
fn icw1_resets_masks_service_and_edges() {
    let mut pic = programmed();
    pic.write_port(0x4d0, 0x20);
    pic.write_port(0x21, 0x12);
    pic.set_irq(0, true);
    pic.acknowledge();
    pic.set_irq(3, true);
    pic.set_irq(5, true);
    pic.write_port(0x20, 0x11);
    assert_eq!(pic.read_port(0x21), 0);
    assert_eq!(read_isr(&mut pic, 0x20), 0);
    // Edge 3 must come anew; level 5 is still there.
    assert_eq!(read_irr(&mut pic, 0x20), 0x20);
}

#[test]
fn single_mode_skips_icw3_and_has_no_slave() {
    let mut pic = Pic::new();
    for (port, value) in [(0x20, 0x13), (0x21, 0x40), (0x21, 0x01), (0x21, 0xfb)] {
        pic.write_port(port, value);
    }
    assert_eq!(pic.read_port(0x21), 0xfb);
    for (port, value) in [(0xa0, 0x11), (0xa1, 0x70), (0xa1, 0x02), (0xa1, 0x01)] {
        pic.write_port(port, value);
    }
    pic.set_irq(9, true);
    assert_eq!(pic.acknowledge(), 0x42);
}

#[test]
fn icw4_may_be_left_out() {
    let mut pic = Pic::new();
    for (port, value) in [(0x20, 0x10), (0x21, 0x40), (0x21, 0x04), (0x21, 0xfe)] {
        pic.write_port(port, value);
    }
    assert_eq!(pic.read_port(0x21), 0xfe);
}

#[test]
fn a_slave_identity_nobody_has_leaves_the_bus_floating() {
    let mut pic = Pic::new();
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 0x0c), (0x21, 0x01)] {
        pic.write_port(port, value);
    }
    pic.set_irq(3, true);
    assert_eq!(pic.acknowledge(), 0xff);
}

#[test]
fn irq_2_and_beyond_15_do_not_exist() {
    let mut pic = programmed();
    for line in [2, 16, 255] {
        pic.set_irq(line, true);
    }
    assert!(!pic.intr());
}

#[test]
fn the_attachment_drives_intr_and_splits_words() {
    let intr = Arc::new(ProbeIrq::new());
    let pic = Arc::new(Mutex::new(PicDevice::new(programmed(), Box::new(intr.clone()))));
    let line = PicLine::new(pic.clone(), 1);
    line.set_level(true);
    assert!(intr.level());
    assert_eq!(lock(&pic).acknowledge(), 0x21);
    assert!(!intr.level());
    // A word write at 0x20 is an EOI and then a mask.
    lock(&pic).write(0x20, &[0x20, 0xfe]);
    let mut data = [0; 2];
    lock(&pic).read(0x20, &mut data);
    assert_eq!(data, [0, 0xfe]);
    // Restoring drives the wire.
    let mut saved = lock(&pic).state().clone();
    saved.set_irq(0, true);
    lock(&pic).restore(saved);
    assert!(intr.level());
}

#[derive(Debug, Clone)]
enum Step {
    Read(usize),
    Write(usize, u8),
    Irq(u8, bool),
    Acknowledge,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..6).prop_map(Step::Read),
        (0usize..6, any::<u8>()).prop_map(|(port, value)| Step::Write(port, value)),
        (0u8..20, any::<bool>()).prop_map(|(line, level)| Step::Irq(line, level)),
        Just(Step::Acknowledge),
    ]
}

proptest! {
    #[test]
    fn random_use_keeps_the_registers_consistent(steps in prop::collection::vec(step(), 0..200)) {
        const ADDRESSES: [u64; 6] = [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1];
        let mut pic = programmed();
        for step in steps {
            match step {
                Step::Read(port) => {
                    pic.read_port(ADDRESSES[port]);
                }
                Step::Write(port, value) => pic.write_port(ADDRESSES[port], value),
                Step::Irq(line, level) => pic.set_irq(line, level),
                Step::Acknowledge => {
                    pic.acknowledge();
                }
            }
            // A request cannot outlive its line; the cascade follows the slave.
            prop_assert_eq!(pic.master.irr & !pic.master.lines, 0);
            prop_assert_eq!(pic.slave.irr & !pic.slave.lines, 0);
            prop_assert_eq!(pic.master.lines & 4 != 0, pic.slave.pending().is_some());
        }
        let saved = serde_json::to_string(&pic).unwrap();
        prop_assert_eq!(serde_json::from_str::<Pic>(&saved).unwrap(), pic);
    }
}
