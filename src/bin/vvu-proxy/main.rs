//! vvu-proxy
fn main() {}
