//! Will the host's daemon tag what a program transfers, or only count it?
//!
//! Comes in: a program's path. Goes out: a check. Called by [`super::program`] and [`super::process`].
#![forbid(unsafe_code)]

use super::{Mark, Report};
use crate::config;
use crate::host::facts::{Facts, Watch};
use crate::model::Process;
use crate::session::watch;
use std::path::Path;

/// The host's configuration.
pub(super) const CONFIG: &str = "/etc/counterfoil/counterfoil.toml";

/// Says whether `[watch] watched_processes` has it.
pub(super) fn check(report: &mut Report, path: &Path) {
    let file = Some(Path::new(CONFIG)).filter(|f| f.exists());
    // Mistakes in it are said where the installation is looked at.
    let Ok(parsed) = config::load(file) else { return };
    let exe = Some(path.display().to_string());
    let facts = Facts { process: Process { exe, ..Process::default() }, ..Facts::default() };
    if watch(&parsed.config.watch.watched_processes)(&facts) == Watch::Watched {
        report.add(
            "watched",
            Mark::Good,
            "the host's daemon tags what it transfers ([watch] watched_processes)",
        );
    } else {
        let says = "not in [watch] watched_processes: the host's daemon only counts its bytes; counterfoil run watches it";
        report.add("watched", Mark::Warning, says);
        report.advise(format!(
            "add its name to watched_processes in {CONFIG}, and systemctl reload counterfoil"
        ));
    }
}
