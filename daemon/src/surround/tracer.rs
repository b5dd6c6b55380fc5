//! Who traces a process: one small read of `/proc/PID/status`.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;

/// The tracer's pid, 0 if there is none; None if the process is gone. The kernel keeps it for each
/// thread: this is the first thread's, which debuggers trace with all others.
pub fn of(pid: u32) -> Option<u32> {
    // The line is among the first ten; the whole file is not wanted.
    let mut head = [0u8; 512];
    let got = File::open(format!("/proc/{pid}/status")).ok()?.read(&mut head).ok()?;
    parse(&head[..got])
}

fn parse(status: &[u8]) -> Option<u32> {
    let mut lines = status.split(|&b| b == b'\n');
    let digits = lines.find_map(|line| line.strip_prefix(b"TracerPid:\t"))?;
    std::str::from_utf8(digits).ok()?.trim().parse().ok()
}

/// When a process started, in clock ticks since boot: with its pid it names it for good.
pub fn starttime(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, these included.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process() {
        assert!(of(std::process::id()).is_some());
        assert_eq!(of(u32::MAX), None);
        assert_eq!(parse(b"Name:\tx\nTracerPid:\t42\nUid:\t0\n"), Some(42));
        assert_eq!(parse(b"Name:\tTracerPid:\t42\n"), None);
        assert!(starttime(std::process::id()).unwrap() > 0);
    }
}
