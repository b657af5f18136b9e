//! The `ringshift` command line.

fn main() {}
