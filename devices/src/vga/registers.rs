//! The register files of a VGA.

use serde::{Deserialize, Serialize};

/// Attribute controller index bit 5: the palette belongs to the display, which shows.
const PALETTE_ADDRESS_SOURCE: u8 = 1 << 5;
/// Nanoseconds of a scan line at 31.5 kHz.
const LINE_NS: u64 = 31_778;
/// Lines of a frame, the retrace included.
const LINES: u64 = 449;
const VISIBLE_LINES: u64 = 400;
/// Lines of the vertical sync pulse.
const SYNC_LINES: std::ops::Range<u64> = 412..414;

/// Sequencer register masks.
const SEQUENCER_MASK: [u8; 8] = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0, 0, 0xff];
/// Graphics controller register masks.
const GRAPHICS_MASK: [u8; 16] =
    [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0];
const CRTC_COUNT: usize = 0x19;
const ATTRIBUTE_COUNT: usize = 0x15;
/// CRTC register 0x11: registers 0 to 7 are protected, but for bit 4 of register 7.
const PROTECT: u8 = 1 << 7;

/// All registers but the dispi's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers {
    pub(super) miscellaneous: u8,
    feature: u8,
    sequencer_index: u8,
    pub(super) sequencer: [u8; 8],
    graphics_index: u8,
    pub(super) graphics: [u8; 16],
    crtc_index: u8,
    pub(super) crtc: [u8; CRTC_COUNT],
    attribute_index: u8,
    /// The next write to 0x3C0 is data.
    attribute_data: bool,
    pub(super) attribute: [u8; ATTRIBUTE_COUNT],
    pub(super) pel_mask: u8,
    read_address: u8,
    write_address: u8,
    component: u8,
    writing: bool,
    /// Three components for each of 256 entries, 6 or 8 bits each.
    pub(super) palette: Vec<u8>,
    /// Components of the entry being written.
    pending: [u8; 3],
}

impl Registers {
    pub(super) fn new() -> Self {
        Self {
            miscellaneous: 1,
            feature: 0,
            sequencer_index: 0,
            sequencer: [0; 8],
            graphics_index: 0,
            graphics: [0; 16],
            crtc_index: 0,
            crtc: [0; CRTC_COUNT],
            attribute_index: 0,
            attribute_data: false,
            attribute: [0; ATTRIBUTE_COUNT],
            pel_mask: 0xff,
            read_address: 0,
            write_address: 0,
            component: 0,
            writing: false,
            palette: vec![0; 768],
            pending: [0; 3],
        }
    }

    /// Whether the screen shows anything.
    pub(super) fn display_enabled(&self) -> bool {
        self.attribute_index & PALETTE_ADDRESS_SOURCE != 0 && self.sequencer[1] & 0x20 == 0
    }

    /// The CRTC is at 0x3D4, not 0x3B4.
    fn color(&self) -> bool {
        self.miscellaneous & 1 != 0
    }

    /// Whether `port` is the CRTC's or the status register's at their other address.
    fn elsewhere(&self, port: u64) -> bool {
        match port {
            0x3b0..=0x3bf => self.color(),
            0x3d0..=0x3df => !self.color(),
            _ => false,
        }
    }

    /// Reads a port at machine time `now_ns`. `eight_bit` says that DAC components have 8 bits.
    pub(super) fn read(&mut self, port: u64, now_ns: u64) -> u8 {
        if self.elsewhere(port) {
            return 0xff;
        }
        match port {
            0x3c0 => self.attribute_index,
            0x3c1 => {
                self.attribute.get(usize::from(self.attribute_index & 0x1f)).copied().unwrap_or(0)
            }
            // Input status 0: the switch that monitor detection looks at.
            0x3c2 => 0x10,
            0x3c4 => self.sequencer_index,
            0x3c5 => self.sequencer.get(usize::from(self.sequencer_index)).copied().unwrap_or(0),
            0x3c6 => self.pel_mask,
            0x3c7 => {
                if self.writing {
                    0
                } else {
                    3
                }
            }
            0x3c8 => self.write_address,
            0x3c9 => self.read_palette(),
            0x3ca => self.feature,
            0x3cc => self.miscellaneous,
            0x3ce => self.graphics_index,
            0x3cf => self.graphics.get(usize::from(self.graphics_index)).copied().unwrap_or(0),
            0x3b4 | 0x3d4 => self.crtc_index,
            0x3b5 | 0x3d5 => self.crtc.get(usize::from(self.crtc_index)).copied().unwrap_or(0),
            0x3ba | 0x3da => {
                self.attribute_data = false;
                input_status_1(now_ns)
            }
            _ => 0xff,
        }
    }

    /// Writes a port.
    pub(super) fn write(&mut self, port: u64, value: u8) {
        if self.elsewhere(port) {
            return;
        }
        match port {
            0x3c0 => self.write_attribute(value),
            0x3c2 => self.miscellaneous = value & !0x10,
            0x3c4 => self.sequencer_index = value & 7,
            0x3c5 => {
                let index = usize::from(self.sequencer_index);
                if let (Some(register), Some(mask)) =
                    (self.sequencer.get_mut(index), SEQUENCER_MASK.get(index))
                {
                    *register = value & mask;
                }
            }
            0x3c6 => self.pel_mask = value,
            0x3c7 => {
                self.read_address = value;
                self.component = 0;
                self.writing = false;
            }
            0x3c8 => {
                self.write_address = value;
                self.component = 0;
                self.writing = true;
            }
            0x3c9 => self.write_palette(value),
            0x3ce => self.graphics_index = value & 0xf,
            0x3cf => {
                let index = usize::from(self.graphics_index);
                if let (Some(register), Some(mask)) =
                    (self.graphics.get_mut(index), GRAPHICS_MASK.get(index))
                {
                    *register = value & mask;
                }
            }
            0x3b4 | 0x3d4 => self.crtc_index = value,
            0x3b5 | 0x3d5 => self.write_crtc(value),
            0x3ba | 0x3da => self.feature = value & 0x10,
            _ => {}
        }
    }

    fn write_crtc(&mut self, value: u8) {
        let index = usize::from(self.crtc_index);
        let protected = self.crtc[0x11] & PROTECT != 0;
        if let Some(register) = self.crtc.get_mut(index) {
            match index {
                7 if protected => *register = *register & !0x10 | value & 0x10,
                0..=7 if protected => {}
                _ => *register = value,
            }
        }
    }

    fn write_attribute(&mut self, value: u8) {
        if self.attribute_data {
            let index = usize::from(self.attribute_index & 0x1f);
            let mask = match index {
                0..=0x0f => 0x3f,
                0x10 => 0xef,
                0x12 => 0x3f,
                0x13 | 0x14 => 0x0f,
                _ => 0xff,
            };
            if let Some(register) = self.attribute.get_mut(index) {
                *register = value & mask;
            }
        } else {
            self.attribute_index = value & 0x3f;
        }
        self.attribute_data = !self.attribute_data;
    }

    fn read_palette(&mut self) -> u8 {
        let at = usize::from(self.read_address) * 3 + usize::from(self.component);
        let value = self.palette.get(at).copied().unwrap_or(0);
        self.component += 1;
        if self.component >= 3 {
            self.component = 0;
            self.read_address = self.read_address.wrapping_add(1);
        }
        value
    }

    fn write_palette(&mut self, value: u8) {
        if let Some(slot) = self.pending.get_mut(usize::from(self.component)) {
            *slot = value;
        }
        self.component += 1;
        if self.component >= 3 {
            self.component = 0;
            let at = usize::from(self.write_address) * 3;
            if let Some(entry) = self.palette.get_mut(at..at + 3) {
                entry.copy_from_slice(&self.pending);
            }
            self.write_address = self.write_address.wrapping_add(1);
        }
    }
}

/// Bit 0: not displaying. Bit 3: vertical retrace.
fn input_status_1(now_ns: u64) -> u8 {
    let position = now_ns % (LINE_NS * LINES);
    let line = position / LINE_NS;
    let in_line = position % LINE_NS;
    // A line shows for four fifths of its time.
    let blank = line >= VISIBLE_LINES || in_line > LINE_NS * 4 / 5;
    u8::from(blank) | u8::from(SYNC_LINES.contains(&line)) << 3
}
