//! What the host cannot be asked: modes other than 64-bit, control flow, faults, repetition.
//! (Results and flags are compared with the host in [`super::silicon`].)

mod branch;
mod decimal;
mod exchange;
mod stack;
mod string;
