use super::*;
use crate::alarms::state::{Event, Standing};
use crate::config;
use crate::model::{Alarm, Verdict};
use crate::{alarms::Alarms, detect::Rules, judged::Judged, sample};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn limits() -> config::Ledger {
    config::Ledger::default()
}

fn recent(verdict: Verdict) -> Transfer {
    let mut t = sample::transfer(verdict);
    t.ended = Timestamp::now();
    t
}

fn all(dir: &Path, filter: TransferFilter) -> Vec<Transfer> {
    let mut out = vec![];
    let reader = Reader::open(dir).unwrap();
    reader
        .transfers(filter, |t| {
            out.push(t);
            true
        })
        .unwrap();
    out
}

/// An alarm that was raised, and the list that it is in.
fn alarm() -> (Alarms, Alarm) {
    let transfer = Box::new(recent(Verdict::Altered));
    let judged = Judged::Transfer { transfer, context: Box::new(sample::context()) };
    let mut alarms = Alarms::resume([]);
    let alarm = alarms.take(Rules::default().findings(&judged).remove(0)).alarm;
    (alarms, alarm)
}

#[test]
fn what_goes_in_comes_out() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut ledger = Ledger::open(&state, limits()).unwrap();
    let (good, bad) = (recent(Verdict::Intact), recent(Verdict::Altered));
    let (mut alarms, alarm) = alarm();
    ledger.transfer(Arc::new(good.clone()));
    ledger.transfer(Arc::new(bad.clone()));
    let row = alarms.next_write().unwrap();
    ledger.alarm(row.clone());
    // A later word without the finding: the columns count.
    ledger.alarm(AlarmRow { count: 2, alarm: None, changes: vec![], ..row });
    ledger.commit().unwrap();
    // Read while the writer has it open, as `transfers` beside a daemon does.
    assert_eq!(all(&state, TransferFilter::default()), [good.clone(), bad.clone()]);
    let filter = TransferFilter { verdict: Some(Verdict::Altered), ..Default::default() };
    assert_eq!(all(&state, filter), [bad]);
    let since = Some(Timestamp::now() + jiff::SignedDuration::from_secs(1));
    assert!(all(&state, TransferFilter { since, ..Default::default() }).is_empty());
    let alarms = Reader::open(&state).unwrap().alarms().unwrap();
    assert_eq!(alarms, [Alarm { count: 2, ..alarm }]);
    for (path, mode) in [("", 0o700), (FILE, 0o600), ("ledger.sqlite-wal", 0o600)] {
        let found = std::fs::metadata(state.join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{path}");
    }
}

/// Not a test: what the next one kills. It writes transfers and says how many are committed.
#[test]
fn writer_that_is_killed() {
    let Ok(dir) = std::env::var("COUNTERFOIL_TEST_LEDGER") else { return };
    let mut ledger = Ledger::open(Path::new(&dir), limits()).unwrap();
    for i in 1.. {
        ledger.transfer(Arc::new(recent(Verdict::Intact)));
        ledger.commit().unwrap();
        println!("committed {i}");
    }
}

#[test]
fn what_was_committed_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 1..=3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["ledger::tests::writer_that_is_killed", "--exact", "--nocapture"])
            .env("COUNTERFOIL_TEST_LEDGER", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut said = 0;
        for line in lines {
            if let Some(n) = line.split("committed ").nth(1) {
                said = n.parse().unwrap();
                // Not at a tidy place: it goes on writing until the signal hits.
                if said >= 50 * round {
                    let _ = child.kill();
                }
            }
        }
        child.wait().unwrap();
        let found = all(dir.path(), TransferFilter::default()).len();
        assert!(found >= total + said, "round {round}: {found} rows, {} were committed", total + said);
        total = found;
    }
}

#[test]
fn a_full_disk_loses_nothing_that_fits_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), limits()).unwrap();
    // As the kernel's ENOSPC, this makes SQLite say SQLITE_FULL.
    let pages: i64 =
        ledger.connection.as_ref().unwrap().pragma_query_value(None, "page_count", |r| r.get(0)).unwrap();
    let max = |ledger: &Ledger, n: i64| {
        ledger
            .connection
            .as_ref()
            .unwrap()
            .pragma_update_and_check(None, "max_page_count", n, |_| Ok(()))
            .unwrap();
    };
    max(&ledger, pages + 4);
    let mut failed = None;
    for _ in 0..100 {
        ledger.transfer(Arc::new(recent(Verdict::Intact)));
        if let Err(e) = ledger.commit() {
            failed = Some(e.to_string());
        }
    }
    let message = failed.expect("a hundred transfers don't fit into four pages");
    assert!(message.contains("full") && message.contains("Free some space"), "{message}");
    max(&ledger, 100_000);
    ledger.commit().unwrap();
    assert_eq!(all(dir.path(), TransferFilter::default()).len(), 100);
}

#[test]
fn a_disk_that_is_full_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let mounted = |what: &[&str]| Command::new(what[0]).args(&what[1..]).arg(dir.path()).status();
    if !mounted(&["mount", "-t", "tmpfs", "-o", "size=16k,mode=0700", "tmpfs"]).is_ok_and(|s| s.success()) {
        println!("skipped: a small file system can't be mounted (needs root)");
        return;
    }
    let filler = dir.path().join("filler");
    let _ = std::fs::write(&filler, [0; 12 << 10]);
    let mut ledger = Ledger::open(dir.path(), limits()).expect("it goes on");
    ledger.transfer(Arc::new(recent(Verdict::Intact)));
    let failed = ledger.commit().expect_err("no room").to_string();
    let more = mounted(&["mount", "-o", "remount,size=8m"]).unwrap();
    let written = ledger.commit();
    let found = all(dir.path(), TransferFilter::default()).len();
    drop(ledger);
    mounted(&["umount"]).unwrap();
    assert!(failed.contains("Free some space"), "{failed}");
    assert!(more.success() && written.is_ok());
    assert_eq!(found, 1);
}

#[test]
fn waiting_rows_are_bounded_and_no_alarm_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), limits()).unwrap();
    ledger.alarm(alarm().0.next_write().unwrap());
    let transfer = Arc::new(recent(Verdict::Intact));
    for _ in 0..WAITING + 4 {
        ledger.transfer(Arc::clone(&transfer));
    }
    assert_eq!((ledger.waiting.len(), ledger.lost()), (WAITING, 4));
    ledger.commit().unwrap();
    assert_eq!(Reader::open(dir.path()).unwrap().alarms().unwrap().len(), 1);
}

/// The tables as schema 2 had them, with one alarm.
#[test]
fn an_older_ledger_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(FILE);
    let (_, alarm) = alarm();
    {
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "CREATE TABLE alarms (
               id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, rule TEXT NOT NULL, severity INTEGER NOT NULL,
               state TEXT NOT NULL, raised INTEGER NOT NULL, last INTEGER NOT NULL, count INTEGER NOT NULL,
               json TEXT NOT NULL
             ) WITHOUT ROWID;
             CREATE INDEX alarms_last ON alarms(last);
             PRAGMA user_version = 2;",
        )
        .unwrap();
        let mut json = serde_json::to_value(&alarm).unwrap();
        json.as_object_mut().unwrap().remove("changed");
        let times = (alarm.raised.as_microsecond(), alarm.last.as_microsecond());
        old.execute(
            "INSERT INTO alarms VALUES (?1, ?2, 'payload-altered', 4, 'unacknowledged', ?3, ?4, 1, ?5)",
            params![alarm.id.to_string(), alarm.finding.key, times.0, times.1, json.to_string()],
        )
        .unwrap();
    }
    // A reader changes nothing: the older daemon may still write.
    assert!(matches!(Reader::open(dir.path()).unwrap().alarms(), Err(LedgerError::Older { .. })));
    let ledger = Ledger::open(dir.path(), limits()).unwrap();
    let rows = ledger.standing(10).unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, &rows[0].key, rows[0].standing), (alarm.id, &alarm.finding.key, Standing::NEW));
    assert_eq!(rows[0].sort, crate::alarms::sort_of(&alarm.finding));
    let read = Reader::open(dir.path()).unwrap().alarms().unwrap();
    assert_eq!(read, [Alarm { changed: None, ..alarm }]);
}

#[test]
fn old_alarms_are_forgotten_and_what_is_held_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger =
        Ledger::open(dir.path(), config::Ledger { keep: Duration::from_secs(3600), ..limits() }).unwrap();
    // The sample's moment is long past.
    let row = alarm().0.next_write().unwrap();
    let mut held = alarm().0.next_write().unwrap();
    let old = sample::moment();
    held.standing = held.standing.after(Event::Suppress).unwrap();
    for mut row in [row, held.clone()] {
        row.last = old;
        ledger.alarm(row);
    }
    ledger.commit().unwrap();
    let left: Vec<_> = ledger.standing(10).unwrap().iter().map(|r| r.id).collect();
    assert_eq!(left, [held.id]);
    let changes = "SELECT count(*) FROM alarm_changes";
    let count = |sql| ledger.connection.as_ref().unwrap().query_row(sql, [], |r| r.get::<_, i64>(0)).unwrap();
    assert_eq!(count(changes), 1, "and its history");
}

#[test]
fn old_and_superfluous_transfers_are_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let small = config::Ledger { keep: Duration::from_secs(3600), max_size: 1 << 20 };
    let mut ledger = Ledger::open(dir.path(), small).unwrap();
    ledger.transfer(Arc::new(sample::transfer(Verdict::Intact))); // of a past year
    ledger.commit().unwrap();
    assert!(all(dir.path(), TransferFilter::default()).is_empty());
    for i in 0..2000 {
        let mut t = recent(Verdict::Intact);
        t.flow = Some(format!("{i:032}"));
        t.ended += jiff::SignedDuration::from_micros(i);
        ledger.transfer(Arc::new(t));
    }
    ledger.tidied = None;
    ledger.commit().unwrap();
    assert!(used(ledger.connection.as_ref().unwrap()).unwrap() <= 1 << 20);
    let left = all(dir.path(), TransferFilter::default());
    assert!(left.len() > 100 && left.len() < 2000, "{}", left.len());
    assert_eq!(left.last().unwrap().flow.as_deref().unwrap(), format!("{:032}", 1999), "the newest stay");
}

#[test]
fn a_damaged_file_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(FILE), "this is no database, however long it may be ".repeat(100))
        .unwrap();
    let mut ledger = Ledger::open(dir.path(), limits()).unwrap();
    ledger.transfer(Arc::new(recent(Verdict::Intact)));
    ledger.commit().unwrap();
    assert_eq!(all(dir.path(), TransferFilter::default()).len(), 1);
    let kept = std::fs::read_dir(dir.path()).unwrap().flatten();
    assert!(kept.into_iter().any(|e| e.file_name().to_string_lossy().contains(".damaged-")));
}

#[test]
fn other_peoples_places_and_newer_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(dir.path()), Err(LedgerError::Place { .. })));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert!(matches!(Ledger::open(&file, limits()), Err(LedgerError::Place { .. })));
    let shared = dir.path().join("shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(matches!(Ledger::open(&shared, limits()), Err(LedgerError::Place { .. })));
    let ledger = Ledger::open(dir.path(), limits()).unwrap();
    ledger.connection.as_ref().unwrap().pragma_update(None, "user_version", 99).unwrap();
    drop(ledger);
    assert!(matches!(Ledger::open(dir.path(), limits()), Err(LedgerError::Newer { found: 99, .. })));
    assert!(matches!(Reader::open(dir.path()), Err(LedgerError::Newer { found: 99, .. })));
}

#[test]
fn the_lists_load_by_its_minutes() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::open(dir.path(), limits()).unwrap();
    let mut alarms = Alarms::resume([]);
    let now = Timestamp::from_second(Timestamp::now().as_second() / 60 * 60).unwrap();
    let mut at = |minutes: i64, name: &str| {
        let mut t = recent(Verdict::Altered);
        t.ended = now - jiff::SignedDuration::from_mins(minutes);
        let judged = Judged::Transfer { transfer: Box::new(t), context: Box::new(sample::context()) };
        let mut finding = Rules::default().findings(&judged).remove(0);
        finding.key = name.into();
        alarms.take(finding);
    };
    at(25 * 60, "nobody has looked at it for a day");
    for i in 0..25 {
        at(60, &format!("burst {i}"));
    }
    for _ in 0..4 {
        at(5, "again and again");
    }
    at(3, "another");
    std::iter::from_fn(|| alarms.next_write()).for_each(|row| ledger.alarm(row));
    ledger.minutes(&alarms.minutes());
    ledger.commit().unwrap();
    let load = Reader::open(dir.path()).unwrap().load(now).unwrap();
    assert_eq!((load.last_10_minutes, load.repeats_10_minutes, load.occurrences), (2, 3, 31));
    assert_eq!((load.states["unacknowledged"], load.standing["critical"]), (28, 28));
    assert_eq!((load.peak_10_minutes, load.peak_at), (25, Some(now - jiff::SignedDuration::from_mins(60))));
    // 61 minutes since the first of the last day, and ten beginnings from which that minute is within ten.
    assert!((load.average_10_minutes - 27.0 / 6.1).abs() < 0.001, "{}", load.average_10_minutes);
    assert!((load.flood_share - 10.0 / 61.0).abs() < 0.001, "{}", load.flood_share);
    assert_eq!((load.stale_count, load.stale.len()), (1, 1));
    assert_eq!((load.chattering_count, load.chattering[0].count), (1, 4));
    assert_eq!(load.most_frequent[0].count, 4);
    assert!(load.most_frequent.len() == 10);
}

#[test]
fn letters_are_there_until_every_sink_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut ledger = Ledger::open(&state, limits()).unwrap();
    let (mut alarms, alarm) = alarm();
    let letter = |number| Arc::new(Letter::new(number, Arc::new(alarm.clone())));
    let of_row = letter(3);
    let row = AlarmRow { letters: vec![Arc::clone(&of_row), letter(0)], ..alarms.next_write().unwrap() };
    ledger.alarm(row);
    let behind = letter(4);
    ledger.letter(Arc::clone(&behind));
    assert!(!of_row.is_committed() && !behind.is_committed());
    ledger.commit().unwrap();
    assert!(of_row.is_committed() && behind.is_committed());
    drop(ledger);
    let mut ledger = Ledger::open(&state, limits()).unwrap();
    let left = ledger.undelivered().unwrap();
    assert_eq!(left.iter().map(|l| l.number).collect::<Vec<_>>(), [3, 4], "0 is no number");
    assert_eq!(*left[0].alarm, alarm);
    ledger.delivered(3);
    ledger.commit().unwrap();
    assert_eq!(ledger.undelivered().unwrap().len(), 1);
    ledger.delivered(u64::MAX);
    ledger.commit().unwrap();
    assert!(ledger.undelivered().unwrap().is_empty());
}
