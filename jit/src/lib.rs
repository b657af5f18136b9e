//! The same-ISA translator and the native single-instruction thunks.
