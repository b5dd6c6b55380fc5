//! A real rsyslogd with ports, a socket and certificates of its own, which writes what it understood as JSON.

use crate::scratch::Scratch;
use crate::{peers, wait};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Debian's modules.
const MODULES: &str = "/usr/lib/x86_64-linux-gnu/rsyslog";

/// The ways in, and the name that its output has for each.
pub const WAYS: [&str; 4] = ["imuxsock", "imudp", "tcp", "tls"];

/// The receiver.
pub struct Rsyslog {
    /// Its folder: socket `log`, output `out`, certificates.
    pub scratch: Scratch,
    /// Ports of UDP, TCP and TLS.
    pub ports: [u16; 3],
    child: Option<Child>,
}

/// One line as it was understood.
pub struct Line {
    /// One of [`WAYS`].
    pub way: String,
    /// All that was written about it.
    pub all: Value,
    /// The structured data, as rsyslog's own parser has it: element, parameter, value.
    pub data: Value,
}

impl Line {
    /// A parameter of our own element.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.data["counterfoil@32473"][name].as_str()
    }

    /// `meta`'s sequenceId, which rsyslog writes in small letters.
    pub fn sequence(&self) -> u64 {
        self.data["meta"]["sequenceid"].as_str().and_then(|s| s.parse().ok()).unwrap_or(0)
    }
}

/// Why it can't be had here, if it can't.
pub fn missing() -> Option<&'static str> {
    let there = |module: &str| std::path::Path::new(MODULES).join(module).exists();
    match peers::missing(&["rsyslogd", "openssl"]) {
        None if !there("lmnsd_ossl.so") => Some("rsyslog-openssl"),
        None if !there("mmpstrucdata.so") => Some("rsyslog's mmpstrucdata"),
        other => other,
    }
}

impl Rsyslog {
    /// With its configuration written, not started.
    pub fn new() -> Self {
        let scratch = Scratch::new();
        peers::authority(&scratch, &["localhost", "client"]);
        let ports = [peers::free_port(), peers::free_port(), peers::free_port()];
        let rsyslog = Self { scratch, ports, child: None };
        rsyslog.scratch.write("rsyslog.conf", rsyslog.configuration());
        rsyslog
    }

    fn configuration(&self) -> String {
        let dir = self.scratch.path().display();
        let [udp, tcp, tls] = self.ports;
        format!(
            r#"
global(workDirectory="{dir}" maxMessageSize="64k" net.enableDNS="off"
  defaultNetstreamDriverCAFile="{dir}/ca.pem"
  defaultNetstreamDriverCertFile="{dir}/localhost.pem" defaultNetstreamDriverKeyFile="{dir}/localhost.key")
# What it has read it writes, also when it is stopped.
main_queue(queue.timeoutShutdown="20000" queue.size="200000")
module(load="imuxsock" sysSock.use="off")
module(load="imudp")
# One module for each: imtcp has one way to speak for all its ports.
module(load="imptcp")
module(load="imtcp" streamDriver.name="ossl" streamDriver.mode="1" streamDriver.authMode="x509/name"
  permittedPeer=["client"])
module(load="mmpstrucdata")
input(type="imuxsock" socket="{dir}/log" useSpecialParser="off" useSysTimeStamp="off" ignoreTimestamp="off" rateLimit.interval="0")
input(type="imudp" address="127.0.0.1" port="{udp}")
input(type="imptcp" address="127.0.0.1" port="{tcp}" name="tcp")
input(type="imtcp" address="127.0.0.1" port="{tls}" name="tls")
template(name="t" type="list" option.jsonf="on") {{
  property(outname="way" name="inputname" format="jsonf")
  property(outname="app" name="app-name" format="jsonf")
  property(outname="msgid" name="msgid" format="jsonf")
  property(outname="severity" name="syslogseverity" format="jsonf")
  property(outname="facility" name="syslogfacility-text" format="jsonf")
  property(outname="time" name="timereported" dateFormat="rfc3339" format="jsonf")
  property(outname="data" name="$!rfc5424-sd" format="jsonf")
  property(outname="text" name="msg" format="jsonf")
}}
if $app-name == "counterfoil" then {{
  action(type="mmpstrucdata")
  action(type="omfile" file="{dir}/out" template="t")
}} else {{
  # Lines that are none of ours: something was split or forged.
  if $syslogtag startswith "rsyslogd" then stop
  action(type="omfile" file="{dir}/strange")
}}
"#
        )
    }

    /// Starts it, or starts it again. Returns when its sockets are there.
    pub fn start(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.scratch.at("rsyslogd.log"));
        let log = log.expect("log");
        let program = peers::find("rsyslogd").expect("rsyslogd");
        let child = Command::new(program)
            .arg("-n")
            .arg("-f")
            .arg(self.scratch.at("rsyslog.conf"))
            .arg("-i")
            .arg(self.scratch.at("pid"))
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log"))
            .stderr(log)
            .spawn()
            .expect("rsyslogd");
        self.child = Some(child);
        let tcp = self.ports[1];
        wait::until(Duration::from_secs(20), self.shown("rsyslogd listens"), || {
            let there = std::net::TcpStream::connect(("127.0.0.1", tcp)).is_ok() && self.socket().exists();
            there.then_some(())
        });
    }

    /// Its Unix socket, as `/dev/log` is one.
    pub fn socket(&self) -> PathBuf {
        self.scratch.at("log")
    }

    /// Stops it in order.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(child.id() as i32).expect("pid");
        kill_process(pid, Signal::TERM).expect("kill");
        let ended = wait::poll(Duration::from_secs(30), || child.try_wait().expect("wait"));
        if ended.is_none() {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{}", self.shown("rsyslogd did not end"));
        }
    }

    /// What it understood so far.
    pub fn lines(&self) -> Vec<Line> {
        let text = std::fs::read_to_string(self.scratch.at("out")).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let line = |text: &str| {
            let all: Value = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
            let data = all["data"].as_str().and_then(|d| serde_json::from_str(d).ok()).unwrap_or(Value::Null);
            Line { way: all["way"].as_str().unwrap_or_default().to_owned(), data, all }
        };
        whole.lines().map(line).collect()
    }

    /// How many lines it understood so far.
    pub fn count(&self) -> usize {
        let bytes = std::fs::read(self.scratch.at("out")).unwrap_or_default();
        memchr::memchr_iter(b'\n', &bytes).count()
    }

    /// Lines that were not ours: what a split or a forgery would leave.
    pub fn strange(&self) -> String {
        std::fs::read_to_string(self.scratch.at("strange")).unwrap_or_default()
    }

    /// For a failing test.
    pub fn shown(&self, what: &str) -> String {
        let log = std::fs::read_to_string(self.scratch.at("rsyslogd.log")).unwrap_or_default();
        format!("{what}\nfolder: {}\nrsyslogd said:\n{log}", self.scratch.path().display())
    }
}

impl Default for Rsyslog {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
