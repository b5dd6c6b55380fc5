//! An industrial plant's parts, real ones: an MQTT broker (mosquitto) and an operational database (PostgreSQL), each
//! private to one test.

use crate::peers::{self, find, free_port};
use crate::scratch::Scratch;
use crate::wait;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(20);

/// A process that ends with its owner.
pub struct Service(pub Child);

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until somebody listens.
pub fn listening(port: u16, what: &str) {
    wait::until(LIMIT, what, || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
}

/// mosquitto with a TLS and a plain listener on loopback.
pub struct Broker {
    /// MQTT over TLS.
    pub tls: u16,
    /// MQTT as it is.
    pub plain: u16,
    /// The certificate that its clients believe.
    pub ca: PathBuf,
    /// The words that start it.
    pub words: Vec<String>,
    log: PathBuf,
    service: Option<Service>,
}

impl Broker {
    /// Configures one in `scratch` and starts it, unobserved.
    pub fn start(scratch: &Scratch) -> Self {
        let mut broker = Self::configured(scratch);
        broker.launch();
        broker
    }

    /// Configures one: to be started by the test itself with its `words`.
    pub fn configured(scratch: &Scratch) -> Self {
        let (tls, plain) = (free_port(), free_port());
        let ca = certificate(scratch);
        let at = |name: &str| scratch.at(name).display().to_string();
        scratch.write(
            "mosquitto.conf",
            format!(
                "user root\nper_listener_settings false\nallow_anonymous true\npersistence false\nlog_dest file {2}\nlog_type all\n\
                 listener {tls} 127.0.0.1\ncafile {0}\ncertfile {0}\nkeyfile {1}\nlistener {plain} 127.0.0.1\n",
                at("cert.pem"),
                at("key.pem"),
                at("mosquitto.log")
            ),
        );
        let program = find("mosquitto").expect("mosquitto").display().to_string();
        let words = vec![program, "-c".into(), at("mosquitto.conf")];
        Self { tls, plain, ca, words, log: scratch.at("mosquitto.log"), service: None }
    }

    /// Starts it, or starts it again.
    pub fn launch(&mut self) {
        let child = Command::new(&self.words[0])
            .args(&self.words[1..])
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto");
        self.service = Some(Service(child));
        listening(self.plain, "mosquitto");
        listening(self.tls, "mosquitto over TLS");
    }

    /// Ends it.
    pub fn stop(&mut self) {
        self.service = None;
    }

    /// Waits until the broker has answered so many subscriptions of a client.
    pub fn subscribed(&self, client: &str, times: usize) {
        wait::until(LIMIT, format!("{client} subscribed"), || {
            let log = std::fs::read(&self.log).unwrap_or_default();
            let said = format!("Sending SUBACK to {client}\n");
            (String::from_utf8_lossy(&log).matches(&said).count() >= times).then_some(())
        });
    }

    /// The options of a client over TLS.
    pub fn client(&self) -> Vec<String> {
        let port = self.tls.to_string();
        let ca = self.ca.display().to_string();
        ["-h", "127.0.0.1", "-p", &port, "--cafile", &ca].iter().map(|w| (*w).to_owned()).collect()
    }

    /// Publishes a message, unobserved, over the plain listener.
    pub fn publish(&self, topic: &str, payload: &str) {
        let port = self.plain.to_string();
        let out = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-m", payload])
            .env_remove("LD_PRELOAD")
            .output()
            .expect("mosquitto_pub");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
}

/// A certificate for 127.0.0.1 that stands for itself.
pub fn certificate(scratch: &Scratch) -> PathBuf {
    if !scratch.at("cert.pem").exists() {
        let words = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout key.pem \
                     -out cert.pem -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
        peers::prepare(scratch, &words.split_whitespace().collect::<Vec<_>>());
        // Services give their privileges up before they read it.
        for name in ["key.pem", "cert.pem"] {
            std::fs::set_permissions(scratch.at(name), PermissionsExt::from_mode(0o644)).expect("mode");
        }
    }
    scratch.at("cert.pem")
}

/// PostgreSQL, as an unprivileged user (`nobody` where the tests run as root).
pub struct Database {
    /// Where it listens.
    pub port: u16,
    /// The words that start it.
    pub words: Vec<String>,
    /// Who runs it; None: who runs the tests.
    pub uid: Option<u32>,
    service: Option<Service>,
    folder: Scratch,
}

/// Where Debian keeps the server's programs.
pub fn postgres_programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|e| Some(e.ok()?.path().join("bin")))
        .collect();
    versions.sort();
    versions.into_iter().rev().find(|p| p.join("initdb").exists())
}

impl Database {
    /// A cluster of its own, started unobserved.
    pub fn start(tls: bool) -> Self {
        let mut database = Self::configured(tls);
        database.launch();
        database
    }

    /// A cluster of its own: to be started by the test itself with its `words`, as `uid`.
    pub fn configured(tls: bool) -> Self {
        let programs = postgres_programs().expect("PostgreSQL");
        let folder = Scratch::new();
        let uid = peers::root().then_some(65534);
        let data = folder.at("data").display().to_string();
        certificate(&folder);
        if let Some(uid) = uid {
            for name in ["", "key.pem", "cert.pem"] {
                chown(folder.at(name), Some(uid), Some(uid)).expect("chown");
            }
            std::fs::set_permissions(folder.at("key.pem"), PermissionsExt::from_mode(0o600)).expect("mode");
        }
        let mut init = Command::new(programs.join("initdb"));
        init.args(["-D", &data, "-A", "trust", "-U", "ops", "-N", "--no-instructions"])
            .current_dir(folder.path());
        let out = as_user(&mut init, uid).env_remove("LD_PRELOAD").output().expect("initdb");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let port = free_port();
        let mut options = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\nfsync = off\n",
            folder.path().display()
        );
        if tls {
            let at = |name: &str| folder.at(name).display().to_string();
            options += &format!(
                "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n",
                at("cert.pem"),
                at("key.pem")
            );
        }
        let file = folder.at("data/postgresql.conf");
        let all = std::fs::read_to_string(&file).expect("postgresql.conf") + &options;
        std::fs::write(&file, all).expect("postgresql.conf");
        let words = vec![programs.join("postgres").display().to_string(), "-D".into(), data];
        Self { port, words, uid, service: None, folder }
    }

    /// Starts it, or starts it again.
    pub fn launch(&mut self) {
        let log = std::fs::File::create(self.folder.at("log")).expect("log");
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(self.folder.path()).env_remove("LD_PRELOAD");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        self.service = Some(Service(as_user(&mut command, self.uid).spawn().expect("postgres")));
        self.ready();
    }

    /// Waits until it answers.
    pub fn ready(&self) {
        wait::until(LIMIT, "PostgreSQL answers", || self.try_sql("SELECT 1").ok());
    }

    /// Ends it at once, as a power cut would.
    pub fn stop(&mut self) {
        if let Some(service) = &mut self.service {
            // SIGINT: fast shutdown, which ends the children, too.
            let pid = rustix::process::Pid::from_raw(service.0.id() as i32).expect("pid");
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            let _ = wait::poll(LIMIT, || service.0.try_wait().expect("wait"));
        }
        self.service = None;
    }

    /// How `psql` and others call it.
    pub fn url(&self) -> String {
        format!("postgresql://ops@127.0.0.1:{}/postgres", self.port)
    }

    /// A path beside its data, where its user may write.
    pub fn beside(&self, name: &str) -> String {
        self.folder.at(name).display().to_string()
    }

    /// The certificate that its clients believe.
    pub fn ca(&self) -> PathBuf {
        self.folder.at("cert.pem")
    }

    /// Runs SQL, unobserved.
    pub fn sql(&self, text: &str) -> String {
        self.try_sql(text).unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    fn try_sql(&self, text: &str) -> Result<String, String> {
        let out = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", &self.url(), "-c", text])
            .env_remove("LD_PRELOAD")
            .output()
            .expect("psql");
        match out.status.success() {
            true => Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.stop();
    }
}

fn as_user(command: &mut Command, uid: Option<u32>) -> &mut Command {
    match uid {
        Some(uid) => command.uid(uid).gid(uid),
        None => command,
    }
}
