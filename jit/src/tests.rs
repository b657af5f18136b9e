//! The same code through the interpreter and through the translator.

mod count;
mod counts;
mod evex;
mod flow;
mod kit;
mod pause;
mod merge;
mod programs;
mod random;
mod segments;
