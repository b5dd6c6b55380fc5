//! `[[alarms.carrier]]`: the way by which process alarms travel.
//!
//! Comes in: its tables. Goes out: [`Carrier`]s and mistakes. Called by `read`.
#![forbid(unsafe_code)]

use super::intake::{at_least, topics};
use super::section::{Mistakes, Section, tables};
use std::time::Duration;

/// One `[[alarms.carrier]]`: the way by which process alarms travel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Carrier {
    /// The tag it is about; None: the topic is.
    pub tag: Option<String>,
    /// MQTT topic filters: messages are compared one by one.
    pub topics: Vec<String>,
    /// The origin's program, or the destination's: name or path.
    pub program: Option<String>,
    /// The service's address, `ip:port`, or its port alone.
    pub service: Option<String>,
    /// How long a message may be on its way.
    pub wait: Duration,
}

/// How long a message may be on its way, unless configured.
const WAIT: Duration = Duration::from_secs(30);

/// All `[[alarms.carrier]]`.
pub(super) fn carriers(alarms: &mut Section<'_, '_>, m: &mut Mistakes) -> Vec<Carrier> {
    let mut all = Vec::new();
    for mut s in tables(alarms, "carrier", "[[alarms.carrier]]", m) {
        let span = s.span.clone();
        let service = s.parsed("service", m, |text| {
            let port = text.parse::<u16>().is_ok_and(|p| p != 0);
            match port || text.parse::<std::net::SocketAddr>().is_ok() {
                true => Ok(text.to_owned()),
                false => {
                    Err(format!("`{text}`: write the service's address as `10.0.0.5:5432`, or its port"))
                }
            }
        });
        let carrier = Carrier {
            tag: s.string("tag", m).map(|(t, _)| t.to_owned()),
            topics: topics(&mut s, m),
            program: s.string("program", m).map(|(p, _)| p.to_owned()),
            service,
            wait: s.parsed("wait", m, at_least(100)).unwrap_or(WAIT),
        };
        let by_flow = carrier.program.is_some() || carrier.service.is_some();
        match (carrier.topics.is_empty(), by_flow) {
            (true, false) => m.at(&span, "a carrier needs topics (MQTT), or a program or service"),
            (false, true) => m.at(&span, "topics, or program and service: not both in one carrier"),
            _ => {}
        }
        if by_flow && carrier.tag.is_none() {
            m.at(&span, "a carrier with a program or service needs the tag that it carries");
        }
        s.finish(m);
        all.push(carrier);
    }
    all
}
