//! Egress: what leaves this host, held against what usually does.
#![forbid(unsafe_code)]

pub mod benign;
pub mod usual;

pub use benign::Benign;
pub use usual::{Standing, Usual};
