//! The edgerec program.

fn main() {}
