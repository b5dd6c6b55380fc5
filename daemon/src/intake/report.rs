//! A report: one thing that operations say about one tag, be it an alarm or a value.
//!
//! Comes in: an object (a database row, an MQTT payload, a JSON line, a syslog message) and the [`Mapping`] that says
//! where in it things are. Goes out: a [`Report`], bounded, or why there is none. Called by the intakes; `operations`
//! makes findings of it.
#![forbid(unsafe_code)]

use crate::config::Mapping;
use crate::escape;
use crate::model::Severity;
use jiff::Timestamp;
use serde_json::Value;

/// Characters of a text that are kept.
const LONGEST: usize = 200;

/// What is the matter with a tag. Six words, whatever a plant calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Condition {
    /// Far too high.
    Hihi,
    /// Too high.
    Hi,
    /// Too low.
    Lo,
    /// Far too low.
    Lolo,
    /// Away from its set point.
    Deviation,
    /// A contact, a mode, a fault: anything that is or is not.
    Discrete,
}

impl Condition {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Hihi, Self::Hi, Self::Lo, Self::Lolo, Self::Deviation, Self::Discrete];

    /// INTERFACE's word.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hihi => "HIHI",
            Self::Hi => "HI",
            Self::Lo => "LO",
            Self::Lolo => "LOLO",
            Self::Deviation => "deviation",
            Self::Discrete => "discrete",
        }
    }

    /// How bad, where the source doesn't say.
    #[must_use]
    pub const fn severity(self) -> Severity {
        match self {
            Self::Hihi | Self::Lolo => Severity::High,
            _ => Severity::Medium,
        }
    }

    /// The condition that a source's word means. One that is not known is a discrete one.
    fn of(word: &str) -> Self {
        let plain: String =
            word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        match plain.as_str() {
            "hihi" | "hh" | "highhigh" | "pvhihi" => Self::Hihi,
            "hi" | "h" | "high" | "pvhi" | "pvhigh" => Self::Hi,
            "lo" | "l" | "low" | "pvlo" | "pvlow" => Self::Lo,
            "lolo" | "ll" | "lowlow" | "pvlolo" => Self::Lolo,
            "dev" | "deviation" | "devhi" | "devlo" => Self::Deviation,
            _ => Self::Discrete,
        }
    }
}

/// Whether the condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It does.
    Active,
    /// It does, and somebody saw it there.
    Acknowledged,
    /// It doesn't any more.
    Normal,
}

impl State {
    /// The word in `point`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Acknowledged => "acknowledged",
            Self::Normal => "normal",
        }
    }

    /// The state that a source's word means; None: it is not known, and the condition counts as holding, since
    /// an alarm taken for a good state would be worse than the other way.
    fn of(value: &Value) -> Option<Self> {
        let word = match value {
            Value::Bool(true) => return Some(Self::Active),
            Value::Bool(false) => return Some(Self::Normal),
            Value::Number(n) => {
                return n.as_f64().map(|n| if n == 0.0 { Self::Normal } else { Self::Active });
            }
            Value::String(word) => word,
            _ => return None,
        };
        let plain: String =
            word.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
        Some(match plain.as_str() {
            "active" | "alarm" | "alm" | "on" | "true" | "1" | "raised" | "set" | "unack" | "actunack"
            | "unacknowledged" | "unackalm" => Self::Active,
            "ack" | "acked" | "acknowledged" | "actack" | "ackalm" => Self::Acknowledged,
            "normal" | "norm" | "ok" | "off" | "false" | "0" | "inactive" | "cleared" | "clear"
            | "returned" | "rtn" | "rtnunack" | "unackrtn" | "ackrtn" | "rtnack" => Self::Normal,
            _ => return None,
        })
    }
}

/// One thing that operations say.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The instrument, pump, controller …: its name in the plant.
    pub tag: String,
    /// What is the matter; None: a value, no alarm.
    pub condition: Option<Condition>,
    /// The source's own word for it.
    pub said: Option<String>,
    /// The process variable.
    pub value: Option<f64>,
    /// The value, where it is no number.
    pub value_text: Option<String>,
    /// What it should not have passed.
    pub limit: Option<f64>,
    /// `°C`, `bar` …
    pub unit: Option<String>,
    /// Whether the condition holds.
    pub state: Option<State>,
    /// When, by the source's clock.
    pub time: Option<Timestamp>,
    /// How bad, where the source says so.
    pub severity: Option<Severity>,
    /// What the source says in words.
    pub message: Option<String>,
}

/// Where an object came from, as far as a mapping may ask: `$topic`, `$payload`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Around<'a> {
    /// The MQTT topic.
    pub topic: Option<&'a str>,
}

/// Reads a report out of an object.
///
/// # Errors
/// It has no tag, or neither a value nor a condition nor a state.
pub fn read(object: &Value, around: Around<'_>, mapping: &Mapping) -> Result<Report, &'static str> {
    let get = |name: &str| find(object, around, mapping, name);
    let bare = (!object.is_object() && mapping.field("value").is_none()).then_some(object);
    let value = get("value").or(bare).map(|v| mapping.translated(v));
    // A topic is a name: where nothing else is mapped, it is the tag's.
    let topic = || around.topic.map(|t| Value::String(t.to_owned()));
    let tag = get("tag").cloned().or_else(|| mapping.field("tag").and_then(|f| special(f, around)));
    let tag = tag.or_else(|| mapping.field("tag").is_none().then(topic).flatten());
    let tag = tag.as_ref().and_then(text).ok_or("it names no tag")?;
    let said = get("condition").map(|v| mapping.translated(v)).and_then(|v| text(&v));
    let state = get("state").map(|v| mapping.translated(v));
    let report = Report {
        tag,
        condition: said.as_deref().map(Condition::of),
        said,
        value: value.as_ref().and_then(number),
        value_text: value.as_ref().filter(|v| number(v).is_none()).and_then(text),
        limit: get("limit").and_then(number),
        unit: get("unit").and_then(text),
        state: state.as_ref().map(|v| State::of(v).unwrap_or(State::Active)),
        time: get("time").and_then(time),
        severity: get("severity").map(|v| mapping.translated(v)).as_ref().and_then(severity),
        message: get("message").and_then(text),
    };
    match (&report.condition, &report.state, &report.value) {
        (None, None, None) => Err("it has neither a condition nor a state nor a value"),
        _ => Ok(report),
    }
}

fn special(field: &str, around: Around<'_>) -> Option<Value> {
    match (field, around.topic) {
        ("$topic", Some(topic)) => Some(Value::String(topic.to_owned())),
        _ => None,
    }
}

/// What the object has under the name that `name` is mapped to: a key, a dotted path, or a JSON pointer.
fn find<'v>(object: &'v Value, _: Around<'_>, mapping: &Mapping, name: &str) -> Option<&'v Value> {
    let field = mapping.field(name).unwrap_or(name);
    let found = match field {
        "$payload" => Some(object),
        "$topic" => None,
        pointer if pointer.starts_with('/') => object.pointer(pointer),
        key => object.get(key).or_else(|| {
            key.contains('.').then(|| key.split('.').try_fold(object, |at, step| at.get(step))).flatten()
        }),
    };
    found.filter(|v| !v.is_null())
}

fn text(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return None,
    };
    // Cut before it is escaped too: a long text costs no more than a short one.
    let text: String = text.chars().take(LONGEST).collect();
    (!text.is_empty()).then(|| escape::clip(&escape::text(&text), LONGEST).into_owned())
}

fn number(value: &Value) -> Option<f64> {
    let number = match value {
        Value::Number(n) => n.as_f64(),
        Value::String(text) if text.len() < 64 => text.trim().parse().ok(),
        _ => None,
    };
    number.filter(|n: &f64| n.is_finite())
}

/// RFC 3339, a date and time with a blank, or seconds, milli-, micro- or nanoseconds since 1970.
fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) if text.len() < 64 => {
            let text = text.trim();
            let zoned = || text.parse::<Timestamp>().ok();
            // A database without time zones tells UTC here.
            let bare = || {
                let at: jiff::civil::DateTime = text.parse().ok()?;
                at.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|z| z.timestamp())
            };
            zoned().or_else(bare).or_else(|| time(&serde_json::json!(text.parse::<f64>().ok()?)))
        }
        Value::Number(n) => {
            let n = n.as_f64()?;
            let nanos = match n.abs() {
                a if a < 1e11 => n * 1e9,
                a if a < 1e14 => n * 1e6,
                a if a < 1e17 => n * 1e3,
                _ => n,
            };
            Timestamp::from_nanosecond(nanos as i128).ok()
        }
        _ => None,
    }
}

fn severity(value: &Value) -> Option<Severity> {
    let word = text(value)?.to_ascii_lowercase();
    Some(match word.as_str() {
        "critical" | "emergency" | "alert" | "urgent" => Severity::Critical,
        "high" | "error" | "major" => Severity::High,
        "medium" | "warning" | "minor" => Severity::Medium,
        "low" | "notice" => Severity::Low,
        "info" | "informational" | "journal" => Severity::Info,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn mapping(fields: &[(&str, &str)], words: &[(&str, &str)]) -> Mapping {
        let own =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Mapping { fields: own(fields), words: own(words) }
    }

    #[test]
    fn an_alarm_under_its_own_names() {
        let object = json!({"tag": "TI-101", "condition": "HI", "value": 92.4, "limit": "80", "unit": "°C",
            "state": "active", "time": "2026-05-01T10:00:00Z"});
        let r = read(&object, Around::default(), &Mapping::default()).unwrap();
        assert_eq!(
            (r.tag.as_str(), r.condition, r.value, r.limit),
            ("TI-101", Some(Condition::Hi), Some(92.4), Some(80.0))
        );
        assert_eq!((r.unit.as_deref(), r.state), (Some("°C"), Some(State::Active)));
        assert_eq!(r.time.unwrap().to_string(), "2026-05-01T10:00:00Z");
    }

    #[test]
    fn mapped_names_paths_and_words() {
        let m = mapping(
            &[
                ("tag", "point.name"),
                ("value", "/data/0"),
                ("condition", "alm"),
                ("state", "st"),
                ("time", "ts"),
            ],
            &[("HochHoch", "HIHI"), ("gegangen", "normal")],
        );
        let object = json!({"point": {"name": "P-7"}, "data": ["3.5"], "alm": "HochHoch", "st": "gegangen", "ts": 1_700_000_000_000u64});
        let r = read(&object, Around::default(), &m).unwrap();
        assert_eq!(
            (r.tag.as_str(), r.condition, r.value, r.state),
            ("P-7", Some(Condition::Hihi), Some(3.5), Some(State::Normal))
        );
        assert_eq!(r.time.unwrap().as_second(), 1_700_000_000);
    }

    #[test]
    fn a_bare_number_is_the_value_of_its_topic() {
        let around = Around { topic: Some("plant/boiler/temperature") };
        let r = read(&json!(92.4), around, &Mapping::default()).unwrap();
        assert_eq!((r.tag.as_str(), r.value, r.condition), ("plant/boiler/temperature", Some(92.4), None));
        let m = mapping(&[("tag", "$topic"), ("value", "v")], &[]);
        let r = read(&json!({"v": 1, "tag": "other"}), around, &m).unwrap();
        assert_eq!((r.tag.as_str(), r.value), ("plant/boiler/temperature", Some(1.0)));
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let m = Mapping::default();
        for object in [
            json!({}),
            json!({"tag": "x"}),
            json!({"value": 1}),
            json!([1, 2]),
            json!(null),
            json!({"tag": {"a": 1}, "value": 2}),
        ] {
            assert!(read(&object, Around::default(), &m).is_err(), "{object}");
        }
        // Not a number, and no state: nothing to go by.
        assert!(read(&json!({"tag": "x", "value": "NaN"}), Around::default(), &m).is_err());
    }

    #[test]
    fn hostile_text_is_bounded_and_escaped() {
        let long = "A".repeat(100_000);
        let object = json!({"tag": "T\n\u{1b}[31m\u{202e}x", "condition": long, "state": "no such state", "unit": "\0"});
        let r = read(&object, Around::default(), &Mapping::default()).unwrap();
        assert!(!r.tag.chars().any(char::is_control) && !r.tag.contains('\u{202e}'), "{}", r.tag);
        assert_eq!(r.said.unwrap().chars().count(), LONGEST);
        assert_eq!(
            (r.condition, r.state),
            (Some(Condition::Discrete), Some(State::Active)),
            "unknown is not well"
        );
    }

    #[test]
    fn times_in_every_usual_shape() {
        for at in [
            json!("2023-11-14T22:13:20Z"),
            json!("2023-11-14 22:13:20"),
            json!("2023-11-14T23:13:20+01:00"),
            json!(1_700_000_000),
            json!(1_700_000_000_000u64),
            json!(1_700_000_000_000_000u64),
            json!("1700000000"),
        ] {
            assert_eq!(time(&at).map(|t| t.as_second()), Some(1_700_000_000), "{at}");
        }
        for bad in [json!("yesterday"), json!(1e300), json!(true), json!("")] {
            assert_eq!(time(&bad), None, "{bad}");
        }
    }
}
