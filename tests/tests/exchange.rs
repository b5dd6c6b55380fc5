//! Export, import and comparison of two hosts' ledgers (issue 3, Ledger).

use counterfoil_tests::program::{counterfoil, json_lines};
use counterfoil_tests::{Observed, Run, Scratch, check, fixtures, peers, wait};
use std::path::Path;
use std::time::Duration;

fn text(path: impl AsRef<Path>) -> String {
    path.as_ref().to_str().expect("UTF-8").to_owned()
}

/// Each end of one TCP connection under a `counterfoil run` of its own, as two hosts would be: two keys, two ledgers.
/// Their state folders are `server` and `client`.
fn two_hosts() -> Scratch {
    let here = Scratch::new();
    let port = peers::free_port().to_string();
    let end = text(fixtures::folder().join("tcp_end"));
    let listening = text(here.at("listening"));
    let run = |state: &str, words: &[&str]| {
        let words = std::iter::once(&end[..]).chain(words.iter().copied());
        Observed::new(words).option("--state").option(here.at(state))
    };
    let server = run("server", &["listen", "127.0.0.1", &port, &format!("file={listening}")]).start();
    wait::until(Duration::from_secs(20), "the server listens", || {
        here.at("listening").exists().then_some(())
    });
    run("client", &["connect", "127.0.0.1", &port, "500000", "5000"]).go().well();
    let server = server.finish();
    check!(server, server.status.success(), "the server failed");
    here
}

fn transfers(state: &Path, more: &[&str]) -> Run {
    let state = text(state);
    counterfoil(&[&["transfers", "--state", &state], more].concat())
}

#[test]
fn what_one_host_sent_another_received() {
    let here = two_hosts();
    let (server, client) = (here.at("server"), here.at("client"));
    let file = text(here.at("client.jsonl"));
    let run = transfers(&client, &["--export", &file]).well();
    check!(run, run.stdout.contains("1 transfers exported"), "want one transfer");
    // It is what --json says, for jq and for people.
    let exported = std::fs::read_to_string(&file).expect("export");
    let listed = transfers(&client, &["--json"]).stdout;
    let id = serde_json::from_str::<serde_json::Value>(listed.lines().next().expect("a line")).expect("JSON")
        ["id"]
        .clone();
    assert!(exported.lines().nth(1).expect("a transfer").contains(id.as_str().expect("id")), "{exported}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&file).expect("export").permissions());
    assert_eq!(mode & 0o777, 0o600, "it tells who sent what");

    let before = transfers(&server, &["--json"]).stdout;
    let nothing = transfers(&server, &["--compare"]);
    check!(nothing, nothing.code() == 1 && nothing.stderr.contains("nothing can be compared"), "silence");
    for _ in 0..2 {
        let run = transfers(&server, &["--import", &file]).well();
        check!(run, run.stdout.contains("1 transfers of "), "want one transfer");
    }
    assert_eq!(transfers(&server, &["--json"]).stdout, before, "an import got among our own");
    let imported = transfers(&server, &["--imported", "--json"]).well();
    let lines = json_lines(&imported);
    check!(imported, lines.len() == 1 && lines[0]["id"] == id, "want the other host's transfer, once");
    check!(imported, lines[0]["imported_from"].is_string(), "not from whom");

    let run = transfers(&server, &["--compare", "--json"]);
    let pairs = json_lines(&run);
    check!(run, pairs.len() == 1, "want one pair");
    check!(
        run,
        pairs[0]["here"]["end"] == "destination" && pairs[0]["there"]["end"] == "origin",
        "wrong ends"
    );
    check!(run, pairs[0]["here"]["bytes"] == 500_000 && pairs[0]["there"]["bytes"] == 500_000, "wrong bytes");
    // Tags under two keys: nobody can know, and nobody says so.
    check!(run, pairs[0]["equal"].is_null() && run.code() == 1, "more was said than is known");
}

#[test]
fn damaged_and_foreign_files_are_refused_whole() {
    let here = two_hosts();
    let (server, client) = (here.at("server"), here.at("client"));
    let file = here.at("good.jsonl");
    transfers(&client, &["--export", &text(&file)]).well();
    let good = std::fs::read(&file).expect("export");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for (name, bytes) in [
        ("cut", &good[..good.len() - 20]),
        ("flipped", &flipped),
        ("empty", b""),
        ("foreign", b"{\"type\":\"manifest\",\"format\":\"other\"}\n"),
        ("random", &counterfoil_tests::scratch::payload(3, 10_000)),
    ] {
        let bad = text(here.write(name, bytes));
        let run = transfers(&server, &["--import", &bad]);
        check!(run, run.code() == 1 && run.stderr.contains(name), "{name}: it was taken, or not named");
        check!(run, !run.stderr.contains("panicked"), "{name}");
    }
    let run = transfers(&server, &["--import", "/dev/zero"]);
    check!(run, run.code() == 1, "a device was read");
    let left = transfers(&server, &["--imported"]).well();
    check!(left, left.stdout.is_empty(), "something was taken all the same");
}

#[test]
fn an_export_to_stdout_and_to_nowhere() {
    let here = two_hosts();
    let client = here.at("client");
    let run = transfers(&client, &["--export", "-"]).well();
    let lines = json_lines(&run);
    check!(
        run,
        lines.len() == 3 && lines[0]["type"] == "manifest" && lines[2]["type"] == "end",
        "not the export alone"
    );
    let run = transfers(&client, &["--export", "/nonexistent/folder/x"]);
    check!(run, run.code() == 1 && run.stderr.contains("/nonexistent/folder/x"), "it doesn't say where");
    let run = transfers(&client, &["--export", "/dev/full"]);
    check!(run, run.code() == 1 && run.stderr.contains("/dev/full"), "a full disk is not said");
    // A transfer that is filtered out is not exported.
    let run = transfers(&client, &["--export", "-", "--channel", "file"]).well();
    check!(run, json_lines(&run).len() == 2, "want none");
    let run = transfers(&client, &["--export", "-", "--import", "x"]);
    check!(run, run.code() == 2, "both at once");
}
