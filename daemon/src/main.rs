//! counterfoil.
fn main() {}
