//! vvu-block
fn main() {}
