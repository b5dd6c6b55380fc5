//! What packaging/ holds is understood by the programs that it is for.

use counterfoil_tests::{Scratch, need, peers, product};
use std::path::{Path, PathBuf};
use std::process::Command;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name)
}

/// Runs a program, which is to be content; what it said.
fn content(words: &[&str]) -> String {
    let out = Command::new(words[0]).args(&words[1..]).env_remove("LD_PRELOAD").output().expect(words[0]);
    let said = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{words:?}: {said}");
    said
}

#[test]
fn systemd_understands_the_unit() {
    need!("systemd-analyze");
    let scratch = Scratch::new();
    let unit = std::fs::read_to_string(packaging("counterfoil.service")).expect("unit");
    let program = product::program().display().to_string();
    // Where it will be installed there is nothing yet.
    let unit = unit.replace("@PREFIX@/bin/counterfoil", &program).replace("@PREFIX@", "/usr/local");
    let file = scratch.write("counterfoil.service", unit).display().to_string();
    let said = content(&["systemd-analyze", "verify", "--man=no", &file]);
    let about: Vec<&str> = said.lines().filter(|l| l.contains("counterfoil")).collect();
    assert!(about.is_empty(), "{about:#?}");
}

#[test]
fn systemd_makes_the_group_and_the_folders() {
    need!("systemd-sysusers", "systemd-tmpfiles");
    let scratch = Scratch::new();
    let root = format!("--root={}", scratch.path().display());
    let sysusers = packaging("sysusers.conf").display().to_string();
    std::fs::create_dir_all(scratch.at("etc")).expect("etc");
    content(&["systemd-sysusers", &root, &sysusers]);
    let groups = std::fs::read_to_string(scratch.at("etc/group")).expect("group");
    assert!(groups.lines().any(|l| l.starts_with("counterfoil:")), "{groups}");
    if !peers::root() {
        return;
    }
    scratch.write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    scratch.write("etc/group", format!("root:x:0:\n{groups}"));
    let tmpfiles = packaging("tmpfiles.conf").display().to_string();
    content(&["systemd-tmpfiles", &root, "--create", &tmpfiles]);
    for (folder, mode) in
        [("run/counterfoil", 0o755), ("var/lib/counterfoil", 0o700), ("var/log/counterfoil", 0o750)]
    {
        use std::os::unix::fs::PermissionsExt;
        let made = std::fs::metadata(scratch.at(folder)).expect(folder);
        assert_eq!(made.permissions().mode() & 0o777, mode, "{folder}");
    }
}

#[test]
fn rsyslog_understands_its_example() {
    need!("rsyslogd");
    let rsyslogd = peers::find("rsyslogd").expect("rsyslogd").display().to_string();
    let file = packaging("rsyslog.conf").display().to_string();
    let said = content(&[&rsyslogd, "-N1", "-f", &file]);
    assert!(!said.contains("error") && !said.contains("warning"), "{said}");
}

#[test]
fn logrotate_understands_its_rule() {
    need!("logrotate");
    let scratch = Scratch::new();
    let state = scratch.at("state").display().to_string();
    // The group is made when it is installed.
    let rule = std::fs::read_to_string(packaging("logrotate")).expect("rule");
    let rule = rule.replace("root counterfoil", "root root");
    let file = scratch.write("rule", rule).display().to_string();
    content(&["logrotate", "--debug", "--state", &state, &file]);
}

#[test]
fn check_is_content_with_the_sample_and_with_its_comments() {
    let scratch = Scratch::new();
    let sample = std::fs::read_to_string(packaging("counterfoil.toml")).expect("sample");
    let program = product::program().display().to_string();
    content(&[&program, "check", &packaging("counterfoil.toml").display().to_string()]);
    // Each setting that stands there as a comment is a real one, in the place where it stands.
    let sink: String = sample
        .split_once("\n[[sink]]")
        .map(|(_, rest)| format!("[[sink]]{rest}"))
        .expect("a sink")
        .lines()
        .filter(|l| {
            !["ca", "certificate", "key = \"/", "server_name", "Bytes", "At most", "For "]
                .iter()
                .any(|w| l.starts_with(&format!("# {w}")))
        })
        .map(|l| l.strip_prefix("# ").filter(|t| t.contains(" = ") || t.starts_with("[[")).unwrap_or(l))
        .map(|l| format!("{l}\n"))
        .collect();
    let file = scratch.write("all.toml", sink).display().to_string();
    let said = content(&[&program, "check", &file]);
    assert!(said.contains("journald") && said.contains("events.jsonl"), "{said}");
}

#[test]
fn make_installs_every_file() {
    let makefile = std::fs::read_to_string(packaging("../Makefile")).expect("Makefile");
    for entry in std::fs::read_dir(packaging("")).expect("packaging") {
        let name = entry.expect("entry").file_name().into_string().expect("name");
        assert!(makefile.contains(&name), "make install leaves out packaging/{name}");
    }
}
