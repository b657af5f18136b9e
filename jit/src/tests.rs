//! The same code through the interpreter and through the translator.

mod counts;
mod evex;
mod flow;
mod kit;
mod programs;
mod random;
mod segments;
