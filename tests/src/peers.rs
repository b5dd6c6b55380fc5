//! Real programs to talk to: certificates, ports, and nginx with a configuration of its own.

use crate::scratch::Scratch;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Debian's Python, whatever else stands first in PATH.
pub const PYTHON: &str = "/usr/bin/python3";
/// Debian's git, which speaks TLS through GnuTLS.
pub const GIT: &str = "/usr/bin/git";

/// Where a program is: PATH, and the administrator's folders.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|f| f.join(program)).find(|p| p.is_file())
}

/// Which of these programs is not there.
pub fn missing<'a>(programs: &[&'a str]) -> Option<&'a str> {
    programs.iter().copied().find(|p| find(p).is_none())
}

/// Ends the test early unless all these programs are there.
#[macro_export]
macro_rules! need {
    ($($program:expr),+) => {
        if let Some(program) = $crate::peers::missing(&[$($program),+]) {
            $crate::skip!("{program} is not installed (tests/install-peers.sh)");
        }
    };
}

/// Whether we are root.
pub fn root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port that nobody listens on, and that no other call of this test program gives out.
///
/// Below the range from which the kernel takes the ports of connections and of `bind(0)` (from 32768):
/// one of those could be taken between here and the server's own bind.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test programs that run at once begin at different places.
    let start = std::process::id().wrapping_mul(97);
    let mut ports = (0..20_000).map(|_| {
        let n = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        12_000 + u16::try_from(n % 20_000).expect("below 20,000")
    });
    ports.find(|&port| bindable(port)).expect("a free port")
}

/// As the strictest of the servers would: without SO_REUSEADDR, which std's own listener sets, what a server before it
/// left in TIME_WAIT keeps the port for a minute. Close-on-exec: what another test starts meanwhile would keep the port.
fn bindable(port: u16) -> bool {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
    let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port);
    socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .is_ok_and(|socket| bind(&socket, &address).is_ok())
}

/// A script of `peers/`.
pub fn script(name: &str) -> String {
    format!("{}/peers/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs an unobserved helper command in the scratch folder.
pub fn prepare(scratch: &Scratch, words: &[&str]) {
    let out = Command::new(words[0])
        .args(&words[1..])
        .current_dir(scratch.path())
        .env_remove("LD_PRELOAD")
        .output()
        .unwrap_or_else(|e| panic!("{words:?}: {e}"));
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Puts `cert.pem` and `key.pem`, for localhost and 127.0.0.1, into the scratch folder.
pub fn certificate(scratch: &Scratch) {
    prepare(
        scratch,
        &[
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
    );
}

/// Writes `nginx.conf`: serves `www` over TLS on `port`, takes PUT below `/up/`. `tls` is further
/// configuration, such as `ssl_protocols TLSv1.2;`.
pub fn nginx(scratch: &Scratch, port: u16, tls: &str) {
    certificate(scratch);
    for name in ["www/up", "tmp"] {
        let folder = scratch.at(name);
        std::fs::create_dir_all(&folder).expect("folder");
        // The worker runs as another user.
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let here = scratch.path().display();
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|n| format!("  {n}_temp_path {here}/tmp/{n};\n"))
        .collect();
    scratch.write(
        "nginx.conf",
        format!(
            "worker_processes 1;\ndaemon off;\npid {here}/nginx.pid;\nerror_log {here}/nginx.log;\n\
             events {{ worker_connections 64; }}\nhttp {{\n  access_log off;\n{temp}\
             server {{\n    listen 127.0.0.1:{port} ssl http2;\n    ssl_certificate {here}/cert.pem;\n\
             ssl_certificate_key {here}/key.pem;\n    {tls}\n    root {here}/www;\n    client_max_body_size 0;\n\
             location /up/ {{ dav_methods PUT; }}\n  }}\n}}\n"
        ),
    );
}

/// Puts `ca.pem` into the scratch folder, and for each name `NAME.pem` and `NAME.key`, signed by it. The first gets
/// 127.0.0.1 as well.
pub fn authority(scratch: &Scratch, names: &[&str]) {
    let make = |line: &str| prepare(scratch, &line.split_whitespace().collect::<Vec<_>>());
    make("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
    for (i, name) in names.iter().enumerate() {
        make(&format!(
            "openssl req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        let ip = if i == 0 { ",IP:127.0.0.1" } else { "" };
        scratch.write(&format!("{name}.ext"), format!("subjectAltName=DNS:{name}{ip}\n"));
        make(&format!(
            "openssl x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
        ));
    }
}
