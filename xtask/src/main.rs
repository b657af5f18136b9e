//! Developer chores: `cargo xtask <task>`.

fn main() {}
