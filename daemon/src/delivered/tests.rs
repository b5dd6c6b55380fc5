use super::*;
use crate::model::{Process, Severity};
use crate::pipeline::StreamDigest;
use crate::rest::Reader;
use crate::sample;
use crate::tags::Tagger;
use crossbeam::channel::{Receiver, unbounded};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// Real files, a clock of our own.
struct Scene {
    dir: tempfile::TempDir,
    delivered: Delivered,
    now: Timestamp,
    reader: Reader,
    answers: Receiver<Answer>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Self::settings(&dir);
        let (send, answers) = unbounded();
        let hear = Arc::new(move |answer| drop(send.send(answer)));
        Self {
            delivered: Delivered::new(&settings, None),
            dir,
            now: sample::moment(),
            reader: Reader::start(Tagger::new([1; 16], StreamDigest::Mac), hear).unwrap(),
            answers,
        }
    }

    fn settings(dir: &tempfile::TempDir) -> Integrity {
        Integrity { hash_check_paths: vec![dir.path().join("in")], ..Integrity::default() }
    }

    fn path(&self) -> PathBuf {
        let folder = self.dir.path().join("in");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::canonicalize(folder).unwrap().join("prices.csv")
    }

    fn write(&self, content: &[u8]) -> String {
        let path = self.path();
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().into()
    }

    /// As if scp had brought it.
    fn deliver(&mut self, content: &[u8]) {
        self.write(content);
        let transfer = self.transfer(content);
        self.delivered.transfer(self.now, &transfer, true);
    }

    fn transfer(&self, content: &[u8]) -> Transfer {
        let path = self.path().to_str().unwrap().to_owned();
        let mut t = sample::transfer(Verdict::Intact);
        t.channel = Channel::File;
        t.ended = self.now;
        t.origin.as_mut().unwrap().path = Some("/home/pay/prices.csv".into());
        let end = t.destination.as_mut().unwrap();
        (end.path, end.bytes) = (Some(path), content.len() as u64);
        end.sha256 = Some(entry::hex(&Sha256::digest(content)));
        t
    }

    fn deed(&mut self, kind: DeedKind) {
        self.deed_at(kind, &self.path());
    }

    fn deed_at(&mut self, kind: DeedKind, path: &Path) {
        let stat = std::fs::metadata(path).ok();
        let inode =
            stat.map(|s| (std::os::unix::fs::MetadataExt::dev(&s), std::os::unix::fs::MetadataExt::ino(&s)));
        let process = Process { pid: 77, ..Process::default() };
        self.now += SignedDuration::from_secs(1);
        let path = path.to_str().unwrap().into();
        self.delivered.deed(self.now, &Deed { seen: self.now, process, path, inode, kind });
    }

    /// Time goes on; what is due meanwhile is read.
    fn pass(&mut self, span: SignedDuration) -> Vec<Finding> {
        let until = self.now + span;
        let mut found = Vec::new();
        while let Some(due) = self.delivered.next().filter(|d| *d <= until) {
            self.now = self.now.max(due);
            if let Some(ask) = self.delivered.ask(self.now) {
                self.reader.ask(ask);
                let answer = self.answers.recv_timeout(std::time::Duration::from_secs(120)).unwrap();
                found.extend(self.delivered.answer(self.now, answer));
            }
        }
        self.now = until;
        found
    }
}

const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn content() -> Vec<u8> {
    (0..100_000u32).flat_map(u32::to_le_bytes).collect()
}

#[test]
fn a_change_is_said_once_with_its_range_and_again_when_it_changes_again() {
    let mut scene = Scene::new();
    scene.deliver(&content());
    assert_eq!(scene.pass(HOUR * 3), []);
    let mut changed = content();
    changed[50_000] ^= 1;
    scene.write(&changed);
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1, "{found:#?}");
    let f = &found[0];
    assert_eq!((f.rule.as_str(), f.severity), ("delivered-file-changed", Severity::High));
    assert_eq!(f.altered, [crate::model::Range { offset: 49_152, length: 16_384 }]);
    assert_eq!(f.evidence["sha256_delivered"], entry::hex(&Sha256::digest(content())));
    assert_eq!(f.evidence["sha256_found"], entry::hex(&Sha256::digest(&changed)));
    assert_eq!(f.evidence["delivered_by"]["exe"], "/usr/sbin/nginx");
    assert_eq!(f.evidence["replaced_by_another_file"], false);
    assert!(f.message.contains("alpha:/home/pay/prices.csv"), "{}", f.message);
    assert_eq!(scene.pass(HOUR * 10), [], "once");
    changed[0] ^= 1;
    scene.write(&changed);
    assert_eq!(scene.pass(HOUR * 2).len(), 1, "another change");
    scene.write(&content());
    assert_eq!(scene.pass(HOUR * 2), [], "as it was");
    changed[0] ^= 2;
    scene.write(&changed);
    assert_eq!(scene.pass(HOUR * 2).len(), 1);
}

#[test]
fn what_observed_processes_do_is_what_is_meant() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    scene.pass(HOUR * 2);
    scene.write(b"two");
    scene.deed(DeedKind::Written);
    assert_eq!(scene.pass(HOUR * 3), []);
    scene.write(b"three");
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1, "the new baseline holds");
    assert_eq!(found[0].evidence["delivered_by"]["pid"], 77);
    scene.deliver(b"four");
    assert_eq!(scene.pass(HOUR * 3), [], "delivered anew");
    std::fs::remove_file(scene.path()).unwrap();
    scene.deed(DeedKind::Removed);
    assert_eq!(scene.pass(HOUR * 3), []);
    assert!(scene.delivered.is_empty());
}

#[test]
fn a_write_whose_word_comes_late_raises_nothing() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    scene.pass(HOUR / 2);
    scene.write(b"two");
    // Found different once …
    let due = scene.delivered.next().unwrap();
    assert_eq!(scene.pass(due.duration_since(scene.now)), []);
    // … then the writer closes it.
    scene.deed(DeedKind::Written);
    assert_eq!(scene.pass(HOUR * 3), []);
}

#[test]
fn the_delivery_itself_told_late_is_no_new_baseline() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    let path = scene.path().to_str().unwrap().to_owned();
    let seen = scene.now - SignedDuration::from_millis(1);
    let deed = Deed { seen, process: Process::default(), path, inode: None, kind: DeedKind::Written };
    scene.delivered.deed(scene.now, &deed);
    scene.write(b"two");
    assert_eq!(scene.pass(HOUR).len(), 1);
}

#[test]
fn who_lies_about_a_file_hides_nothing() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    scene.pass(HOUR);
    for kind in [DeedKind::Written, DeedKind::Removed] {
        scene.deed(kind);
    }
    // Another name for it, says who can't rename it; to find it by its inode anybody may.
    let elsewhere = scene.dir.path().join("elsewhere");
    std::fs::hard_link(scene.path(), &elsewhere).unwrap();
    scene.deed_at(DeedKind::Renamed, &elsewhere);
    scene.write(b"two");
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].evidence["sha256_delivered"], entry::hex(&Sha256::digest(b"one")));
}

#[test]
fn a_renamed_file_is_followed() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    scene.pass(HOUR);
    let to = scene.path().with_file_name("done.csv");
    std::fs::rename(scene.path(), &to).unwrap();
    scene.deed_at(DeedKind::Renamed, &to);
    assert_eq!(scene.pass(HOUR * 2), []);
    std::fs::write(&to, b"two").unwrap();
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].evidence["path"], to.to_str().unwrap());
}

/// rsync writes under a name of its own and renames at the end; its transfer is told after that.
#[test]
fn a_delivery_by_rename_over_an_earlier_one() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    scene.pass(HOUR);
    let ended = scene.now;
    let temporary = scene.path().with_file_name(".prices.csv.Ab12Cd");
    std::fs::write(&temporary, b"two").unwrap();
    std::fs::rename(&temporary, scene.path()).unwrap();
    scene.deed(DeedKind::Renamed);
    // By the same process, and by now a second old.
    let mut t = scene.transfer(b"two");
    (t.ended, t.destination.as_mut().unwrap().pid) = (ended, 77);
    scene.delivered.transfer(scene.now, &t, true);
    assert_eq!(scene.pass(HOUR * 2), []);
    scene.write(b"three");
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].transfer, Some(t.id), "it is known which delivery it was");
}

#[test]
fn gone_replaced_and_grown_have_words_of_their_own() {
    let mut scene = Scene::new();
    scene.deliver(&content());
    scene.pass(HOUR);
    let mut longer = content();
    longer.extend(b"more");
    // Another file under the same name.
    let other = scene.path().with_extension("new");
    std::fs::write(&other, &longer).unwrap();
    std::fs::rename(&other, scene.path()).unwrap();
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].evidence["found"], "appended");
    assert_eq!(found[0].evidence["replaced_by_another_file"], true);
    assert!(found[0].message.contains("4 more bytes at its end"), "{}", found[0].message);
    std::fs::remove_file(scene.path()).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", scene.path()).unwrap();
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, &found[0].evidence["found"]), (Severity::High, &"no-regular-file".into()));
    std::fs::remove_file(scene.path()).unwrap();
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].severity, &found[0].evidence["found"]), (Severity::Low, &"gone".into()));
    assert!(scene.delivered.is_empty());
}

#[test]
fn a_file_that_was_cleared_away_before_the_first_look_is_no_news() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    std::fs::remove_file(scene.path()).unwrap();
    assert_eq!(scene.pass(HOUR * 2), []);
    assert!(scene.delivered.is_empty());
}

#[test]
fn a_file_system_that_is_away_is_no_news() {
    let mut scene = Scene::new();
    scene.deliver(b"one");
    scene.pass(HOUR);
    let (folder, away) = (scene.path().parent().unwrap().to_owned(), scene.dir.path().join("away"));
    std::fs::rename(&folder, &away).unwrap();
    assert_eq!(scene.pass(HOUR * 3), []);
    std::fs::rename(&away, &folder).unwrap();
    assert_eq!(scene.pass(HOUR * 3), []);
    assert_eq!(scene.delivered.len(), 1);
}

#[test]
fn only_intact_deliveries_to_paths_that_opted_in() {
    let mut scene = Scene::new();
    let path = scene.write(b"x");
    let mut t = sample::transfer(Verdict::Unverified);
    t.channel = Channel::File;
    let end = t.destination.as_mut().unwrap();
    (end.path, end.sha256) = (Some(path.clone()), Some("00".repeat(32)));
    scene.delivered.transfer(scene.now, &t, true);
    assert!(scene.delivered.is_empty());
    t.verdict = Verdict::Intact;
    t.destination.as_mut().unwrap().path = Some(format!("{path}/../../x"));
    t.destination.as_mut().unwrap().path = Some("/srv/elsewhere".into());
    scene.delivered.transfer(scene.now, &t, true);
    assert!(scene.delivered.is_empty());
    t.destination.as_mut().unwrap().path = Some(path);
    scene.delivered.transfer(scene.now, &t, true);
    assert_eq!(scene.delivered.len(), 1);
    scene.delivered.reload(&Integrity::default());
    assert!(scene.delivered.is_empty() && scene.delivered.off());
}

#[test]
fn a_restart_forgets_nothing() {
    use crate::ledger::{Ledger, Scribe};
    let mut scene = Scene::new();
    let state = scene.dir.path().join("state");
    let settings = Scene::settings(&scene.dir);
    let begin = |scene: &mut Scene| {
        let ledger = Ledger::open(&state, crate::config::Ledger::default()).unwrap();
        let recalled = ledger.recall(KIND).unwrap();
        let scribe = Scribe::start(ledger).unwrap();
        scene.delivered = Delivered::new(&settings, Some(scribe.memory(KIND)));
        scene.delivered.resume(scene.now, recalled);
        scribe
    };
    let end = |scene: &mut Scene, scribe: Scribe| {
        scene.delivered = Delivered::new(&settings, None);
        scribe.finish();
    };
    let scribe = begin(&mut scene);
    scene.deliver(&content());
    assert_eq!(scene.pass(HOUR * 2), []);
    end(&mut scene, scribe);
    scene.write(b"while it was away");
    let scribe = begin(&mut scene);
    let found = scene.pass(HOUR * 2);
    assert_eq!(found.len(), 1);
    assert!(found[0].evidence["last_good"].is_string());
    end(&mut scene, scribe);
    let scribe = begin(&mut scene);
    assert_eq!(scene.pass(HOUR * 2), [], "it was said");
    end(&mut scene, scribe);
}
