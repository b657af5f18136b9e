//! The board's devices: pure register machines and the bus they attach to.
