//! Bytes to a compact decoded instruction, on top of iced-x86.
