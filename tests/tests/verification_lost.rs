//! `verification-lost`: a service that was observed, and then isn't, through a restart of the daemon. Real curl, real nginx.

use counterfoil_tests::daemon::Daemon;
use counterfoil_tests::report::Report;
use counterfoil_tests::scratch::Scratch;
use counterfoil_tests::{need, peers, wait};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.0),
            rustix::process::Signal::TERM,
        );
        let _ = self.0.wait();
    }
}

/// nginx, observed by `daemon` or by nobody.
fn serve(folder: &Scratch, port: u16, daemon: Option<&Daemon>) -> Server {
    let nginx = peers::find("nginx").expect("nginx");
    let conf = folder.at("nginx.conf");
    let mut command = match daemon {
        Some(daemon) => {
            let mut command = Command::new(counterfoil_tests::product::program());
            command.arg("exec").arg("--socket").arg(daemon.socket()).arg("--").arg(nginx);
            command
        }
        None => Command::new(nginx),
    };
    command.arg("-c").arg(conf).env_remove("LD_PRELOAD").stdin(Stdio::null()).stderr(Stdio::null());
    let server = Server(command.spawn().expect("nginx"));
    wait::until(PATIENCE, "nginx listens", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
    });
    server
}

fn fetch(daemon: &Daemon, folder: &Scratch, port: u16) {
    let url = format!("https://localhost:{port}/f");
    let cert = folder.at("cert.pem").display().to_string();
    daemon.observing(&["curl", "-sS", "--http1.1", "--cacert", &cert, "-o", "/dev/null", &url]).go().well();
}

#[test]
fn a_service_that_is_not_observed_any_more() {
    need!("nginx", "curl");
    let folder = Scratch::new();
    let port = peers::free_port();
    peers::nginx(&folder, port, "ssl_protocols TLSv1.3;");
    folder.write("www/f", "x".repeat(100_000));
    let mut daemon = Daemon::start("");
    let server = serve(&folder, port, Some(&daemon));
    for n in 1..=4 {
        fetch(&daemon, &folder, port);
        daemon.until_reported("both directions are intact", |r| {
            r.on("tls").iter().filter(|t| t.verdict() == "intact").count() >= 2 * n
        });
    }
    drop(server);
    daemon.stop();
    daemon.launch();
    assert!(!daemon.report().fired("verification-lost"), "{}", daemon.shown("nothing is lost yet"));
    let server = serve(&folder, port, None);
    // Twice: the second one is no news.
    fetch(&daemon, &folder, port);
    fetch(&daemon, &folder, port);
    let lost = |report: &Report| -> Vec<serde_json::Value> {
        report.alarms().into_iter().filter(|a| a.rule() == "verification-lost").map(|a| a.0).collect()
    };
    // A peer on this host may yet turn up, for half a minute.
    let report = wait::until(Duration::from_secs(60), daemon.shown("four transfers without a peer"), || {
        let report = daemon.report();
        let unverified = report.on("tls").iter().filter(|t| t.verdict() == "unverified").count();
        (unverified >= 4 && lost(&report).len() >= 2).then_some(report)
    });
    assert_eq!(lost(&report).len(), 2, "{}", daemon.shown("once for each direction"));
    for alarm in lost(&report) {
        assert_eq!(alarm["severity"], "medium");
        assert_eq!(alarm["count"], 1);
        assert_eq!(alarm["reasons"], serde_json::json!(["peer-not-observed"]));
        assert_eq!(alarm["evidence"]["destination"], format!("127.0.0.1:{port}"));
        assert!(alarm["process"]["exe"].as_str().is_some_and(|e| e.ends_with("/curl")), "{alarm}");
    }
    drop(server);
}
