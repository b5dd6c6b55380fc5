//! What a thousand quiet observed programs cost the daemon, and how quickly hellos are answered.
//!
//! Forks them first, each says hello and waits; then counts the processor time of this process,
//! which holds the daemon's threads, for some seconds. Prints shares of a core, memory, and times.

#[path = "../tests/fake/mod.rs"]
mod fake;

use counterfoil_daemon::pipeline::{Options, Pipeline, raise_descriptor_limit};
use std::io::Read;
use std::time::{Duration, Instant};

fn main() {
    let programs: usize = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1000);
    let seconds = 5;
    raise_descriptor_limit();
    let socket = std::env::temp_dir().join(format!("cf-idle-{}.sock", std::process::id()));
    let (mut start, hold_start) = std::io::pipe().expect("a pipe");
    let (mut gate, hold_gate) = std::io::pipe().expect("a pipe");
    let (mut times, tell_time) = std::io::pipe().expect("a pipe");
    let mut children = Vec::new();
    for _ in 0..programs {
        // SAFETY: this process has one thread so far.
        let child = unsafe { libc::fork() };
        if child == 0 {
            drop((hold_start, hold_gate, times));
            // Its end means that the daemon listens.
            let _ = start.read(&mut [0]);
            let began = Instant::now();
            let _shim = fake::Shim::hello(&socket);
            let took = began.elapsed().as_micros() as u32;
            std::io::Write::write_all(&mut &tell_time, &took.to_ne_bytes()).expect("the pipe");
            drop(tell_time);
            let _ = gate.read(&mut [0]);
            std::process::exit(0);
        }
        children.push(child);
    }
    drop(tell_time);
    let (handle, judged) = Pipeline::start(Options::new(&socket)).expect("a pipeline");
    drop(hold_start);
    let drain = std::thread::spawn(move || judged.iter().count());
    let mut took = Vec::new();
    let mut word = [0; 4];
    while times.read_exact(&mut word).is_ok() {
        took.push(u32::from_ne_bytes(word));
    }
    took.sort_unstable();
    println!(
        "{} hellos at once: median {} µs, slowest {} µs",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    std::thread::sleep(Duration::from_secs(2));
    let before = cpu();
    std::thread::sleep(Duration::from_secs(seconds));
    let used = cpu() - before;
    println!("idle: {:.3} % of a core", used.as_secs_f64() * 100.0 / seconds as f64);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let rss: f64 = status
        .lines()
        .find_map(|l| l.strip_prefix("VmRSS:"))
        .and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse().ok())
        .unwrap_or(0.0);
    println!("memory: {:.1} MB, {:.1} KB a program", rss / 1024.0, rss / programs as f64);
    let fd = fake::connect(&socket);
    let began = Instant::now();
    fake::ask(&fd, bytemuck::bytes_of(&fake::request(&[]))).expect("an answer");
    println!("one more hello: {:?}", began.elapsed());
    drop(hold_gate);
    for child in children {
        // SAFETY: waits for our own child.
        unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    }
    println!("{:?}", handle.drain(Duration::from_millis(100), Duration::from_secs(5)));
    let _ = drain.join();
}

/// Processor time of this process.
fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}
