//! Doctor: what of a program, process or service can be observed, what not, why, and what to do.
//!
//! Comes in: a path, a process id, a unit's name, or nothing. Goes out: a [`Report`] with one [`Check`] for each thing
//! that was looked at. Called by `commands::doctor`. Looks only: nothing is started but `systemctl show` (for a
//! service) and `/bin/true` with the library (for the installation itself). What can't be found out is said as that.
#![forbid(unsafe_code)]

mod bypasses;
pub mod image;
pub mod installation;
pub mod libraries;
pub mod process;
pub mod program;
pub mod service;
mod tls;
mod watched;

use std::path::PathBuf;

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Worth knowing.
    Info,
    /// As it should be.
    Good,
    /// It may matter.
    Warning,
    /// A part will not be seen.
    Part,
    /// Nothing will be seen.
    Nothing,
}

impl Mark {
    /// Its word in JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Good => "good",
            Self::Warning => "warning",
            Self::Part => "part",
            Self::Nothing => "nothing",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What, in one word.
    pub name: &'static str,
    /// How it is.
    pub mark: Mark,
    /// What was found.
    pub says: String,
    /// What can be done.
    pub advice: Option<String>,
}

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named for what they are")]
pub enum Kind {
    Program,
    Process,
    Service,
    Installation,
}

impl Kind {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Process => "process",
            Self::Service => "service",
            Self::Installation => "installation",
        }
    }
}

/// All that was found about one subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// As it was asked for.
    pub subject: String,
    /// What it is.
    pub kind: Kind,
    /// Its program.
    pub path: Option<PathBuf>,
    /// Its process.
    pub pid: Option<u32>,
    /// In the order in which they matter.
    pub checks: Vec<Check>,
}

impl Report {
    fn new(subject: impl Into<String>, kind: Kind) -> Self {
        Self { subject: subject.into(), kind, path: None, pid: None, checks: vec![] }
    }

    fn add(&mut self, name: &'static str, mark: Mark, says: impl Into<String>) -> &mut Self {
        self.checks.push(Check { name, mark, says: says.into(), advice: None });
        self
    }

    /// What can be done about the last check.
    fn advise(&mut self, advice: impl Into<String>) {
        if let Some(last) = self.checks.last_mut() {
            last.advice = Some(advice.into());
        }
    }

    /// The worst that was found.
    #[must_use]
    pub fn worst(&self) -> Mark {
        self.checks.iter().map(|c| c.mark).max().unwrap_or(Mark::Info)
    }

    /// Everything of it can be observed.
    #[must_use]
    pub fn observable(&self) -> bool {
        self.worst() < Mark::Part
    }

    /// `yes`, `partly` or `no`.
    #[must_use]
    pub fn answer(&self) -> &'static str {
        match self.worst() {
            Mark::Nothing => "no",
            Mark::Part => "partly",
            Mark::Info | Mark::Good | Mark::Warning => "yes",
        }
    }
}

/// A file's name without its folders.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests;
