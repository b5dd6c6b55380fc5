//! Two programs' records in every order in which their lanes may be read.

use super::*;
use crate::config::{Egress, Media, Sensitive};
use crate::model::Severity;
use crate::pipeline::StreamDigest;
use crate::sensitive::Setup;
use crate::sensitive::told::Ground;
use crate::tags::Tagger;
use std::sync::RwLock;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1000 * SECOND;
const FILE: &str = "/nowhere/secret.png";
const PIPE: Inode = (9, 77);

/// The same, at that time.
fn at(time: u64, mut record: Record) -> Record {
    match &mut record {
        Record::Opened(r) => r.header.time = time,
        Record::Named(r) => r.header.time = time,
        Record::Blocks(r) => r.header.time = time,
        Record::File(r) => r.header.time = time,
        Record::Ended(r) => r.header.time = time,
        _ => unreachable!("no such record here"),
    }
    record
}

fn pipe(tap: Tap) -> Record {
    opened(2, Channel::Pipe, |o| {
        ((o.device, o.inode), o.header.tap) = (PIPE, tap as u8);
    })
}

/// `cat FILE |`
fn reader() -> Vec<Record> {
    let mut named: Named = bytemuck::Zeroable::zeroed();
    named.header = header(Kind::Named, 1);
    (named.about, named.length, named.total) = (Naming::Path as u8, FILE.len() as u16, FILE.len() as u16);
    (named.device, named.inode) = (1, 5);
    named.text[..FILE.len()].copy_from_slice(FILE.as_bytes());
    let mut file: File = bytemuck::Zeroable::zeroed();
    file.header = header(Kind::File, 1);
    file.header.flags = LAST;
    file.read_bytes = BLOCK;
    vec![
        opened(1, Channel::File, |o| (o.device, o.inode) = (1, 5)),
        Record::Named(named),
        block(1, Tap::FileRead, 0, 7),
        pipe(Tap::PipeWrite),
        block(2, Tap::PipeWrite, 0, 7),
        Record::File(file),
        ended(1, How::Closed, 0, BLOCK, |_| {}),
        ended(2, How::Closed, BLOCK, 0, |_| {}),
    ]
}

/// `| nc`
fn sender() -> Vec<Record> {
    vec![
        pipe(Tap::PipeRead),
        opened(3, Channel::Tcp, |o| {
            (o.device, o.inode, o.header.flags) = (9, 78, CONNECTED);
            (o.local, o.remote) = (address(1, 5), address(2, 80));
        }),
        block(2, Tap::PipeRead, 0, 7),
        block(3, Tap::SockSend, 0, 7),
        ended(2, How::Closed, 0, BLOCK, |_| {}),
        ended(3, How::Closed, BLOCK, 0, |e| e.kernel_out = BLOCK),
    ]
}

/// What a file that goes through a pipe to somebody who sends it is known by does not depend on whose lane is read first.
#[test]
fn what_is_proven_is_proven_in_any_order() {
    let own = Sensitive { path: FILE.into(), label: "mine".into(), severity: Severity::Critical };
    let egress = Egress { sensitive: vec![own], sensitive_paths: Some(vec![]), ..Egress::default() };
    let setup = Setup::start(&egress, Tagger::new([7; 16], StreamDigest::Mac), &[7; 16], None).unwrap();
    let mut state = 88172645463325252;
    for round in 0..100 {
        let mut t = table(Told::default());
        t.now = START;
        t.assembler.follow(&setup);
        t.assembler.follow_media(Arc::new(RwLock::new(Media::default()))).unwrap();
        for arena in [1, 2] {
            // As a shell starts them.
            let pipe = Inherited { number: 2, inode: PIPE, held: true, access: None };
            t.assembler.register(arena, facts(arena as u32, 0), true, t.now, vec![pipe]);
        }
        let mut lanes = [(1, reader().into_iter()), (2, sender().into_iter())];
        let mut time = START;
        // First all of one, all of the other, then any mixture.
        while lanes.iter().any(|(_, lane)| lane.len() > 0) {
            let of = match round {
                0 => usize::from(lanes[0].1.len() == 0),
                1 => usize::from(lanes[1].1.len() > 0),
                _ => random(&mut state) as usize % 2,
            };
            let (arena, lane) = &mut lanes[of];
            let Some(record) = lane.next() else { continue };
            time += 1000;
            t.say(*arena, at(time, record));
            // Now and then a look at everything, which may forget what nobody asked for.
            if random(&mut state).is_multiple_of(4) {
                t.now =
                    t.now.max(time) + if random(&mut state).is_multiple_of(4) { SECOND + 1 } else { 1000 };
                t.assembler.tick(t.now);
            }
        }
        t.wait(1);
        t.assembler.finish_all();
        let (mut secret, mut picture) = (false, false);
        for judged in &t.assembler.out {
            let Judged::Notice(notice) = judged else { continue };
            let who = notice.process.as_ref().map(|p| p.pid);
            match &notice.what {
                What::SensitiveEgress(found) => {
                    secret |= matches!(found.ground, Ground::Content { .. }) && who == Some(2);
                }
                What::Media(found) => picture |= found.proven && found.rule == "media-egress",
                _ => {}
            }
        }
        assert!(secret && picture, "round {round}: secret {secret}, picture {picture}");
    }
}
