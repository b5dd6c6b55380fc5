//! `counterfoil daemon` as a service manager and an operator meet it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(15);

/// A folder with a notify socket in it, and a daemon.
struct Service {
    dir: tempfile::TempDir,
    notify: UnixDatagram,
    child: Option<Child>,
}

impl Service {
    fn new(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.toml"), config).unwrap();
        let notify = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { dir, notify, child: None }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_counterfoil"));
        command
            .args(["daemon", "--config"])
            .arg(self.at("c.toml"))
            .arg("--socket")
            .arg(self.at("run/s"))
            .arg("--state")
            .arg(self.at("state"))
            .env("NOTIFY_SOCKET", self.at("notify"))
            .stdin(Stdio::null())
            .stderr(std::fs::File::options().create(true).append(true).open(self.at("log")).unwrap());
        command
    }

    fn start(&mut self) {
        self.child = Some(self.command().spawn().unwrap());
        self.until_told("READY=1");
    }

    /// The next message to the service manager that has `line`, and what came with it.
    fn until_told(&self, line: &str) -> (String, Vec<OwnedFd>) {
        let end = Instant::now() + PATIENCE;
        loop {
            let (text, descriptors) = self.hear();
            if text.lines().any(|l| l == line) {
                return (text, descriptors);
            }
            assert!(Instant::now() < end, "{line} was not told; log:\n{}", self.log());
        }
    }

    fn hear(&self) -> (String, Vec<OwnedFd>) {
        use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.notify,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        );
        let got = got.unwrap_or_else(|e| panic!("nothing was told: {e}; log:\n{}", self.log())).bytes;
        let descriptors = ancillary
            .drain()
            .filter_map(|m| if let RecvAncillaryMessage::ScmRights(fds) = m { Some(fds) } else { None })
            .flatten()
            .collect();
        (String::from_utf8_lossy(&bytes[..got]).into_owned(), descriptors)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.at("log")).unwrap_or_default()
    }

    fn signal(&self, signal: i32) {
        let pid = self.child.as_ref().unwrap().id() as i32;
        // SAFETY: a signal to a child of this test.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Ends the process that holds the arenas, as a service manager would.
    fn end_keeper(&self, signal: i32) {
        let state = self.at("state").into_os_string().into_encoded_bytes();
        let keeper = |pid: &i32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<&[u8]> = line.split(|&b| b == 0).collect();
            words.contains(&&b"hold-arenas"[..]) && words.contains(&&state[..])
        };
        let all = std::fs::read_dir("/proc").unwrap();
        let mut pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let pid = pids.find(keeper).expect("a keeper");
        // SAFETY: a signal to a process that this test's daemon started.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        until("the keeper ends", || (!keeper(&pid)).then_some(()));
    }

    fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        until("the daemon ends", || child.try_wait().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn it_says_when_it_is_ready_and_leaves_in_order() {
    let mut service = Service::new("");
    service.start();
    assert_eq!(mode(&service.at("run")), 0o755);
    assert_eq!(mode(&service.at("run/s")), 0o666, "any user's programs may say hello");
    assert_eq!(mode(&service.at("state")), 0o700);
    let second = service.command().env_remove("NOTIFY_SOCKET").output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(service.log().contains("another daemon answers"), "{}", service.log());
    service.signal(libc::SIGTERM);
    service.until_told("STOPPING=1");
    assert!(service.ended().success(), "{}", service.log());
    assert!(!service.at("run/s").exists());
    until("the keeper is gone", || (!service.at("state/keeper").exists()).then_some(()));
    assert!(service.at("state/ledger.sqlite").exists());
}

#[test]
fn sighup_reads_the_configuration_again_and_a_wrong_one_changes_nothing() {
    let mut service = Service::new("");
    service.start();
    let events = service.at("events.jsonl");
    std::fs::write(service.at("c.toml"), "[[sinc]]\n").unwrap();
    service.signal(libc::SIGHUP);
    let (text, _) = service.until_told("RELOADING=1");
    assert!(text.contains("MONOTONIC_USEC="), "systemd needs it: {text}");
    service.until_told("READY=1");
    until("the mistake is named", || service.log().contains("did you mean `sink`?").then_some(()));
    let sink = format!("[[sink]]\nkind = \"jsonl\"\npath = {events:?}\nheartbeat = \"100ms\"\n");
    std::fs::write(service.at("c.toml"), sink).unwrap();
    service.signal(libc::SIGHUP);
    service.until_told("READY=1");
    until("the new sink's heartbeat", || {
        std::fs::read_to_string(&events).is_ok_and(|t| t.contains("\"heartbeat\"")).then_some(())
    });
    service.signal(libc::SIGTERM);
    assert!(service.ended().success());
}

#[test]
fn a_stale_socket_is_replaced() {
    let mut service = Service::new("");
    service.start();
    service.signal(libc::SIGKILL);
    service.ended();
    assert!(service.at("run/s").exists());
    service.start();
    service.signal(libc::SIGTERM);
    assert!(service.ended().success());
}

#[test]
fn a_mistake_at_the_start_is_fatal_and_named() {
    let service = Service::new("[ledger]\nkeep = 5\n");
    let ended = service.command().status().unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(service.log().contains("c.toml:2:8: keep must be a string"), "{}", service.log());
}

/// Says hello as the library does, and gives the arena's number of bytes.
fn hello(socket: &Path) -> rustix::fd::OwnedFd {
    use counterfoil_abi::{ABI_VERSION, hello};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
    let fd = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
    rustix::net::connect(&fd, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    let mut request: hello::Request = bytemuck::Zeroable::zeroed();
    (request.magic, request.abi, request.pid) = (hello::MAGIC, ABI_VERSION, std::process::id());
    rustix::net::send(&fd, bytemuck::bytes_of(&request), rustix::net::SendFlags::empty()).unwrap();
    let mut reply = vec![0u8; size_of::<hello::Reply>()];
    let (got, _) = rustix::net::recv(&fd, &mut reply[..], rustix::net::RecvFlags::empty()).unwrap();
    assert_eq!(got, size_of::<hello::Reply>());
    fd
}

#[test]
fn systemds_descriptor_store_brings_arenas_and_key_back() {
    let mut service = Service::new("");
    service.start();
    let _client = hello(&service.at("run/s"));
    // Key, matcher and board are stored, too; the second life stores the key again.
    let (name, arena) = loop {
        let (text, mut descriptors) = service.until_told("FDSTORE=1");
        let name = text.lines().find_map(|l| l.strip_prefix("FDNAME=")).unwrap_or_default();
        if name.starts_with("counterfoil-1-") {
            break (name.to_owned(), descriptors.remove(0));
        }
    };
    // The whole service is killed.
    service.signal(libc::SIGKILL);
    service.ended();
    service.end_keeper(libc::SIGKILL);

    // Its next life gets key and arena from systemd, as descriptors 3 and 4.
    let key = rustix::fs::memfd_create("key", rustix::fs::MemfdFlags::empty()).unwrap();
    rustix::io::write(&key, &[7; 16]).unwrap();
    let (key_fd, arena_fd) = (key.as_raw_fd(), arena.as_raw_fd());
    let mut shell = Command::new("sh");
    let daemon = service.command();
    shell
        .args(["-c", "export LISTEN_PID=$$; exec \"$0\" \"$@\""])
        .arg(daemon.get_program())
        .args(daemon.get_args());
    shell
        .env("NOTIFY_SOCKET", service.at("notify"))
        .env("LISTEN_FDS", "2")
        .env("LISTEN_FDNAMES", format!("counterfoil:{name}"))
        .stdin(Stdio::null())
        .stderr(std::fs::File::options().append(true).open(service.at("log")).unwrap());
    // SAFETY: async-signal-safe calls only. Through high numbers, so that neither overwrites the other.
    unsafe {
        shell.pre_exec(move || {
            for (from, to) in [(key_fd, 103), (arena_fd, 104), (103, 3), (104, 4)] {
                if libc::dup2(from, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            libc::close(103);
            libc::close(104);
            Ok(())
        });
    }
    service.child = Some(shell.spawn().unwrap());
    let mut stored_key = None;
    let mut again = false;
    let mut ready = false;
    while !(ready && again && stored_key == Some([7; 16])) {
        let (text, descriptors) = service.hear();
        ready |= text.lines().any(|l| l == "READY=1");
        if text.lines().any(|l| l == "FDNAME=counterfoil") && !descriptors.is_empty() {
            let mut bytes = [0; 16];
            rustix::io::pread(&descriptors[0], &mut bytes, 0).unwrap();
            stored_key = Some(bytes);
        }
        again |= text.contains(&format!("FDNAME={name}")) && !descriptors.is_empty();
    }
    // Stopped by the service manager, which ends all of a service's processes, it leaves the arena there for the next life.
    service.signal(libc::SIGTERM);
    service.until_told("STOPPING=1");
    assert!(service.ended().success());
    service.end_keeper(libc::SIGTERM);
    service.notify.set_nonblocking(true).unwrap();
    let mut bytes = [0; 4096];
    while let Ok(got) = service.notify.recv(&mut bytes) {
        let text = String::from_utf8_lossy(&bytes[..got]);
        assert!(!text.contains(&format!("FDNAME={name}")), "{text}");
    }
    let alarms = Command::new(env!("CARGO_BIN_EXE_counterfoil"))
        .args(["alarms", "--json", "--state"])
        .arg(service.at("state"))
        .output()
        .unwrap();
    let alarms = String::from_utf8_lossy(&alarms.stdout).into_owned();
    assert!(alarms.contains("took up 1 arena;"), "{alarms}\n{}", service.log());
}
