//! Files that are cloned, not copied: `cp --reflink` on a file system that shares blocks (FICLONE). No byte
//! passes, and yet the clone is a copy with an origin (issue 3).

use counterfoil_tests::scratch::payload;
use counterfoil_tests::sshd::Sshd;
use counterfoil_tests::{Observed, Run, Scratch, Transfer, check, need, need_sshd, peers, truth};
use sha2::{Digest, Sha256};
use std::process::Command;

const SIZE: usize = 1_000_000;

/// A small disk in a file, mounted as `disk` in the scratch folder while this is there.
struct Disk(std::path::PathBuf);

impl Disk {
    /// Why it can't be had, else.
    fn mounted(scratch: &Scratch, make: &[&str], megabytes: u64) -> Result<Self, String> {
        if !peers::root() {
            return Err("only root can mount a disk".into());
        }
        let image = std::fs::File::create(scratch.at("image")).expect("image");
        image.set_len(megabytes << 20).expect("room");
        let mut words = make.to_vec();
        words.push("image");
        peers::prepare(scratch, &words);
        let at = scratch.at("disk");
        std::fs::create_dir_all(&at).expect("folder");
        let mount = Command::new("mount").args(["-o", "loop"]).arg(scratch.at("image")).arg(&at).output();
        let mount = mount.map_err(|e| format!("mount: {e}"))?;
        match mount.status.success() {
            true => Ok(Self(at)),
            false => Err(format!("mount: {}", String::from_utf8_lossy(&mount.stderr).trim())),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect()
}

/// The one file transfer that ends at `to`, which is `from` whole, in both digests.
fn intact(run: &Run, from: &str, to: &str, program: &str) {
    let here = run.scratch.path().canonicalize().expect("scratch");
    let is = |t: &Transfer| t.0["destination"]["path"] == *here.join(to).to_string_lossy();
    let found: Vec<_> = run.report.on("file").into_iter().filter(is).collect();
    check!(run, found.len() == 1, "{} transfers end at {to}", found.len());
    let t = &found[0];
    check!(run, t.verdict() == "intact", "{}", t.shown());
    check!(
        run,
        t.0["origin"]["path"] == *here.join(from).to_string_lossy(),
        "{to} is {}",
        t.0["origin"]["path"]
    );
    check!(run, t.program("origin") == program && t.origin() == Some(SIZE as u64), "{}", t.shown());
    let digest = sha256(&payload(5, SIZE));
    for end in ["origin", "destination"] {
        check!(run, t.0[end]["sha256"] == digest, "{end}'s digest of {to} is {}", t.0[end]["sha256"]);
    }
}

fn cloned(make: &[&str], megabytes: u64) {
    let scratch = Scratch::new();
    let disk = match Disk::mounted(&scratch, make, megabytes) {
        Ok(disk) => disk,
        Err(why) => counterfoil_tests::skip!("{}: {why}", make[0]),
    };
    std::fs::write(disk.0.join("sent"), payload(5, SIZE)).expect("sent");
    std::fs::create_dir(disk.0.join("dst")).expect("dst");
    let script = Sshd::new(&scratch).around(
        "cd disk\ncp --reflink=always sent clone\ncp --reflink=auto sent auto\n\
         scp clone far:$here/disk/dst/clone\ncd ..",
    );
    let mut session = Observed::script(&script);
    session.scratch = scratch;
    let run = session.go().well();
    truth::blameless(&run);
    intact(&run, "disk/sent", "disk/clone", "cp");
    intact(&run, "disk/sent", "disk/auto", "cp");
    // What was cloned is sent like any other.
    intact(&run, "disk/clone", "disk/dst/clone", "scp");
    check!(run, run.report.on("file").len() == 3, "{} files", run.report.on("file").len());
    drop(disk);
}

#[test]
fn on_xfs() {
    need!("mkfs.xfs", "cp");
    need_sshd!();
    cloned(&["mkfs.xfs", "-q", "-m", "reflink=1"], 320);
}

#[test]
fn on_btrfs() {
    need!("mkfs.btrfs", "cp");
    need_sshd!();
    cloned(&["mkfs.btrfs", "-q"], 128);
}
