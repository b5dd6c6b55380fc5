//! The alarm list as its users have it: what is in it, what they do with it, and that none of it is lost.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::program::{self, json_lines};
use counterfoil_tests::{Run, Scratch, check, fixtures, need, skip, wait};
use serde_json::Value;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// `counterfoil alarms …` on the daemon's state directory.
fn alarms(daemon: &Daemon, words: &[&str]) -> Run {
    on(&daemon.state().display().to_string(), words)
}

fn on(state: &str, words: &[&str]) -> Run {
    program::counterfoil(&[&["alarms", "--state", state], words].concat())
}

/// The alarms in whatever state.
fn listed(daemon: &Daemon) -> Vec<Value> {
    json_lines(&alarms(daemon, &["list", "--all", "--json"]).well())
}

/// Lets a program that is linked statically be started by an observed one: one finding.
fn provoke(daemon: &Daemon) {
    let program = fixtures::fixture("source_static");
    let run = daemon.observing_fixture(&format!("start execve {program}")).go();
    check!(run, run.code() != 99, "the fixture is broken");
}

/// The one alarm about it, once it was counted so often.
fn counted(daemon: &Daemon, count: u64) -> Value {
    wait::until(PATIENCE, daemon.shown("the alarm"), || {
        let all = listed(daemon);
        assert!(all.len() <= 1, "{}", daemon.shown("one alarm at most"));
        all.into_iter().next().filter(|a| a["count"].as_u64() >= Some(count))
    })
}

fn states(alarm: &Value) -> Vec<&str> {
    alarm["history"].as_array().expect("history").iter().map(|c| c["to"].as_str().expect("to")).collect()
}

#[test]
fn an_alarm_from_its_rise_to_its_end() {
    let daemon = Daemon::start("");
    provoke(&daemon);
    let alarm = counted(&daemon, 1);
    let id = alarm["id"].as_str().unwrap().to_owned();
    assert_eq!((&alarm["state"], &alarm["rule"]), (&"unacknowledged".into(), &"coverage-lost".into()));
    // By the end of its id, which is what tells alarms of one moment apart.
    let end = &id[id.len() - 6..];
    let run = alarms(&daemon, &["ack", end, "--comment", "ticket 4711", "--json"]).well();
    let acknowledged = &json_lines(&run)[0];
    assert_eq!(acknowledged["state"], "acknowledged");
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(acknowledged["changed"]["uid"], uid, "who asked");
    assert_eq!(acknowledged["changed"]["comment"], "ticket 4711");
    // The sinks hear of it.
    daemon.until_reported("the acknowledgement", |r| {
        r.alarms()
            .iter()
            .any(|a| a.0["state"] == "acknowledged" && a.0["id"] == id && a.0["changed"]["uid"] == uid)
    });
    let again = alarms(&daemon, &["ack", &id]);
    check!(
        again,
        again.code() == 1 && again.stderr.contains("acknowledged already"),
        "twice is once too often"
    );

    // It recurs: somebody has to look again.
    provoke(&daemon);
    let alarm = counted(&daemon, 2);
    assert_eq!(alarm["state"], "unacknowledged");
    daemon.until_reported("that it came back", |r| {
        r.alarms().iter().any(|a| a.0["state"] == "unacknowledged" && a.0["count"] == 2)
    });

    // Shelved: it is counted, off the list, and back by itself.
    alarms(&daemon, &["shelve", end, "--for", "2s"]).well();
    let run = alarms(&daemon, &[]).well();
    check!(run, run.stdout.is_empty() && run.stderr.contains("no alarm"), "off the list");
    provoke(&daemon);
    let alarm = counted(&daemon, 3);
    assert_eq!(alarm["state"], "shelved");
    daemon.until_reported("that its time is over", |r| {
        r.alarms().iter().any(|a| a.0["state"] == "unacknowledged" && a.0["count"] == 3)
    });

    alarms(&daemon, &["clear", end]).well();
    let shown = json_lines(&alarms(&daemon, &["show", end, "--json"]).well()).remove(0);
    assert_eq!(
        states(&shown),
        ["unacknowledged", "acknowledged", "unacknowledged", "shelved", "unacknowledged", "normal"]
    );
    assert_eq!(shown["history"][4]["uid"], Value::Null, "nobody asked for it");
    let text = alarms(&daemon, &["show", end]).well();
    for words in
        [&id, "next ", "history", "unacknowledged → acknowledged  acknowledge, ", ": ticket 4711", "reason"]
    {
        check!(text, text.stdout.contains(words), "no {words:?}");
    }

    // Held for as long as somebody says, and only with a reason.
    let no_reason = alarms(&daemon, &["suppress", end]);
    check!(no_reason, no_reason.code() == 2, "by design means that somebody knows why");
    alarms(&daemon, &["out-of-service", end, "--comment", "new build of it next week"]).well();
    let refused = alarms(&daemon, &["clear", end]);
    check!(refused, refused.code() == 1 && refused.stderr.contains("in-service first"), "held");
    alarms(&daemon, &["in-service", end]).well();
    assert_eq!(counted(&daemon, 3)["state"], "normal");
}

#[test]
fn what_was_said_is_kept_through_kill_9() {
    let mut daemon = Daemon::start("");
    provoke(&daemon);
    let id = counted(&daemon, 1)["id"].as_str().unwrap().to_owned();
    for (round, (word, state)) in
        [("ack", "acknowledged"), ("shelve", "shelved"), ("unshelve", "unacknowledged"), ("clear", "normal")]
            .into_iter()
            .enumerate()
    {
        alarms(&daemon, &[word, &id, "--comment", &format!("round {round}")]).well();
        daemon.kill();
        let alarm = counted(&daemon, 1);
        assert_eq!((&alarm["state"], &alarm["id"]), (&state.into(), &id.as_str().into()), "{word}");
        daemon.launch();
        let alarm = listed(&daemon).into_iter().find(|a| a["id"] == id.as_str()).expect("the alarm");
        assert_eq!((&alarm["state"], &alarm["count"]), (&state.into(), &1.into()), "{word}, and back");
        let shown = json_lines(&alarms(&daemon, &["show", &id, "--json"]).well()).remove(0);
        assert_eq!(shown["history"].as_array().unwrap().last().unwrap()["comment"], format!("round {round}"));
    }
}

#[test]
fn without_a_daemon_the_ledger_takes_it_and_the_next_one_tells() {
    let mut daemon = Daemon::start("");
    provoke(&daemon);
    let id = counted(&daemon, 1)["id"].as_str().unwrap().to_owned();
    daemon.stop();
    let run = alarms(&daemon, &["ack", &id, "--comment", "while it was away"]).well();
    check!(run, run.stdout.contains("acknowledged"), "it says what it is now");
    daemon.launch();
    daemon.until_reported("what was done meanwhile", |r| {
        r.alarms().iter().any(|a| {
            a.0["id"] == id
                && a.0["state"] == "acknowledged"
                && a.0["changed"]["comment"] == "while it was away"
        })
    });
}

#[test]
fn one_program_owns_the_list() {
    let daemon = Daemon::start("");
    let state = daemon.state().display().to_string();
    let socket = daemon.scratch.at("other").display().to_string();
    let second = program::counterfoil(&["daemon", "--state", &state, "--socket", &socket]);
    check!(second, second.code() == 1 && second.stderr.contains("in use by another"), "two on one list");
    // A run beside it keeps its alarms, too.
    provoke(&daemon);
    let first = counted(&daemon, 1);
    let program = fixtures::fixture("start_static");
    let start = fixtures::fixture("start");
    let run = program::counterfoil(&["run", "--quiet", "--state", &state, "--", &start, "execve", &program]);
    check!(run, run.code() == 7, "the host was disturbed");
    let all = listed(&daemon);
    assert_eq!(all.len(), 2, "{all:#?}");
    assert!(all.iter().any(|a| a["id"] == first["id"]));
}

#[test]
fn filters() {
    let scratch = Scratch::new();
    let state = scratch.at("state").display().to_string();
    let tampered = "export LD_PRELOAD=\"$LD_PRELOAD:$0\" TAMPER=tls-out:flip:20000; exec \"$@\"";
    let tls = fixtures::fixture("tls");
    let words = [&tls, "1.3", "-", "write", "read", "50000", "5000"];
    let library = fixtures::fixture("tamper.so");
    let run =
        [&["run", "--quiet", "--state", &state, "--", "sh", "-c", tampered, &library], &words[..]].concat();
    let run = program::counterfoil(&run);
    check!(run, run.code() == 0, "the host was disturbed");
    let count = |words: &[&str]| {
        let run = on(&state, &[&["list", "--json"], words].concat()).well();
        json_lines(&run).len()
    };
    let rules: Vec<String> = json_lines(&on(&state, &["--json"]).well())
        .iter()
        .map(|a| a["rule"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        rules.iter().any(|r| r == "payload-altered") && rules.iter().any(|r| r == "cipher-mismatch"),
        "{rules:?}"
    );
    let all = rules.len();
    assert_eq!(count(&["--rule", "payload-altered"]), 1);
    assert_eq!(count(&["--rule", "*-*"]), all);
    assert_eq!(count(&["--severity", "critical"]), count(&["--severity", "info"]) - lesser(&state));
    assert_eq!(count(&["--analytic", "an0703"]), all);
    assert_eq!(count(&["--analytic", "dc0109"]), 0);
    assert_eq!(count(&["--exe", "tls"]), count(&["--exe", &tls]));
    assert!(count(&["--exe", "tls"]) >= 1);
    assert_eq!(count(&["--exe", "ls"]), 0, "a name's end is none");
    assert!(count(&["--destination", "127.0.0.1"]) >= 1);
    assert_eq!(count(&["--destination", "127.0.0"]), 0);
    assert_eq!(count(&["--destination", "127.0.*"]), count(&["--destination", "127.0.0.1"]));
    assert_eq!(count(&["--user", &rustix::process::getuid().as_raw().to_string()]), all);
    assert_eq!(count(&["--since", "1h"]), all);
    assert_eq!(count(&["--since", "2100-01-01T00:00:00Z"]), 0);
    assert_eq!(count(&["--status", "normal,shelved"]), 0);
    assert_eq!(count(&["--limit", "1"]), 1);
    for hostile in ["'; DROP TABLE alarms; --", "[", "*]", "%", "\u{0}"] {
        if !hostile.contains('\0') {
            assert_eq!(count(&["--exe", hostile]), 0, "{hostile}");
        }
    }
    // All that a filter lets through, at once.
    let run = on(&state, &["ack", "--severity", "info"]).well();
    check!(run, run.stdout.lines().count() == all, "each of them");
    assert_eq!(count(&["--status", "acknowledged"]), all);
    // The strip of the blocks, and where.
    let altered = json_lines(&on(&state, &["--rule", "payload-altered", "--json"]).well()).remove(0);
    let shown = on(&state, &["show", altered["id"].as_str().unwrap()]).well();
    check!(
        shown,
        shown.stdout.contains("█▒██") && shown.stdout.contains("bytes 16384–32767"),
        "no strip of blocks"
    );
    let stats = json_lines(&on(&state, &["stats", "--json"]).well()).remove(0);
    assert_eq!(stats["states"]["acknowledged"], all);
    assert_eq!(stats["last_10_minutes"], all);
    assert_eq!(
        stats["standing"].as_object().unwrap().values().filter_map(Value::as_u64).sum::<u64>(),
        all as u64
    );
}

/// How many are less than critical.
fn lesser(state: &str) -> usize {
    let all = json_lines(&on(state, &["list", "--json"]).well());
    all.iter().filter(|a| a["severity"] != "critical").count()
}

#[test]
fn what_can_not_be_is_said() {
    let daemon = Daemon::start("");
    provoke(&daemon);
    let id = counted(&daemon, 1)["id"].as_str().unwrap().to_owned();
    for (words, code, says) in [
        (vec!["show", "ffffffff"], 1, "no alarm's id begins or ends with"),
        (vec!["ack", "xyz"], 1, "hexadecimal"),
        (vec!["ack"], 2, "name an alarm"),
        (vec!["ack", &id, "--rule", "x"], 2, "not both"),
        (vec!["shelve", &id, "--for", "400d"], 1, "shelving_limit"),
        (vec!["shelve", &id, "--for", "soon"], 2, ""),
        (vec!["unshelve", &id], 1, "not shelved"),
        (vec!["ack", "--rule", "no-such-rule"], 1, "no alarm fits"),
        (vec!["list", "--status", "open"], 2, ""),
        (vec!["ack", &id, "--watch"], 2, "--watch"),
    ] {
        let run = alarms(&daemon, &words);
        check!(run, run.code() == code && run.stderr.contains(says), "want {code} and {says:?}");
    }
    let nowhere = daemon.scratch.at("nowhere").display().to_string();
    for words in [vec![], vec!["ack", "01"], vec!["stats"]] {
        let run = on(&nowhere, &words);
        check!(run, run.code() == 1 && run.stderr.contains("holds no ledger"), "there is none");
        assert!(!std::path::Path::new(&nowhere).exists(), "and none is made");
    }
}

#[test]
fn suppressed_by_design() {
    const DESIGN: &str = "[[alarms.suppress]]\nrule = \"coverage-*\"\nexe = \"start\"\nowner = \"ann\"\n\
        reason = \"its own disk only\"\nexpires = \"2100-12-31\"";
    let mut daemon = Daemon::start(DESIGN);
    let state = |daemon: &Daemon| counted(daemon, 1)["state"].as_str().unwrap().to_owned();
    let becomes = |daemon: &Daemon, wanted: &str| {
        wait::until(PATIENCE, daemon.shown(wanted), || (state(daemon) == wanted).then_some(()));
    };
    let told = |daemon: &Daemon, state: &str| {
        daemon
            .report()
            .alarms()
            .iter()
            .filter(|a| a.0["state"] == state && a.rule() == "coverage-lost")
            .count()
    };
    provoke(&daemon);
    assert_eq!(state(&daemon), "suppressed");
    let id = counted(&daemon, 1)["id"].as_str().unwrap().to_owned();
    let run = alarms(&daemon, &[]).well();
    check!(
        run,
        run.stdout.is_empty() && run.stderr.contains("1 held off the list"),
        "off the list, and said"
    );
    let shown = json_lines(&alarms(&daemon, &["show", &id, "--json"]).well()).remove(0);
    assert_eq!(states(&shown), ["unacknowledged", "suppressed"]);
    let by = &shown["history"][1];
    assert_eq!((&by["user"], &by["uid"]), (&"ann".into(), &Value::Null));
    assert_eq!(by["comment"], "its own disk only (ann, until 2100-12-31)");
    let refused = alarms(&daemon, &["unsuppress", &id]);
    check!(
        refused,
        refused.code() == 1 && refused.stderr.contains("[[alarms.suppress]]"),
        "not by an operator"
    );
    provoke(&daemon);
    assert_eq!(counted(&daemon, 2)["state"], "suppressed");

    // Not any more: it is back, and told. Again: both, too.
    daemon.reload_with("");
    becomes(&daemon, "unacknowledged");
    daemon.until_reported("that it is back", |r| r.fired("coverage-lost"));
    assert_eq!(told(&daemon, "suppressed"), 0, "nobody heard of it before");
    alarms(&daemon, &["ack", &id]).well();
    daemon.reload_with(DESIGN);
    becomes(&daemon, "suppressed");
    wait::until(PATIENCE, daemon.shown("told"), || (told(&daemon, "suppressed") == 1).then_some(()));
    // A daemon that is killed, and one that comes back with another configuration.
    daemon.kill();
    daemon.launch();
    assert_eq!(state(&daemon), "suppressed");
    daemon.again_with("");
    becomes(&daemon, "unacknowledged");

    // What it would have held back can be known before.
    let place = daemon.state().display().to_string();
    let dry = |text: &str| {
        let file = daemon.scratch.write("new.toml", text).display().to_string();
        program::counterfoil(&["check", "--dry-run", "--state", &place, &file]).well()
    };
    let run = dry(DESIGN);
    for words in
        ["1 sort of alarms is suppressed", "dry run: 1 of 1 alarms", "1 alarms, 2 occurrences", &id, "ann"]
    {
        check!(run, run.stdout.contains(words), "{words}");
    }
    let run = dry(&DESIGN.replace("\"start\"", "\"other\""));
    check!(run, run.stdout.contains("dry run: 0 of 1 alarms"), "it is about another");
}

#[test]
fn watching() {
    let daemon = Daemon::start("");
    provoke(&daemon);
    let id = counted(&daemon, 1)["id"].as_str().unwrap().to_owned();
    let state = daemon.state().display().to_string();
    let watch = program::command(&["alarms", "--state", &state, "--watch", "--json"]).start();
    let seen = |count: usize| {
        wait::until(PATIENCE, daemon.shown("lines"), || {
            let text = std::fs::read_to_string(watch.scratch.at("stdout")).unwrap_or_default();
            let lines: Vec<Value> = text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
            (lines.len() >= count).then_some(lines)
        })
    };
    assert_eq!(seen(1)[0]["state"], "unacknowledged");
    alarms(&daemon, &["ack", &id]).well();
    let lines = seen(2);
    assert_eq!((&lines[1]["state"], &lines[1]["id"]), (&"acknowledged".into(), &id.as_str().into()));
    // It goes off the list: that is news, too.
    alarms(&daemon, &["shelve", &id]).well();
    assert_eq!(seen(3)[2]["state"], "shelved");
}

/// A host with a group `counterfoil`: the daemon sees an /etc/group of the test's own.
#[test]
fn root_and_the_group_may_and_nobody_else() {
    need!("unshare", "setpriv", "mount");
    if !rustix::process::geteuid().is_root() {
        skip!("needs root: another user is to be refused");
    }
    let scratch = Scratch::new();
    let group = scratch.write("group", "root:x:0:\ncounterfoil:x:47110:\n");
    let at = |name: &str| scratch.at(name).display().to_string();
    let (state, socket) = (at("state"), at("socket"));
    // Others have to come through to the socket.
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = counterfoil_tests::product::program();
    // For who is nobody to start it: its folder may be closed to them.
    let copy = scratch.at("counterfoil");
    std::fs::copy(program, &copy).unwrap();
    let script = format!("mount --bind {} /etc/group && exec \"$@\"", group.display());
    let mut daemon = Command::new("unshare")
        .args(["-m", "sh", "-c", &script, "sh"])
        .arg(program)
        .args(["daemon", "--state", &state, "--socket", &socket])
        .env_remove("LD_PRELOAD")
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(scratch.at("log")).unwrap())
        .spawn()
        .unwrap();
    let log = || std::fs::read_to_string(scratch.at("log")).unwrap_or_default();
    let control = scratch.at("socket.control");
    let stands = wait::poll(PATIENCE, || control.exists().then_some(()));
    let start = fixtures::fixture("start");
    let statically = fixtures::fixture("start_static");
    let seen = stands.and_then(|()| {
        // Again and again: the daemon may not listen to programs yet.
        wait::poll(PATIENCE, || {
            program::counterfoil(&["exec", "--socket", &socket, "--", &start, "execve", &statically]);
            let run = program::counterfoil(&["alarms", "--socket", &socket, "--json"]);
            json_lines(&run).into_iter().next().filter(|_| run.code() == 0)
        })
    });
    let as_user = |groups: &str, words: &[&str]| {
        Command::new("setpriv")
            .args(["--reuid", "65534", "--regid", "65534", "--groups", groups])
            .arg(&copy)
            .args(["alarms", "--socket", &socket])
            .args(words)
            .output()
            .unwrap()
    };
    let id = seen.as_ref().and_then(|a| a["id"].as_str()).unwrap_or("0").to_owned();
    let stranger = as_user("65534", &["ack", &id]);
    let reading = as_user("65534", &[]);
    let member = as_user("47110", &["ack", &id, "--comment", "by a member", "--json"]);
    let shown = as_user("47110", &["show", &id, "--json"]);
    let stats = as_user("47110", &["stats"]);
    let _ = daemon.kill();
    let _ = daemon.wait();
    assert!(seen.is_some(), "no alarm: {}", log());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for output in [stranger, reading] {
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        assert!(text(&output.stderr).contains("group counterfoil"), "{}", text(&output.stderr));
    }
    assert!(member.status.success(), "{}{}", text(&member.stderr), log());
    let alarm: Value = serde_json::from_slice(&member.stdout).unwrap();
    assert_eq!((&alarm["state"], &alarm["changed"]["uid"]), (&"acknowledged".into(), &65534.into()));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["history"][1]["comment"], "by a member");
    assert!(text(&stats.stdout).contains("1 acknowledged"), "{}", text(&stats.stderr));
}

/// A daemon of a user's own: theirs and root's, and nobody else's.
#[test]
fn the_owner_of_a_private_daemon_may() {
    need!("setpriv");
    if !rustix::process::geteuid().is_root() {
        skip!("needs root: to be two other users");
    }
    let scratch = Scratch::new();
    use std::os::unix::fs::PermissionsExt;
    // Both users have to come through to the socket.
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let at = |name: &str| scratch.at(name).display().to_string();
    let (program, state, socket) = (at("counterfoil"), at("state"), at("socket"));
    std::fs::copy(counterfoil_tests::product::program(), &program).unwrap();
    std::fs::copy(counterfoil_tests::product::library(), at("libcounterfoil.so")).unwrap();
    std::fs::copy(fixtures::fixture("start"), at("start")).unwrap();
    std::fs::copy(fixtures::fixture("start_static"), at("start_static")).unwrap();
    let as_user = |uid: &str, words: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", uid, "--regid", uid, "--clear-groups", &program]).args(words);
        command.env_remove("LD_PRELOAD").stdin(Stdio::null());
        command
    };
    let mut daemon = as_user("64001", &["daemon", "--state", &state, "--socket", &socket])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(scratch.at("log")).unwrap())
        .spawn()
        .unwrap();
    let (start, statically) = (at("start"), at("start_static"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let id = wait::poll(PATIENCE, || {
        let exec = ["exec", "--socket", &socket, "--", &start, "execve", &statically];
        as_user("64001", &exec).output().unwrap();
        let list = as_user("64001", &["alarms", "--state", &state, "--json"]).output().unwrap();
        let alarm: Value = serde_json::from_str(text(&list.stdout).lines().next()?).ok()?;
        Some(alarm["id"].as_str()?.to_owned())
    });
    let word = id.clone().unwrap_or_default();
    let other = as_user("64002", &["alarms", "--socket", &socket, "ack", &word]).output().unwrap();
    let own = as_user("64001", &["alarms", "--state", &state, "ack", &word, "--json"]).output().unwrap();
    let root = program::counterfoil(&["alarms", "--socket", &socket, "clear", &word, "--json"]);
    let _ = daemon.kill();
    let _ = daemon.wait();
    assert!(id.is_some(), "no alarm: {}", std::fs::read_to_string(scratch.at("log")).unwrap_or_default());
    assert_eq!(other.status.code(), Some(1), "{}", text(&other.stdout));
    assert!(text(&other.stderr).contains("the user whose daemon it is"), "{}", text(&other.stderr));
    let alarm: Value = serde_json::from_slice(&own.stdout).expect("the owner's");
    assert_eq!((&alarm["state"], &alarm["changed"]["uid"]), (&"acknowledged".into(), &64001.into()));
    let alarm = json_lines(&root.well()).remove(0);
    assert_eq!((&alarm["state"], &alarm["changed"]["uid"]), (&"normal".into(), &0.into()));
}
