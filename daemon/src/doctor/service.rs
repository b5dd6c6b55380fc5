//! What of a systemd service is, or will be, observed.
//!
//! Comes in: a unit's name. Goes out: reports, of the unit's settings, of its program and of its main process. Called by
//! `commands::doctor`. Asks `systemctl show`, which needs no rights.
#![forbid(unsafe_code)]

use super::{Kind, Mark, Report, base, process, program};
use crate::library;
use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Stdio};

const PROPERTIES: &str = "Id,LoadState,ActiveState,MainPID,ExecStart,Environment,RootDirectory,RootImage,\
    RestrictAddressFamilies,FragmentPath";

/// Why nothing can be said of a service.
#[derive(Debug, PartialEq, Eq)]
pub enum Unknown {
    /// systemd knows no such unit.
    NoSuch,
    /// systemd can't be asked; why.
    NoSystemd(String),
}

/// Looks at the service `name`; `.service` may be left out.
///
/// # Errors
/// There is no such service, or no systemd.
pub fn examine(name: &str) -> Result<Vec<Report>, Unknown> {
    let unit = if base(name).contains('.') { name.to_owned() } else { format!("{name}.service") };
    let properties = show(&unit)?;
    let get = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
    if matches!(get("LoadState"), "not-found" | "") {
        return Err(Unknown::NoSuch);
    }
    let mut report = Report::new(get("Id").to_owned(), Kind::Service);
    let pid: u32 = get("MainPID").parse().unwrap_or(0);
    if matches!(get("LoadState"), "masked" | "error" | "bad-setting") {
        report.add("unit", Mark::Nothing, format!("its unit is {}: it can't start", get("LoadState")));
    }
    let start = Start::of(get("ExecStart"));
    settings(&mut report, &get, start.as_ref(), pid);
    let subject = report.subject.clone();
    let mut reports = vec![report];
    match &start {
        Some(start) => {
            reports.push(program::examine(&format!("{subject}: its program"), Path::new(&start.program)))
        }
        None => {
            reports[0].add("unit", Mark::Nothing, "it starts no program (no ExecStart)");
        }
    }
    if pid != 0 {
        reports.push(process::examine(&format!("{subject}: its main process"), pid));
    }
    Ok(reports)
}

fn show(unit: &str) -> Result<HashMap<String, String>, Unknown> {
    let mut command = Command::new("systemctl");
    command.args(["show", "--no-pager", "--property", PROPERTIES, "--", unit]);
    command.env("SYSTEMD_COLORS", "0").env_remove("LD_PRELOAD").stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Unknown::NoSystemd("there is no systemctl here".into()));
        }
        Err(e) => return Err(Unknown::NoSystemd(format!("systemctl can't be started: {e}"))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it failed and said nothing");
        return Err(Unknown::NoSystemd(format!("systemctl: {}", crate::escape::text(said))));
    }
    Ok(read(&String::from_utf8_lossy(&output.stdout)))
}

fn read(shown: &str) -> HashMap<String, String> {
    let mut properties = HashMap::new();
    for (key, value) in shown.lines().filter_map(|l| l.split_once('=')) {
        // Of several ExecStart lines the first is taken.
        properties.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    properties
}

/// What a unit starts.
#[derive(Debug, PartialEq, Eq)]
struct Start {
    program: String,
    /// It goes through `counterfoil exec`.
    observed: bool,
}

impl Start {
    /// `{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g … ; ignore_errors=no ; … }`.
    fn of(shown: &str) -> Option<Self> {
        let field = |name: &str| {
            let rest = shown.split_once(name)?.1;
            Some(rest.split(" ;").next().unwrap_or(rest).trim().to_owned())
        };
        let path = field("path=").filter(|p| !p.is_empty())?;
        let arguments = field("argv[]=").unwrap_or_default();
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let wrapped = base(&path) == "counterfoil" && words.get(1) == Some(&"exec");
        let behind = words.iter().position(|w| *w == "--").and_then(|at| words.get(at + 1));
        match behind.filter(|_| wrapped) {
            Some(program) => Some(Self { program: (*program).to_owned(), observed: true }),
            None => Some(Self { program: path, observed: false }),
        }
    }
}

/// `A=1 LD_PRELOAD=/x/libcounterfoil.so "B=c d"`: has LD_PRELOAD the library?
fn preloads(environment: &str) -> bool {
    let Some((_, value)) = environment.split_once("LD_PRELOAD=") else { return false };
    let mut entries = value.split([' ', ':', '"']).take_while(|e| !e.contains('='));
    entries.any(|e| base(e) == library::NAME)
}

fn settings<'p>(report: &mut Report, get: &impl Fn(&str) -> &'p str, start: Option<&Start>, pid: u32) {
    let preloaded = preloads(get("Environment"));
    let everywhere = std::fs::read_to_string("/etc/ld.so.preload").is_ok_and(|t| t.contains(library::NAME));
    if start.is_some_and(|s| s.observed) {
        report.add("library", Mark::Good, "it is started through counterfoil exec");
    } else if preloaded {
        report.add("library", Mark::Good, "its Environment= has the library in LD_PRELOAD");
    } else if everywhere {
        report.add("library", Mark::Good, "/etc/ld.so.preload has the library");
    } else {
        report.add("library", Mark::Nothing, "nothing gives it the library: it runs unobserved");
        let at = library::find()
            .map_or_else(|_| format!("/usr/local/lib/{}", library::NAME), |p| p.display().to_string());
        report.advise(format!(
            "systemctl edit {}, and there: [Service] Environment=LD_PRELOAD={at}; then restart it",
            report.subject
        ));
    }
    let families = get("RestrictAddressFamilies");
    let (denied, list) = families.strip_prefix('~').map_or((false, families), |l| (true, l));
    let has_unix = list.split_whitespace().any(|f| f == "AF_UNIX");
    if !list.is_empty() && has_unix == denied {
        report.add(
            "socket",
            Mark::Nothing,
            "RestrictAddressFamilies= keeps it from Unix sockets: it can't reach the daemon",
        );
        report
            .advise(format!("systemctl edit {}: [Service] RestrictAddressFamilies=AF_UNIX", report.subject));
    }
    let root = [get("RootDirectory"), get("RootImage")].into_iter().find(|r| !r.is_empty());
    if let Some(root) = root {
        report.add("place", Mark::Warning, format!("its root is {root}: library and socket must be in it"));
        report.advise("BindReadOnlyPaths= for the library, BindPaths=/run/counterfoil for the socket");
    }
    let state = get("ActiveState");
    if pid == 0 {
        report.add("unit", Mark::Info, format!("it is {state}: what follows is what it will start"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_starts() {
        let nginx =
            "{ path=/usr/sbin/nginx ; argv[]=/usr/sbin/nginx -g daemon on; ; ignore_errors=no ; pid=0 }";
        assert_eq!(Start::of(nginx), Some(Start { program: "/usr/sbin/nginx".into(), observed: false }));
        let wrapped = "{ path=/usr/bin/counterfoil ; argv[]=/usr/bin/counterfoil exec --socket /s -- /usr/bin/x -- y ; }";
        assert_eq!(Start::of(wrapped), Some(Start { program: "/usr/bin/x".into(), observed: true }));
        assert_eq!(Start::of(""), None);
    }

    #[test]
    fn settings_that_stand_in_the_way() {
        let look = |shown: &str| {
            let properties = read(shown);
            let mut report = Report::new("x.service", Kind::Service);
            let get = |key: &str| properties.get(key).map(String::as_str).unwrap_or_default();
            settings(&mut report, &get, None, 0);
            report
        };
        let preloaded = "Environment=A=1 LD_PRELOAD=/usr/local/lib/libcounterfoil.so\n";
        assert_eq!(look(preloaded).answer(), "yes");
        assert_eq!(look("").answer(), "no");
        let named = "Environment=COUNTERFOIL_LIB=/l/libcounterfoil.so LD_PRELOAD=/x/a.so\n";
        assert_eq!(look(named).answer(), "no", "named, and not preloaded");
        let behind = "Environment=\"LD_PRELOAD=/x/a.so /l/libcounterfoil.so\" B=1\n";
        assert_eq!(look(behind).answer(), "yes");
        for (families, answer) in [
            ("AF_INET AF_INET6", "no"),
            ("AF_INET AF_UNIX", "yes"),
            ("~AF_UNIX", "no"),
            ("~AF_PACKET", "yes"),
        ] {
            let report = look(&format!("{preloaded}RestrictAddressFamilies={families}\n"));
            assert_eq!(report.answer(), answer, "{families}");
        }
        let rooted = look(&format!("{preloaded}RootDirectory=/srv/jail\n"));
        assert!(rooted.checks.iter().any(|c| c.name == "place" && c.mark == Mark::Warning));
    }
}
