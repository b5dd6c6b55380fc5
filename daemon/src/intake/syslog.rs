//! An RFC 5424 message, as an object that can be mapped.
//!
//! Comes in: the bytes of one message. Goes out: `{"facility", "level", "timestamp", "hostname", "app", "procid", "msgid",
//! "sd": {ID: {NAME: VALUE}}, NAME: VALUE …, "msg"}`: parameters stand by their own names too, and if the message is
//! itself an object in JSON, its members do. Pure; called by `listen`.
#![forbid(unsafe_code)]

use serde_json::{Map, Value, json};

/// Structured data elements and parameters that are looked at.
const MOST: usize = 64;
const LEVELS: [&str; 8] =
    ["emergency", "alert", "critical", "error", "warning", "notice", "informational", "debug"];

/// Reads one message.
///
/// # Errors
/// It is none.
pub(super) fn parse(message: &[u8]) -> Result<Value, &'static str> {
    let text = std::str::from_utf8(message).map_err(|_| "it is not UTF-8")?;
    let rest = text.strip_prefix('<').ok_or("it is no syslog message")?;
    let (priority, rest) = rest.split_once('>').ok_or("it is no syslog message")?;
    let priority: u8 = priority.parse().map_err(|_| "its priority is no number")?;
    if priority > 191 {
        return Err("its priority is above 191");
    }
    let rest = rest.strip_prefix("1 ").ok_or("it is not of RFC 5424 (version 1)")?;
    let mut parts = rest.splitn(6, ' ');
    let mut header = || parts.next().ok_or("its header is too short");
    let (timestamp, hostname, app, procid, msgid) = (header()?, header()?, header()?, header()?, header()?);
    let rest = header()?;
    let (data, message) = structured(rest)?;
    let message = message.strip_prefix('\u{feff}').unwrap_or(message);

    let mut object = Map::new();
    if let Ok(Value::Object(members)) = serde_json::from_str(message) {
        object.extend(members);
    }
    for parameters in data.values().filter_map(Value::as_object) {
        object.extend(parameters.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    for (name, value) in
        [("timestamp", timestamp), ("hostname", hostname), ("app", app), ("procid", procid), ("msgid", msgid)]
    {
        object.insert(name.into(), if value == "-" { Value::Null } else { json!(value) });
    }
    object.insert("facility".into(), json!(priority >> 3));
    object.insert("level".into(), json!(LEVELS[usize::from(priority & 7)]));
    // What the message says of itself goes first: `time` and `message` may be parameters.
    for (name, value) in [("time", timestamp), ("message", message)] {
        object.entry(name).or_insert_with(|| json!(value));
    }
    object.insert("msg".into(), json!(message));
    object.insert("sd".into(), Value::Object(data));
    Ok(Value::Object(object))
}

/// The structured data at the start of `text`, and what follows it.
fn structured(text: &str) -> Result<(Map<String, Value>, &str), &'static str> {
    const WRONG: &str = "its structured data does not end";
    let mut data = Map::new();
    let after = |rest: &str| rest.is_empty() || rest.starts_with(' ');
    if let Some(rest) = text.strip_prefix('-') {
        return if after(rest) { Ok((data, rest.trim_start_matches(' '))) } else { Err(WRONG) };
    }
    let mut rest = text;
    let mut count = 0;
    while let Some(element) = rest.strip_prefix('[') {
        let end = element.find([' ', ']']).ok_or(WRONG)?;
        let id = name(&element[..end])?;
        let mut parameters = Map::new();
        rest = &element[end..];
        loop {
            count += 1;
            if count > MOST {
                return Err("it has too much structured data");
            }
            rest = rest.trim_start_matches(' ');
            if let Some(next) = rest.strip_prefix(']') {
                rest = next;
                break;
            }
            let (key, value) = rest.split_once("=\"").ok_or(WRONG)?;
            let (value, next) = quoted(value).ok_or(WRONG)?;
            parameters.insert(name(key)?.to_owned(), Value::String(value));
            rest = next;
        }
        data.insert(id.to_owned(), Value::Object(parameters));
    }
    if data.is_empty() || !after(rest) {
        return Err(WRONG);
    }
    Ok((data, rest.strip_prefix(' ').unwrap_or(rest)))
}

/// SD-NAME: printable, none of `=`, `]`, `"`, at most 32.
fn name(text: &str) -> Result<&str, &'static str> {
    let good = |b: u8| b.is_ascii_graphic() && !matches!(b, b'=' | b']' | b'"');
    match !text.is_empty() && text.len() <= 32 && text.bytes().all(good) {
        true => Ok(text),
        false => Err("its structured data has a wrong name"),
    }
}

/// A parameter's value up to its closing quote, with `\"`, `\\` and `\]` undone; and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            ']' => return None,
            '\\' => match chars.next()?.1 {
                c @ ('"' | '\\' | ']') => value.push(c),
                other => value.extend(['\\', other]),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_everything() {
        let m = r#"<132>1 2026-05-01T10:00:00.5Z plc1 scada 77 ALM [alarm@32473 tag="TI-101" condition="HI" value="92.4" note="a \"b\" \\ \]"][x y="z"] too hot"#;
        let o = parse(m.as_bytes()).unwrap();
        assert_eq!(o["tag"], "TI-101");
        assert_eq!(o["sd"]["alarm@32473"]["note"], "a \"b\" \\ ]");
        assert_eq!(
            (&o["level"], &o["facility"], &o["hostname"], &o["msg"]),
            (&json!("warning"), &json!(16), &json!("plc1"), &json!("too hot"))
        );
        assert_eq!(o["time"], "2026-05-01T10:00:00.5Z");
    }

    #[test]
    fn a_json_message_and_none() {
        let o = parse(b"<14>1 - - - - - - {\"tag\":\"P-7\",\"value\":3}").unwrap();
        assert_eq!((&o["tag"], &o["value"], &o["hostname"]), (&json!("P-7"), &json!(3), &Value::Null));
        assert_eq!(parse(b"<14>1 - - - - - -").unwrap()["msg"], "");
        assert_eq!(parse("<14>1 - h a - - - \u{feff}Grüße".as_bytes()).unwrap()["msg"], "Grüße");
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "x",
            "<",
            "<1",
            "<999>1 - - - - - -",
            "<1>2 - - - - - -",
            "<1>1 - -",
            "<34>Oct 11 22:14:15 host su: x",
            "<1>1 - - - - - [",
            "<1>1 - - - - - [a b=\"c",
            "<1>1 - - - - - [a b=\"c\"",
            "<1>1 - - - - - [a b=\"c]\"]",
            "<1>1 - - - - - [a b=c]",
            "<1>1 - - - - - []",
            "<1>1 - - - - - [a]x",
            "<1>1 - - - - - x",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"<1>1 - - - - - - \xff").is_err());
        let many = format!("<1>1 - - - - - [a{}]", " b=\"c\"".repeat(100));
        assert!(parse(many.as_bytes()).is_err());
        let long = format!("<1>1 - - - - - [{}]", "a".repeat(33));
        assert!(parse(long.as_bytes()).is_err());
    }
}
