//! One harness for all integration tests.
//!
//! Comes in: a command, observed or not, and what is true of it. Goes out: what the command and
//! `counterfoil` said, and a panic that shows all of it where the two disagree. Called by the files
//! in `tests/`, each of which is one promise.
#![forbid(unsafe_code)]

pub mod busy;
pub mod cases;
pub mod classes;
pub mod daemon;
pub mod fixtures;
pub mod hostile;
pub mod journald;
pub mod leak;
pub mod observed;
pub mod openssh;
pub mod peers;
pub mod pictures;
pub mod plant;
pub mod product;
pub mod program;
pub mod report;
pub mod rsyslog;
pub mod scratch;
pub mod service_sshd;
pub mod sink;
pub mod sshd;
pub mod studio;
pub mod truth;
pub mod undisturbed;
pub mod wait;

pub use fixtures::fixture;
pub use observed::{Observed, Run};
pub use report::{Alarm, Report, Transfer};
pub use scratch::Scratch;

/// Ends the test early where its surroundings are missing. CI counts these lines.
#[macro_export]
macro_rules! skip {
    ($($why:tt)*) => {{
        println!("skipped: {}", format!($($why)*));
        return;
    }};
}

/// Like `assert!`, but shows where the run took place, what it said and what was reported of it.
#[macro_export]
macro_rules! check {
    ($run:expr, $condition:expr, $($why:tt)*) => {
        if !$condition {
            panic!("{}\n{}", format!($($why)*), $run.shown());
        }
    };
}
