//! Altered on the path (issue 2, item 2): a bridge between two network namespaces changes TCP payload
//! and puts the checksums right, so that neither kernel sees anything.

use counterfoil_tests::{Observed, Run, check, fixture, need, skip, truth};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Two namespaces, and a third between them whose bridge we are.
struct Path {
    names: [String; 3],
    bridge: Option<Child>,
}

impl Path {
    /// None: this kernel, or this user, can't have namespaces.
    fn make(offsets: &str) -> Option<Self> {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let tag = format!("cf{}x{number}", std::process::id());
        let mut path = Self { names: ["a", "m", "b"].map(|end| format!("{tag}{end}")), bridge: None };
        let [a, m, b] = &path.names;
        let mut commands: Vec<String> = path.names.iter().map(|n| format!("netns add {n}")).collect();
        for (end, inner, address) in [(a, "m0", "10.77.0.1"), (b, "m1", "10.77.0.2")] {
            commands.extend([
                format!("-n {end} link add e0 type veth peer name {inner} netns {m}"),
                format!("-n {end} addr add {address}/24 dev e0"),
                format!("-n {end} link set e0 up"),
                format!("-n {end} link set lo up"),
                format!("-n {m} link set {inner} up"),
                // No segment larger than a frame, and sums in the frame, not left to a card that isn't there.
                format!("netns exec {end} ethtool -K e0 tx off tso off gso off gro off"),
                format!("netns exec {m} ethtool -K {inner} tx off tso off gso off gro off"),
            ]);
        }
        for command in &commands {
            let done = Command::new("ip").args(command.split(' ')).output().ok()?;
            if !done.status.success() {
                eprintln!("ip {command}: {}", String::from_utf8_lossy(&done.stderr));
                return None;
            }
        }
        let mut bridge = Command::new("ip")
            .args(["netns", "exec", m, &fixture("onpath"), "m0", "m1", "5000", offsets])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(bridge.stdout.take()?).read_line(&mut line).ok()?;
        path.bridge = Some(bridge);
        assert_eq!(line, "ready\n", "the bridge");
        Some(path)
    }

    /// Sends `size` bytes from one end to the other, both observed.
    fn send(&self, size: u64) -> Run {
        let [a, _, b] = &self.names;
        Observed::script(&format!(
            "ip netns exec {a} \"$FIXTURES/tcp_end\" listen 10.77.0.1 5000 file=ready & server=$!\n\
             await test -e ready\n\
             ip netns exec {b} \"$FIXTURES/tcp_end\" connect 10.77.0.1 5000 {size} 5000\nwait $server"
        ))
        .go()
        .well()
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        if let Some(bridge) = &mut self.bridge {
            let _ = bridge.kill();
            let _ = bridge.wait();
        }
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

#[test]
fn nothing_changed() {
    need!("ip", "ethtool");
    let Some(path) = Path::make("-") else { skip!("no network namespaces here") };
    let run = path.send(100_000);
    truth::blameless(&run);
    truth::holds(&run, &["tcp 100000 100000 intact"]);
}

#[test]
fn one_bit() {
    need!("ip", "ethtool");
    for offset in [0u64, 16_383, 16_384, 70_000, 99_999] {
        let Some(path) = Path::make(&offset.to_string()) else { skip!("no network namespaces here") };
        let run = path.send(100_000);
        truth::sound(&run);
        let transfers = run.report.on("tcp");
        check!(run, transfers.len() == 1 && transfers[0].verdict() == "altered", "want one altered transfer");
        let start = offset / 16_384 * 16_384;
        let want = [(start, 16_384.min(100_000 - start))];
        check!(run, transfers[0].altered() == want, "want {want:?}");
        check!(run, run.report.fired("payload-altered"), "no alarm");
    }
}

#[test]
fn several_bits() {
    need!("ip", "ethtool");
    let Some(path) = Path::make("10,50000,50001,99999") else { skip!("no network namespaces here") };
    let run = path.send(100_000);
    let transfers = run.report.on("tcp");
    check!(run, transfers.len() == 1, "want one transfer");
    let want = [(0, 16_384), (49_152, 16_384), (98_304, 1_696)];
    check!(run, transfers[0].altered() == want, "want {want:?}");
}
