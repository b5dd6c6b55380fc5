//! One upload: real curl, over TLS, to a real `openssl s_server`.
//!
//! s_server writes what it decrypted to its stdout and sends what comes on its stdin; the few words
//! of HTTP on top of that are spoken here.
#![forbid(unsafe_code)]

use anyhow::{Context, bail, ensure};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the receiver got.
pub struct Received {
    /// The request's body.
    pub body: Vec<u8>,
    /// What curl said with `-w`.
    pub client: String,
}

/// A child that doesn't outlive us.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Makes a key and a certificate for localhost in `dir`.
pub fn certificate(dir: &Path) -> anyhow::Result<()> {
    let mut openssl = Command::new("openssl");
    openssl
        .current_dir(dir)
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-keyout", "key.pem", "-out", "cert.pem"]);
    let made = output(&mut openssl)?;
    ensure!(made.status.success(), "openssl req: {}", String::from_utf8_lossy(&made.stderr));
    Ok(())
}

/// Uploads `file` from `dir`. `server` and `client` are called with the commands before they start.
pub fn upload(
    dir: &Path,
    file: &str,
    server: impl FnOnce(&mut Command),
    client: impl FnOnce(&mut Command),
) -> anyhow::Result<Received> {
    let mut s_server = Command::new("openssl");
    s_server
        .current_dir(dir)
        .args(["s_server", "-quiet", "-naccept", "1", "-cert", "cert.pem", "-key", "key.pem"])
        .args(["-accept", "127.0.0.1:0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    server(&mut s_server);
    let mut s_server = Ended(s_server.spawn().context("openssl s_server")?);
    let port = listening(&mut s_server.0)?;
    let (stdin, stdout) = (s_server.0.stdin.take(), s_server.0.stdout.take());
    let (Some(mut stdin), Some(stdout)) = (stdin, stdout) else { bail!("s_server has no pipes") };
    // A thread, so that a receiver that says nothing can't keep us waiting.
    let (say, hear) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = say.send(request(stdout));
    });

    let mut curl = Command::new("curl");
    curl.current_dir(dir)
        .args([
            "--silent",
            "--show-error",
            "--http1.1",
            "--max-time",
            "15",
            "--noproxy",
            "*",
            "--cacert",
            "cert.pem",
        ])
        // No round trip before the body, and the server's answer goes nowhere.
        .args(["-H", "Expect:", "-o", "/dev/null", "-w", "%{http_code}, %{size_upload} bytes"])
        .args(["--resolve", &format!("localhost:{port}:127.0.0.1")])
        .args(["-T", file, &format!("https://localhost:{port}/payments/{file}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    client(&mut curl);
    let curl = Ended(curl.spawn().context("curl")?);
    let heard = hear.recv_timeout(PATIENCE).context("the server heard nothing")?;
    let body = match heard {
        Ok(body) => body,
        Err(e) => bail!("{e}; curl: {}", said(curl)?.1),
    };
    stdin.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\nConnection: close\r\n\r\naccepted\n")?;
    let (client, error) = said(curl)?;
    ensure!(client.starts_with("201"), "curl: {client} {error}");
    wait(&mut s_server.0)?;
    Ok(Received { body, client })
}

fn said(mut curl: Ended) -> anyhow::Result<(String, String)> {
    wait(&mut curl.0)?;
    let (mut out, mut error) = (String::new(), String::new());
    if let Some(mut pipe) = curl.0.stdout.take() {
        pipe.read_to_string(&mut out)?;
    }
    if let Some(mut pipe) = curl.0.stderr.take() {
        pipe.read_to_string(&mut error)?;
    }
    Ok((out, error.trim_end().to_owned()))
}

/// Waits for a child's end, but not for ever.
fn wait(child: &mut Child) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while child.try_wait()?.is_none() {
        ensure!(Instant::now() < end, "a program did not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<std::process::Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).output().with_context(|| format!("{name} is needed, and can't be started"))
}

/// Waits until `server` listens, and says on which port.
///
/// The kernel chose the port, so it is ours alone; and it is looked up, not connected to, because
/// s_server accepts once only.
fn listening(server: &mut Child) -> anyhow::Result<u16> {
    let end = Instant::now() + PATIENCE;
    loop {
        let sockets = sockets_of(server.id());
        let table = std::fs::read_to_string("/proc/net/tcp")?;
        if let Some(port) = table.lines().find_map(|line| listener(line, &sockets)) {
            return Ok(port);
        }
        if let Some(status) = server.try_wait()? {
            bail!("openssl s_server ended at once: {status}");
        }
        ensure!(Instant::now() < end, "openssl s_server does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The inodes of a process' sockets: its descriptors are links to `socket:[INODE]`.
fn sockets_of(pid: u32) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let links = entries.flatten().filter_map(|entry| std::fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect()
}

/// The port of a line of `/proc/net/tcp`, if it is a listener and one of `sockets`.
///
/// proc(5): the second field is the local address in hex, the fourth the state (0A is LISTEN), the
/// tenth the inode.
fn listener(line: &str, sockets: &[String]) -> Option<u16> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let ours = *state == "0A" && sockets.iter().any(|socket| socket == inode);
    ours.then(|| u16::from_str_radix(address.rsplit_once(':')?.1, 16).ok())?
}

/// Reads one request with a Content-Length, and gives its body.
fn request(mut from: impl Read) -> anyhow::Result<Vec<u8>> {
    let mut got = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let n = from.read(&mut buffer)?;
        ensure!(n > 0, "the connection ended within the request");
        got.extend_from_slice(&buffer[..n]);
        let Some(head) = got.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let length = String::from_utf8_lossy(&got[..head])
            .lines()
            .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:").map(|v| v.trim().to_owned()))
            .and_then(|v| v.parse::<usize>().ok())
            .context("the request has no Content-Length")?;
        if got.len() >= head + 4 + length {
            return Ok(got[head + 4..head + 4 + length].to_vec());
        }
    }
}
