//! `counterfoil` itself, one of its commands, as a person or a script calls it.

use crate::observed::{Observed, Run};
use crate::product;
use serde_json::Value;

/// Runs `counterfoil` with these arguments, in a folder of its own.
pub fn counterfoil(arguments: &[&str]) -> Run {
    command(arguments).go()
}

/// The same, to be changed before it is run.
pub fn command(arguments: &[&str]) -> Observed {
    let mut words = vec![product::program().display().to_string()];
    words.extend(arguments.iter().map(|a| (*a).to_owned()));
    Observed::new(words).plain().limit(120)
}

/// What it wrote as JSON Lines.
pub fn json_lines(run: &Run) -> Vec<Value> {
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}\n{}", run.shown()));
    run.stdout.lines().map(parse).collect()
}
