use super::*;
use crate::model::{ProcessName, Severity};
use crate::sample;
use std::fs;

/// A small root of our own, and a clock that is ahead of the files' times.
struct Scene {
    root: tempfile::TempDir,
    workflow: Workflow,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let scene = Self {
            workflow: Workflow::new(&Watch::default(), root.path(), vec![], None),
            root,
            now: Timestamp::now(),
        };
        scene.put("etc/ssh/sshd_config", "Include /etc/ssh/more/*.cfg\nPort 22\n");
        scene.put("etc/ssh/sshd_config.d/a.conf", "X11Forwarding no\n");
        scene.put("etc/ssh/more/b.cfg", "UseDNS no\n");
        scene.put("etc/passwd", "pay:x:0:0::/home/pay:/bin/sh\nwww:x:33:33::/var/www:/usr/sbin/nologin\n");
        scene.put("home/pay/.ssh/authorized_keys", "ssh-ed25519 AAAA one\n");
        scene.put("etc/cron.d/send", "0 3 * * * pay scp /srv/a b:\n");
        scene.put("etc/cron.d/other", "0 3 * * * root /usr/bin/updatedb\n");
        scene.put("usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so", "ELF");
        scene
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    /// A look an hour later, and again until nothing moves.
    fn look(&mut self) -> Vec<Finding> {
        self.now += SignedDuration::from_hours(1);
        let mut found = Vec::new();
        loop {
            let (more, soon) = self.workflow.look(self.now);
            found.extend(more);
            if !soon {
                return found;
            }
            self.now += SignedDuration::from_secs(2);
        }
    }

    fn wrote(&mut self, path: &Path, by: Process) {
        let stat = fs::metadata(path).unwrap();
        let path = path.to_str().unwrap().to_owned();
        self.workflow.done(Done { at: self.now, path, inode: Some((stat.dev(), stat.ino())), process: by });
    }
}

fn vim() -> Process {
    sample::process(99, "/usr/bin/vim.basic")
}

#[test]
fn nothing_is_said_about_what_stays_or_only_looks_other() {
    let mut scene = Scene::new();
    assert_eq!(scene.look(), []);
    assert!(scene.workflow.known().len() >= 7, "{:#?}", scene.workflow.known());
    assert_eq!(scene.look(), []);
    // Written again, moved in anew: the same content.
    let path = scene.put("etc/ssh/sshd_config", "Include /etc/ssh/more/*.cfg\nPort 22\n");
    fs::copy(&path, path.with_extension("new")).unwrap();
    fs::rename(path.with_extension("new"), &path).unwrap();
    scene.put("etc/ssh/sshd_config.d/a.conf~", "left by an editor");
    scene.put("etc/ssh/sshd_config.d/.a.conf.swp", "left by an editor");
    scene.put("etc/ssh/sshd_config.d/a.conf.dpkg-old", "left by dpkg");
    scene.put("etc/cron.d/other", "0 4 * * * root /usr/bin/updatedb\n");
    scene.put("home/pay/.ssh/known_hosts", "x");
    assert_eq!(scene.look(), []);
}

#[test]
fn a_change_is_said_once_with_both_digests_and_by_whom() {
    let mut scene = Scene::new();
    scene.look();
    let path = scene.put("etc/ssh/sshd_config", "Include /etc/ssh/more/*.cfg\nPort 2222\n");
    scene.wrote(&path, vim());
    let found = scene.look();
    assert_eq!(found.len(), 1, "{found:#?}");
    let f = &found[0];
    assert_eq!((f.rule.as_str(), f.severity), ("workflow-changed", Severity::Medium));
    assert_eq!(f.process.as_ref().unwrap().pid, 99);
    assert!(f.title.starts_with("Configuration of sshd changed: /"), "{}", f.title);
    assert!(f.message.contains("by vim.basic (pid 99), user pay"), "{}", f.message);
    assert_ne!(f.evidence["sha256_before"], f.evidence["sha256_found"]);
    assert_eq!(scene.look(), [], "once");
    scene.put("etc/ssh/sshd_config", "Port 1\n");
    let found = scene.look();
    assert_eq!(found.len(), 1);
    assert!(found[0].message.contains("not observed by whom") || found[0].process.is_some());
}

#[test]
fn each_kind_of_place() {
    let mut scene = Scene::new();
    scene.look();
    for (name, text, words, severity) in [
        (
            "etc/ssh/sshd_config.d/z.conf",
            "PermitRootLogin yes\n",
            "Configuration of sshd appeared",
            Severity::Medium,
        ),
        ("etc/ssh/more/b.cfg", "UseDNS yes\n", "Configuration of sshd changed", Severity::Medium),
        (
            "home/pay/.ssh/authorized_keys",
            "ssh-ed25519 BBBB\n",
            "Login keys of sshd changed",
            Severity::Medium,
        ),
        (
            "usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so",
            "ELG",
            "Provider of openssl changed",
            Severity::Medium,
        ),
        (
            "usr/lib/x86_64-linux-gnu/ossl-modules/evil.so",
            "ELF",
            "Provider of openssl appeared",
            Severity::Medium,
        ),
        ("etc/ld.so.preload", "/tmp/x.so\n", "Provider of every program appeared", Severity::Medium),
        (
            "etc/cron.d/send",
            "0 3 * * * pay scp /srv/a c:\n",
            "A cron job that starts watched",
            Severity::Medium,
        ),
        (
            "etc/cron.d/new",
            "* * * * * root curl http://x\n",
            "A cron job that starts watched",
            Severity::Medium,
        ),
    ] {
        scene.put(name, text);
        let found = scene.look();
        assert_eq!(found.len(), 1, "{name}: {found:#?}");
        assert!(found[0].title.starts_with(words), "{}", found[0].title);
        assert_eq!(found[0].severity, severity);
    }
    fs::remove_file(scene.root.path().join("etc/cron.d/send")).unwrap();
    fs::remove_file(scene.root.path().join("etc/cron.d/other")).unwrap();
    let found = scene.look();
    assert_eq!(found.len(), 1, "only ours: {found:#?}");
    assert!(found[0].title.contains("is gone") && found[0].title.contains("send"), "{}", found[0].title);
}

#[test]
fn a_writer_is_found_through_a_rename() {
    let mut scene = Scene::new();
    scene.look();
    let temporary = scene.put("etc/ssh/sedXXXX", "Port 3\n");
    scene.wrote(&temporary, vim());
    fs::rename(&temporary, scene.root.path().join("etc/ssh/sshd_config")).unwrap();
    let found = scene.look();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].evidence["written_by"]["pid"], 99);
    assert_eq!(found[0].evidence["replaced_by_another_file"], true);
}

#[test]
fn what_a_package_brings_is_said_as_that() {
    let mut scene = Scene::new();
    scene.look();
    let path = scene.put("usr/lib/x86_64-linux-gnu/ossl-modules/legacy.so", "ELF 2");
    let mut dpkg = sample::process(98, "/usr/bin/tar");
    dpkg.parents = vec![ProcessName { pid: 97, exe: Some("/usr/bin/dpkg".into()) }];
    scene.wrote(&path, dpkg);
    let found = scene.look();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Info);
    assert!(found[0].message.contains("dpkg"), "{}", found[0].message);
}

#[test]
fn a_script_that_starts_transfers_is_learnt() {
    let mut scene = Scene::new();
    scene.look();
    let copy = scene.put("opt/pay/send.sh", "scp a b:\n");
    let place = Place::new(places::What::Script, "scp", glob::Pattern::escape(copy.to_str().unwrap()));
    assert!(scene.workflow.places.learn(copy.clone(), place));
    assert_eq!(scene.look(), [], "learnt first");
    fs::remove_file(&copy).unwrap();
    assert_eq!(scene.look(), [], "a script that is away starts nothing");
    scene.put("opt/pay/send.sh", "scp a b:\n");
    assert_eq!(scene.look(), [], "the same again");
    scene.put("opt/pay/send.sh", "scp a c:\n");
    let found = scene.look();
    assert_eq!(found.len(), 1);
    assert!(found[0].title.starts_with("A script that starts scp changed"), "{}", found[0].title);
}

#[test]
fn a_change_while_no_daemon_ran_is_found() {
    use crate::ledger::{Ledger, Scribe};
    let mut scene = Scene::new();
    let state = scene.root.path().join("state");
    let begin = |scene: &mut Scene| {
        let ledger = Ledger::open(&state, crate::config::Ledger::default()).unwrap();
        let recalled = ledger.recall(KIND).unwrap();
        let scribe = Scribe::start(ledger).unwrap();
        let memory = Some(scribe.memory(KIND));
        scene.workflow = Workflow::new(&Watch::default(), scene.root.path(), recalled, memory);
        scribe
    };
    let end = |scene: &mut Scene, scribe: Scribe| {
        scene.workflow = Workflow::new(&Watch::default(), scene.root.path(), vec![], None);
        scribe.finish();
    };
    let scribe = begin(&mut scene);
    assert_eq!(scene.look(), []);
    end(&mut scene, scribe);
    scene.put("etc/ssh/sshd_config", "Port 4\n");
    scene.put("etc/ssh/sshd_config.d/new.conf", "Port 5\n");
    let scribe = begin(&mut scene);
    let found = scene.look();
    assert_eq!(found.len(), 2, "{found:#?}");
    end(&mut scene, scribe);
    let scribe = begin(&mut scene);
    assert_eq!(scene.look(), []);
    end(&mut scene, scribe);
}

#[test]
fn a_user_added_later_brings_no_alarm() {
    let mut scene = Scene::new();
    scene.look();
    scene.put("home/new/.ssh/authorized_keys", "ssh-ed25519 CCCC\n");
    scene.put("etc/passwd", "pay:x:0:0::/home/pay:/bin/sh\nnew:x:0:0::/home/new:/bin/sh\n");
    assert_eq!(scene.look(), []);
    scene.put("home/new/.ssh/authorized_keys", "ssh-ed25519 DDDD\n");
    assert_eq!(scene.look().len(), 1);
}
