//! A secret to leak, and what was said of it.
//!
//! Comes in: a script that takes `secret/shadow` away. Goes out: the alarms about that. Called by the tests of egress.

use crate::report::Alarm;
use crate::sink::Sink;
use crate::{Observed, Run, Scratch, check, peers};

/// As /etc/shadow looks on a small host.
pub const SHADOW: &str = "root:$6$Vq0bnmQx1c7aK2yZ$0p9Jt1mNf3sXWq8dEoLhU5rGzKcYv7b2TnAi4Hs6QwMxRjPkZ1eDfVgBhNyCuIo:19700:0:99999:7:::\n\
    ann:$6$hT4kLw92mXpQz8Rv$Yc3nVb7KjH1gFdSaQ0wEr5TyUiOp9LkMn6BvCx2Zs4XdEw8RfTgYhJuIkOlPm3Qa:19811:0:99999:7:::\n";

/// `commands`, with `secret/shadow` to leak, of which the configuration says that it is sensitive.
pub fn with_secret(scratch: Scratch, commands: &str) -> Observed {
    configured(scratch, "", commands)
}

/// The same, with more keys of `[egress]`.
pub fn configured(scratch: Scratch, keys: &str, commands: &str) -> Observed {
    let here = scratch.path().canonicalize().expect("scratch").display().to_string();
    scratch.write("secret/shadow", SHADOW);
    let config =
        format!("[egress]\n{keys}\n[[egress.sensitive]]\npath = \"{here}/secret/*\"\nlabel = \"hashes\"\n");
    let config = scratch.write("egress.toml", config).display().to_string();
    let mut session = Observed::script(commands).option("--config").option(config);
    session.scratch = scratch;
    session
}

/// Runs `commands`, in which `$P` is the port of somebody who listens to everything.
pub fn leaking(commands: &str) -> Run {
    let sink = Sink::start();
    with_secret(Scratch::new(), commands).env("P", sink.port().to_string()).limit(120).go().well()
}

/// What was said of it.
pub fn leaks(run: &Run) -> Vec<Alarm> {
    run.report.alarms().into_iter().filter(|a| a.rule() == "sensitive-egress").collect()
}

/// The program's name.
pub fn exe(alarm: &Alarm) -> &str {
    alarm.0["process"]["exe"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("")
}

/// The file left through `program`, that certainly.
pub fn left(run: &Run, program: &str, confidence: &str) -> Alarm {
    let found = leaks(run);
    let from = |a: &&Alarm| exe(a).starts_with(program);
    // An alarm is told again when more is known.
    let alarm = found.iter().rfind(from).filter(|a| a.0["confidence"] == confidence);
    let all: Vec<_> = found.iter().map(|a| (exe(a).to_owned(), a.0["confidence"].to_string())).collect();
    check!(run, alarm.is_some(), "no {confidence} sensitive-egress by {program}, but {all:?}");
    let alarm = alarm.expect("checked").clone();
    let path = run.scratch.path().canonicalize().expect("scratch").join("secret/shadow");
    check!(run, alarm.0["file"]["path"] == path.to_string_lossy().as_ref(), "{}", alarm.0["file"]);
    check!(run, alarm.0["file"]["label"] == "hashes", "{}", alarm.0["file"]);
    check!(run, alarm.0["analytic"] == "AN0989" && alarm.0["technique"] == "T1041", "{}", alarm.0);
    let severity = if confidence == "proven" { "critical" } else { "high" };
    check!(run, alarm.0["severity"] == severity, "{}", alarm.0["severity"]);
    check!(run, alarm.0["connection"]["remote"].is_string(), "{}", alarm.0["connection"]);
    let chain = alarm.0["evidence"]["chain"].as_array().cloned().unwrap_or_default();
    check!(run, chain.last().is_some_and(|s| s["did"] == "sent"), "{}", alarm.0["evidence"]);
    alarm
}

/// The programs of the chain, in order, without repeats.
pub fn chain(alarm: &Alarm) -> Vec<String> {
    let steps = alarm.0["evidence"]["chain"].as_array().cloned().unwrap_or_default();
    let name =
        |v: &serde_json::Value| v["exe"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("").to_owned();
    let mut names: Vec<String> = steps.iter().flat_map(|s| [name(&s["process"]), name(&s["to"])]).collect();
    names.retain(|n| !n.is_empty());
    names.dedup();
    names
}

/// A program in Python, as the words of a shell.
pub fn in_python(code: &str) -> String {
    format!("{} -c \"{}\"", peers::PYTHON, code.replace('"', "\\\""))
}
