//! `alarm`: from the moment SSL_read hands an altered byte to a program until a syslog datagram tells.

use crate::report::{Goal, Row, Unit};
use crate::{Bench, load};
use anyhow::{Context, Result, ensure};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

const RUNS: usize = 60;
/// Round trips; the 20th request is changed (tamper.c).
const TRIPS: &str = "40";

/// One row: the alarm's delay over many runs, in nanoseconds.
pub fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let (sink_path, config) = (bench.folder.join("syslog"), bench.folder.join("alarm.toml"));
    std::fs::write(
        &config,
        format!("[[sink]]\nkind = \"syslog\"\naddress = \"unix:{}\"\n", sink_path.display()),
    )?;
    let sink = UnixDatagram::bind(&sink_path)?;
    sink.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut delays = Vec::new();
    let mut silent = 0;
    for _ in 0..RUNS {
        let mut command = Command::new(&bench.program);
        command.arg("run").arg("--config").arg(&config).args(["--quiet", "--"]);
        command.arg(bench.folder.join("alarm")).args(["alarm", TRIPS]);
        let running = std::thread::spawn(move || load::run(command));
        let told = first_alarm(&sink, &running)?;
        let line = running.join().expect("the thread only runs a program")?;
        let arrived = load::number(&line, "arrived_ns")?;
        ensure!(arrived > 0.0, "nothing was changed on the way");
        match told {
            Some(told) => delays.push(told - arrived),
            None => silent += 1,
        }
        drain(&sink)?;
    }
    let note = format!("{} of {RUNS} altered requests alarmed", RUNS - silent);
    Ok(vec![Row::delays("alarm", Unit::Nanoseconds, &delays, Goal::P99AtMost(20e6)).noting(note, silent > 0)])
}

/// When the datagram about the altered payload came, by the clock that the load program uses.
fn first_alarm<T>(sink: &UnixDatagram, running: &std::thread::JoinHandle<T>) -> Result<Option<f64>> {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut datagram = [0; 8192];
    sink.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut ended = false;
    while Instant::now() < deadline {
        match sink.recv(&mut datagram) {
            Ok(length) => {
                let now = monotonic_ns()?;
                if String::from_utf8_lossy(&datagram[..length]).contains(" payload-altered ") {
                    return Ok(Some(now));
                }
            }
            // One look more after its end: a datagram may have come in between.
            Err(_) if ended => return Ok(None),
            Err(_) => ended = running.is_finished(),
        }
    }
    Ok(None)
}

fn drain(sink: &UnixDatagram) -> Result<()> {
    sink.set_nonblocking(true)?;
    while sink.recv(&mut [0; 1]).is_ok() {}
    sink.set_nonblocking(false)?;
    Ok(())
}

/// CLOCK_MONOTONIC, without unsafe: std's Instant is that clock but hides its zero, /proc/uptime is coarse.
fn monotonic_ns() -> Result<f64> {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec)
        .map(|seconds| seconds as f64 * 1e9 + now.tv_nsec as f64)
        .context("a monotonic clock before its zero")
}
