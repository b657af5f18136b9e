//! The same code through the interpreter and through the translator.

mod borders;
mod count;
mod counts;
mod endless;
mod evex;
mod flow;
mod kit;
mod merge;
mod pause;
mod programs;
mod random;
mod segments;
mod x87;
