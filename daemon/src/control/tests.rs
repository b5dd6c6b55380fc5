//! A desk, its control socket, and people who ask.

use super::client::{Found, of_socket};
use super::*;
use crate::config::Config;
use crate::desk::Desk;
use crate::judged::Judged;
use crate::ledger::{Filter, Reader};
use crate::model::{AlarmState, Verdict};
use crate::sample;
use crossbeam::channel::{Sender, bounded, never};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;

struct Scene {
    dir: tempfile::TempDir,
    judged: Option<Sender<Judged>>,
    desk: Option<JoinHandle<()>>,
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut scene = Self { dir, judged: None, desk: None };
        scene.start();
        scene
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }

    fn start(&mut self) {
        let config = Config::default();
        let desk = Desk::open(&config, Some(self.state())).unwrap().controlled(&config, &self.socket());
        assert!(desk.owns());
        let (judged, words) = bounded(8);
        self.judged = Some(judged);
        self.desk = Some(std::thread::spawn(move || drop(desk.serve(&words, &never()))));
    }

    fn stop(&mut self) {
        self.judged = None;
        self.desk.take().unwrap().join().unwrap();
    }

    fn altered(&self) -> Alarm {
        let mut transfer = Box::new(sample::transfer(Verdict::Altered));
        // What is long past is forgotten at once.
        transfer.ended = Timestamp::now();
        let word = Judged::Transfer { transfer, context: Box::new(sample::context()) };
        self.judged.as_ref().unwrap().send(word).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while std::time::Instant::now() < end {
            if let Some(alarm) = Reader::open(&self.state()).unwrap().alarms().unwrap().pop() {
                return alarm;
            }
            std::thread::yield_now();
        }
        panic!("no alarm");
    }

    fn ask(&self, request: &Request) -> (Vec<Reply>, Reply) {
        let Found::Daemon(mut client) = of_socket(&self.socket()) else { panic!("nobody answers") };
        let mut replies = vec![];
        let last = client
            .ask(request, |reply| {
                replies.push(reply);
                true
            })
            .unwrap();
        (replies, last)
    }

    fn change(&self, id: &str, action: Action) -> (Vec<Reply>, Reply) {
        self.ask(&Request::Change { id: id.into(), action, comment: Some("why".into()) })
    }

    fn state_in_file(&self) -> AlarmState {
        Reader::open(&self.state()).unwrap().alarms().unwrap()[0].state
    }
}

#[test]
fn what_is_answered_is_committed() {
    let mut scene = Scene::new();
    let id = scene.altered().id.to_string();
    let (replies, last) = scene.change(&id, Action::Acknowledge);
    assert_eq!(last, Reply::End(1));
    let [Reply::Alarm(alarm)] = &replies[..] else { panic!("{replies:?}") };
    let changed = alarm.changed.as_ref().unwrap();
    assert_eq!(
        (alarm.state, changed.uid),
        (AlarmState::Acknowledged, Some(rustix::process::getuid().as_raw()))
    );
    assert_eq!(scene.state_in_file(), AlarmState::Acknowledged, "at this moment");
    assert!(matches!(scene.change(&id, Action::Acknowledge).1, Reply::Refused(_)));
    assert!(matches!(scene.change("ffff", Action::Clear).1, Reply::Refused(_)));
    for seconds in [0, 8 * 86_400] {
        assert!(matches!(scene.change(&id, Action::Shelve { seconds: Some(seconds) }).1, Reply::Refused(_)));
    }
    let (replies, _) = scene.change(&id, Action::Shelve { seconds: None });
    let [Reply::Alarm(alarm)] = &replies[..] else { panic!("{replies:?}") };
    let until = alarm.changed.as_ref().unwrap().until.unwrap();
    let hours = until.duration_since(Timestamp::now()).as_secs_f64() / 3600.0;
    assert!((7.9..=8.0).contains(&hours), "as configured: {hours}");

    let (replies, last) = scene.ask(&Request::List { filter: Filter::default() });
    assert_eq!((replies.len(), last), (1, Reply::End(1)));
    let (replies, _) = scene.ask(&Request::Show { id: id.clone() });
    let [Reply::Shown(shown)] = &replies[..] else { panic!("{replies:?}") };
    assert_eq!(shown.history.len(), 3);
    assert!(matches!(&scene.ask(&Request::Stats).0[..], [Reply::Stats(load)] if load.states["shelved"] == 1));

    // Another person at the same time, without a daemon: the list is the daemon's.
    let limits = config::Alarms::default();
    let alone = || offline::change(&scene.state(), &id, Action::Unshelve, None, &limits);
    assert!(alone().unwrap_err().to_string().contains("no alarm can be changed now"));
    scene.stop();
    assert!(matches!(of_socket(&scene.socket()), Found::Nobody));
    assert!(!scene.state().join("control").is_symlink(), "nothing is left behind");
    let limits = config::Alarms::default();
    let alone = |action| offline::change(&scene.state(), &id, action, None, &limits).unwrap();
    assert_eq!(alone(Action::Unshelve).unwrap().state, AlarmState::Unacknowledged);
    assert!(alone(Action::Unshelve).unwrap_err().contains("not shelved"));
    scene.start();
    let (replies, _) = scene.change(&id, Action::Clear);
    assert!(matches!(&replies[..], [Reply::Alarm(a)] if a.state == AlarmState::Normal && a.count == 1));
    scene.stop();
}

#[test]
fn nonsense_costs_nothing_but_its_connection() {
    let mut scene = Scene::new();
    scene.altered();
    let control = path(&scene.socket());
    for junk in
        [&b"\n"[..], b"{}\n", b"{\"do\":\"reboot\"}\n", b"\xff\xfe\n", &[b'x'; 70_000], b"{\"do\":\"stats\""]
    {
        let stream = UnixStream::connect(&control).unwrap();
        // It may hang up before all is written.
        let _ = (&stream).write_all(junk);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = BufReader::new(&stream).read_line(&mut answer);
        assert!(answer.is_empty(), "{answer}");
    }
    // Who says nothing takes no more than a place.
    let silent: Vec<UnixStream> = (0..4).map(|_| UnixStream::connect(&control).unwrap()).collect();
    assert!(matches!(scene.ask(&Request::Stats).1, Reply::End(1)));
    drop(silent);
    scene.stop();
}
