//! A daemon for the length of one benchmark, with its own socket, state and configuration.

use crate::Bench;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends with it.
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    program: PathBuf,
}

impl Daemon {
    /// Returns when it takes connections.
    pub fn start(bench: &Bench, configuration: &str) -> Result<Self> {
        let folder = bench.folder.join("daemon");
        std::fs::remove_dir_all(&folder).ok();
        std::fs::create_dir_all(&folder)?;
        let (config, socket) = (folder.join("counterfoil.toml"), folder.join("socket"));
        std::fs::write(&config, configuration)?;
        let log = std::fs::File::create(folder.join("log"))?;
        let mut command = Command::new(&bench.program);
        command.arg("daemon").arg("--config").arg(&config).arg("--socket").arg(&socket);
        command.arg("--state").arg(folder.join("state"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut child = command.spawn().context("counterfoil daemon")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !socket.exists() {
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended: {status}\n{}", std::fs::read_to_string(folder.join("log"))?);
            }
            if Instant::now() > deadline {
                child.kill().ok();
                bail!("the daemon made no socket in 10 s");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { child, socket, program: bench.program.clone() })
    }

    /// `counterfoil exec` of a program, to which arguments may be added.
    pub fn exec(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("exec").arg("--socket").arg(&self.socket).arg("--").arg(program);
        command
    }

    /// Resident memory of the daemon's processes, arenas that it looked into included.
    pub fn memory(&self) -> Result<f64> {
        let mut sum = 0.0;
        for pid in self.pids() {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
            sum += rss.split_whitespace().next().context("VmRSS")?.parse::<f64>()? * 1024.0;
        }
        Ok(sum)
    }

    /// Processor time that the daemon's processes have used.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let mut ticks = 0.0;
        for pid in self.pids() {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // The name in parentheses may hold anything; fields 14 and 15 of proc(5) count from before it.
            let after = stat.rsplit_once(')').context("stat")?.1;
            let fields: Vec<&str> = after.split_whitespace().collect();
            for at in [11, 12] {
                ticks += fields.get(at).context("stat")?.parse::<f64>()?;
            }
        }
        // USER_HZ, which proc(5) counts in, is 100 on every Linux that Rust runs on.
        Ok(ticks / 100.0)
    }

    /// [`Self::cpu_seconds`] to the nanosecond, where those count in hundredths; of threads that run now only.
    pub fn fine_seconds(&self) -> Result<f64> {
        let mut nanoseconds = 0.0;
        for pid in self.pids() {
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                // A thread may end meanwhile.
                let Ok(stat) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
                // Time on a processor comes first (Documentation/scheduler/sched-stats.rst).
                nanoseconds += stat.split_whitespace().next().context("schedstat")?.parse::<f64>()?;
            }
        }
        Ok(nanoseconds / 1e9)
    }

    /// Where it listens.
    pub fn socket(&self) -> &std::path::Path {
        &self.socket
    }

    /// Every process that belongs to it: itself, and the parent or child that only holds descriptors.
    fn pids(&self) -> Vec<u32> {
        let mut all = vec![self.child.id()];
        let mut at = 0;
        while at < all.len() {
            let of = format!("/proc/{0}/task/{0}/children", all[at]);
            let children = std::fs::read_to_string(of).unwrap_or_default();
            all.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        all
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SIGTERM lets it drain; std can only kill.
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
