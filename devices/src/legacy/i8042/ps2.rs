//! What keyboard and mouse have in common: the bytes on their way to the controller.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// A command, or its parameter, was understood.
pub(super) const ACKNOWLEDGE: u8 = 0xfa;
/// A command, or its parameter, was not.
pub(super) const RESEND: u8 = 0xfe;
/// The basic assurance test, which a reset runs, passed.
pub(super) const SELF_TEST_PASSED: u8 = 0xaa;

/// Bytes of input that a device buffers.
const INPUT_BYTES: usize = 16;

/// The sending half of a PS/2 device: answers first, then what the user did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sender {
    answers: VecDeque<u8>,
    input: VecDeque<u8>,
    last: u8,
}

impl Sender {
    /// Answers a command. An answer still on its way to an earlier one is given up, as a device
    /// does when the host interrupts it.
    pub(super) fn answer(&mut self, bytes: &[u8]) {
        self.answers.clear();
        self.answers.extend(bytes);
    }

    /// Sends the last byte once more.
    pub(super) fn resend(&mut self) {
        let last = self.last;
        self.answer(&[last]);
    }

    /// Queues what the user did, as a whole; returns whether there was room.
    pub(super) fn queue_input(&mut self, bytes: &[u8]) -> bool {
        let fits = self.input.len() + bytes.len() <= INPUT_BYTES;
        if fits {
            self.input.extend(bytes);
        }
        fits
    }

    /// Forgets what the user did.
    pub(super) fn clear_input(&mut self) {
        self.input.clear();
    }

    /// The next byte on the wire.
    pub(super) fn next(&mut self) -> Option<u8> {
        let byte = self.answers.pop_front().or_else(|| self.input.pop_front())?;
        self.last = byte;
        Some(byte)
    }
}
