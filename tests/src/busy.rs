//! A busy host's services, observed by one daemon with its default configuration, and what is done with them all day.

mod chores;

pub use chores::{APPROVED, CHORES, Chore, PRELUDE};

use crate::daemon::Daemon;
use crate::observed::{Observed, Running};
use crate::plant::{Broker, Database, Service, postgres_programs};
use crate::scratch::{Scratch, payload};
use crate::{peers, wait};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// The operational process: a value a second, within its limits.
const TOPIC: &str = "plant/boiler/temperature";
/// The job that cron runs.
const CRON: &str = "/etc/cron.d/counterfoil-busy";
/// A script that makes thumbnails, as an administrator installs one.
const THUMB: &str = "/usr/local/lib/counterfoil-busy/thumb.py";

/// All of them.
pub struct Services {
    /// Who observes it all.
    pub daemon: Daemon,
    /// The port of the sshd that gets the approved backup.
    pub vault: u16,
    environment: Vec<(&'static str, String)>,
    running: Vec<(&'static str, Running)>,
    broker: Option<Broker>,
    database: Option<Database>,
    _unobserved: Vec<Service>,
    scratch: Scratch,
    _plant: Scratch,
}

impl Services {
    /// Starts the daemon, and then everything else.
    /// `watched`: the programs that are watched by default.
    pub fn start(watched: &[String]) -> Self {
        // Its certificate is another one than nginx's.
        let (scratch, plant) = (Scratch::new(), Scratch::new());
        let broker = peers::missing(&["mosquitto", "mosquitto_pub", "mosquitto_sub"])
            .is_none()
            .then(|| Broker::start(&plant));
        // It is learnt in a minute and a half, not in days: what adds up there must not be held against an hour's sum.
        let mut more = String::from("[egress]\nconnection_duration = \"10min\"\n");
        if let Some(broker) = &broker {
            more += &format!(
                "[[intake]]\nkind = \"mqtt\"\nbroker = \"tcp:127.0.0.1:{}\"\ntopics = [\"plant/#\"]\n[[alarms.carrier]]\ntopics = [\"plant/#\"]\n\
                 [[alarms.limit]]\nvariable = \"TI-101\"\nhi = 90\nlo = 10\n",
                broker.plain
            );
        }
        home(&scratch);
        // Before anybody looks: that a job appears is worth an alarm.
        let web = peers::free_port();
        job(&scratch, web);
        let daemon = Daemon::of_a_host(&scratch.at("home"), watched, &more);
        let mut services = Self {
            daemon,
            vault: 0,
            environment: vec![],
            running: vec![],
            broker,
            database: None,
            _unobserved: vec![],
            scratch,
            _plant: plant,
        };
        services.work();
        services.ssh();
        services.web(web);
        services.database();
        services.plant();
        services.cron();
        services
    }

    /// Which of them run.
    pub fn names(&self) -> Vec<&'static str> {
        self.running.iter().map(|(name, _)| *name).collect()
    }

    /// A command of this host's.
    pub fn observing(&self, words: &[String]) -> Observed {
        let plain = self.daemon.observing(&words.iter().map(String::as_str).collect::<Vec<_>>());
        self.environment.iter().fold(plain, |observed, (name, value)| observed.env(name, value))
    }

    /// The host is known by now.
    pub fn learnt(&self) {
        self.daemon.reload_watching("baseline_days = 0");
    }

    /// How often things were done that nobody has to start.
    pub fn counted(&self) -> Vec<(&'static str, usize)> {
        vec![
            ("jobs of cron", self.lines("cron.log")),
            ("values over MQTT and TLS, one a second", self.lines("values")),
        ]
    }

    /// What should have gone on, and did not.
    pub fn missed(&self) -> String {
        let (sent, got) = (self.lines("sent"), self.lines("values"));
        if self.broker.is_some() && (sent < 30 || got + 5 < sent) {
            return format!("{got} of {sent} values came over MQTT");
        }
        String::new()
    }

    /// Ends them all, the daemon last.
    pub fn end(&mut self) {
        for (_, running) in &self.running {
            let pid = rustix::process::Pid::from_raw(running.child.id() as i32).expect("pid");
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::INT);
        }
        for (_, mut running) in self.running.drain(..) {
            let _ = wait::poll(Duration::from_secs(5), || running.child.try_wait().expect("wait"));
        }
        self.daemon.stop();
    }

    fn lines(&self, name: &str) -> usize {
        std::fs::read_to_string(self.scratch.at(name)).unwrap_or_default().lines().count()
    }

    fn at(&self, name: &str) -> String {
        self.scratch.at(name).display().to_string()
    }

    fn service(&mut self, name: &'static str, words: &[String]) {
        let running = self.observing(words).own_session().start();
        self.running.push((name, running));
    }

    /// What the chores work on.
    fn work(&mut self) {
        for folder in ["far", "data", "log", "www/up", "www/apt"] {
            std::fs::create_dir_all(self.scratch.at(folder)).expect("folder");
        }
        self.scratch.write("small", "some text\n".repeat(500));
        self.scratch.write("some.bin", payload(4, 400_000));
        self.scratch.write("data/old", payload(5, 1_500_000));
        peers::prepare(&self.scratch, &["/usr/bin/git", "init", "-q", "--bare", "-b", "main", "repository"]);
        let installed = Path::new(THUMB);
        std::fs::create_dir_all(installed.parent().expect("a folder")).expect("root may");
        std::fs::write(
            installed,
            "import sys\nfrom PIL import Image\nim = Image.open(sys.argv[1])\nim.thumbnail((64, 64))\nim.save(sys.argv[2])\n",
        )
        .expect("root may");
        peers::prepare(&self.scratch, &["touch", "-d", "3 days ago", THUMB]);
        crate::pictures::library(&self.scratch, "pictures", 6);
        let here = self.scratch.path().display().to_string();
        let s3 = peers::free_port();
        let server = Command::new(peers::PYTHON)
            .args([peers::script("s3_server.py"), s3.to_string()])
            .env_remove("LD_PRELOAD")
            .stdin(Stdio::null())
            .spawn();
        self._unobserved.push(Service(server.expect("s3_server")));
        crate::plant::listening(s3, "the S3 service");
        self.environment.extend([
            ("H", format!("{here}/home")),
            ("W", here.clone()),
            ("CA", format!("{here}/cert.pem")),
            ("S3", s3.to_string()),
            ("S3_CLIENT", peers::script("s3_client.py")),
            ("THUMB", format!("{} {THUMB}", peers::PYTHON)),
        ]);
    }

    /// Two hosts' sshds, as a service runs it: with PAM and privilege separation.
    fn ssh(&mut self) {
        let _ = std::fs::create_dir_all("/run/sshd");
        let here = self.at("");
        let here = here.trim_end_matches('/').to_owned();
        let real = "/etc/ssh/ssh_host_ed25519_key";
        let key = if Path::new(real).exists() { real.to_owned() } else { format!("{here}/host_key") };
        if key != real {
            peers::prepare(&self.scratch, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "host_key"]);
        }
        let pam = if Path::new("/etc/pam.d/sshd").exists() { "yes" } else { "no" };
        let sshd = peers::find("sshd").expect("sshd").display().to_string();
        let mut ports = vec![];
        for name in ["sshd", "sshd of another host"] {
            let port = peers::free_port();
            let config = format!(
                "Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {here}/authorized\nPidFile none\n\
                 StrictModes no\nPermitRootLogin yes\nUsePAM {pam}\nMaxStartups 100\nSubsystem sftp /usr/lib/openssh/sftp-server\n"
            );
            let config = self.scratch.write(&format!("sshd_config_{port}"), config).display().to_string();
            self.service(name, &words(&[&sshd, "-D", "-e", "-f", &config]));
            crate::plant::listening(port, name);
            ports.push(port);
        }
        self.vault = ports[1];
        let host = |name: &str, port: u16| {
            format!(
                "Host {name}\n  HostName 127.0.0.1\n  Port {port}\n  User root\n  IdentityFile {here}/home/.ssh/id_ed25519\n  IdentitiesOnly yes\n  \
                 BatchMode yes\n  StrictHostKeyChecking no\n  UserKnownHostsFile {here}/home/.ssh/known_hosts\n  LogLevel ERROR\n"
            )
        };
        self.scratch.write("home/.ssh/config", host("far", ports[0]) + &host("vault", ports[1]));
    }

    /// nginx, which serves files and packages, and takes some.
    fn web(&mut self, port: u16) {
        peers::nginx(&self.scratch, port, "");
        self.scratch.write("www/page", "<p>hello</p>\n".repeat(300));
        self.scratch.write("www/file", payload(1, 300_000));
        self.scratch.write("www/large", payload(2, 12_000_000));
        if peers::find("dpkg-deb").is_some() {
            repository(&self.scratch, port);
        }
        let here = self.at("");
        self.service("nginx", &words(&["nginx", "-p", &here, "-e", "nginx.log", "-c", "nginx.conf"]));
        crate::plant::listening(port, "nginx");
        let apt = format!(
            "-o Dir::Etc::SourceList={here}apt.list -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists={here}apt/lists \
             -o Dir::Cache={here}apt/cache -o Acquire::https::CaInfo={here}cert.pem -o Acquire::https::Proxy::localhost=DIRECT"
        );
        self.environment.extend([("WEB", port.to_string()), ("APT", apt)]);
    }

    /// PostgreSQL, and another one that follows it.
    fn database(&mut self) {
        let Some(programs) = postgres_programs() else { return };
        let database = Database::configured(false);
        let user = |words: &[String]| -> Vec<String> {
            let id = database.uid.unwrap_or(65534).to_string();
            let set = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"].map(str::to_owned);
            set.into_iter().chain(words.iter().cloned()).collect()
        };
        self.service("PostgreSQL", &user(&database.words));
        database.ready();
        database.sql("CREATE TABLE t (id serial PRIMARY KEY, b bytea)");
        let (folder, port) = (database.beside("standby"), peers::free_port());
        let copy = programs.join("pg_basebackup").display().to_string();
        let copy = [copy, "-D".into(), folder.clone(), "-R".into(), "-d".into(), database.url()];
        self.observing(&user(&copy)).limit(120).go().well();
        let words = [database.words[0].clone(), "-D".into(), folder, "-c".into(), format!("port={port}")];
        self.service("PostgreSQL's standby", &user(&words));
        let standby = format!("postgresql://ops@127.0.0.1:{port}/postgres");
        wait::until(PATIENCE, "the standby answers", || {
            let ask = ["-X", "-q", &standby, "-c", "SELECT 1"];
            let out = Command::new("psql").args(ask).env_remove("LD_PRELOAD").output();
            out.ok().filter(|o| o.status.success())
        });
        self.environment.extend([("URL", database.url()), ("STANDBY", standby)]);
        self.database = Some(database);
    }

    /// A gateway and a control room, with a broker between them.
    fn plant(&mut self) {
        let Some(broker) = &self.broker else { return };
        let client = broker.client().join(" ");
        let here = self.at("");
        let room = format!("exec mosquitto_sub {client} -i room -k 20 -q 1 -t 'plant/#' >{here}values");
        let values = format!(
            "import itertools, time\nfor n in itertools.count():\n print('{{\"tag\":\"TI-101\",\"value\":%.1f}}' % (60 + n % 7), flush=True)\n \
             open('{here}sent', 'a').write('x\\n'); time.sleep(1)\n"
        );
        let script = self.scratch.write("gateway.py", values).display().to_string();
        let gateway = format!(
            "{} {script} | exec mosquitto_pub {client} -i gateway -k 20 -q 1 -t {TOPIC} -l",
            peers::PYTHON
        );
        self.service("a control room (MQTT)", &words(&["sh", "-euc", &room]));
        self.broker.as_ref().expect("there").subscribed("room", 1);
        self.service("a gateway (MQTT)", &words(&["sh", "-euc", &gateway]));
    }

    /// cron, with this host's own jobs and one more.
    fn cron(&mut self) {
        let Some(cron) = peers::find("cron") else { return };
        self.service("cron", &words(&[&cron.display().to_string(), "-f"]));
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(CRON);
        let _ = std::fs::remove_dir_all(Path::new(THUMB).parent().expect("a folder"));
    }
}

/// What cron is to do each minute.
fn job(scratch: &Scratch, web: u16) {
    let here = scratch.path().display();
    let command = format!(
        "curl -sS --cacert {here}/cert.pem https://localhost:{web}/page -o /dev/null && echo done >>{here}/cron.log"
    );
    if peers::find("cron").is_some() {
        std::fs::write(CRON, format!("* * * * * root {command}\n")).expect("root may");
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// A home with all that a user keeps there.
fn home(scratch: &Scratch) {
    scratch.write("home/.netrc", "machine localhost login ann password a-long-and-secret-password-of-ann\n");
    scratch.write(
        "home/.aws/credentials",
        "[default]\naws_access_key_id = AKIAQ7BUSYHOSTTEST42\naws_secret_access_key = 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\n",
    );
    scratch.write("home/.aws/config", "[default]\nregion = us-east-1\n");
    scratch.write("home/.pgpass", "127.0.0.1:*:*:ops:another-long-and-secret-password\n");
    std::fs::create_dir_all(scratch.at("home/.ssh")).expect("folder");
    peers::prepare(scratch, &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "home/.ssh/id_ed25519"]);
    peers::prepare(scratch, &["cp", "home/.ssh/id_ed25519.pub", "authorized"]);
    for secret in [".netrc", ".aws/credentials", ".pgpass"] {
        peers::prepare(scratch, &["chmod", "600", &format!("home/{secret}")]);
    }
}

/// A package, and what apt wants to know of it.
fn repository(scratch: &Scratch, port: u16) {
    scratch.write(
        "package/DEBIAN/control",
        "Package: counterfoil-busy\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: nothing\n",
    );
    scratch.write("package/usr/share/counterfoil-busy/data", payload(6, 3_000_000));
    let list = "dpkg-deb -b package www/apt/counterfoil-busy_1_all.deb >/dev/null; cd www/apt; f=counterfoil-busy_1_all.deb; \
        { cat ../../package/DEBIAN/control; echo Filename: ./$f; echo Size: $(stat -c %s $f); echo SHA256: $(sha256sum $f | cut -d' ' -f1); } >Packages";
    peers::prepare(scratch, &["sh", "-euc", list]);
    scratch.write("apt.list", format!("deb [trusted=yes] https://localhost:{port}/apt ./\n"));
    for folder in ["apt/lists/partial", "apt/cache/archives/partial"] {
        std::fs::create_dir_all(scratch.at(folder)).expect("folder");
    }
}
