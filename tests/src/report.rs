//! JSON Lines as INTERFACE names them, read back. Kept apart from the daemon's own types: these
//! tests are a stranger's parser.

use serde_json::Value;
use std::path::Path;

/// All lines of one `--json` file.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In their order.
    pub lines: Vec<Value>,
    /// Lines that are not JSON; the last one may still be in writing.
    pub broken: Vec<String>,
}

/// A `transfer` line.
#[derive(Clone, Debug)]
pub struct Transfer(pub Value);

/// An `alarm` line.
#[derive(Clone, Debug)]
pub struct Alarm(pub Value);

impl Report {
    /// Reads a file; one that isn't there yet is empty.
    pub fn read(path: &Path) -> Self {
        let text = String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Self::parse(&text)
    }

    /// Only the lines of one kind: the others of a long report aren't even parsed.
    pub fn only(path: &Path, kind: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let begin = format!("{{\"type\":\"{kind}\"");
        let lines: String = text.split_inclusive('\n').filter(|line| line.starts_with(&begin)).collect();
        Self::parse(&lines)
    }

    /// Reads lines.
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let whole = text.rfind('\n').map_or("", |at| &text[..at]);
        for line in whole.lines().filter(|l| !l.trim().is_empty()) {
            match serde_json::from_str(line) {
                Ok(value) => report.lines.push(value),
                Err(_) => report.broken.push(line.to_owned()),
            }
        }
        report
    }

    fn of<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.lines.iter().filter(move |v| v["type"] == kind)
    }

    /// The transfers.
    pub fn transfers(&self) -> Vec<Transfer> {
        self.of("transfer").cloned().map(Transfer).collect()
    }

    /// The transfers on one channel.
    pub fn on(&self, channel: &str) -> Vec<Transfer> {
        self.transfers().into_iter().filter(|t| t.channel() == channel).collect()
    }

    /// The alarms.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.of("alarm").cloned().map(Alarm).collect()
    }

    /// Whether a rule fired.
    pub fn fired(&self, rule: &str) -> bool {
        self.alarms().iter().any(|a| a.rule() == rule)
    }

    /// The last line, if it is the summary.
    pub fn summary(&self) -> Option<&Value> {
        self.lines.last().filter(|v| v["type"] == "summary")
    }

    /// Coverage lines.
    pub fn coverage(&self) -> Vec<Value> {
        self.of("coverage").cloned().collect()
    }

    /// The lines, for a failing test: shortened to what tells.
    pub fn shown(&self) -> String {
        let mut out = String::new();
        for value in &self.lines {
            let line = match value["type"].as_str() {
                Some("transfer") => Transfer(value.clone()).shown(),
                Some("alarm") => format!("alarm {} {}", value["rule"], value["message"]),
                _ => value.to_string(),
            };
            out.push_str(&line);
            out.push('\n');
        }
        out + &self.broken.join("\n")
    }

    /// What is wrong with it as INTERFACE goes, whatever was run. Empty: nothing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.broken.iter().map(|l| format!("not JSON: {l}")).collect();
        if self.summary().is_none() {
            faults.push("the last line is no summary".into());
        }
        let mut ids = std::collections::BTreeSet::new();
        for transfer in self.transfers() {
            faults.extend(transfer.faults());
            if !ids.insert(transfer.0["id"].to_string()) {
                faults.push(format!("emitted twice: {}", transfer.shown()));
            }
        }
        const ALARM: &str = "id analytic rule technique severity confidence state title message process file \
            connection transfer verdict reasons altered why point evidence next key count raised last";
        for alarm in self.alarms() {
            for name in ALARM.split_whitespace().filter(|n| alarm.0.get(*n).is_none()) {
                faults.push(format!("an alarm without `{name}`: {}", alarm.0));
            }
        }
        faults
    }
}

impl Transfer {
    fn text(&self, name: &str) -> &str {
        self.0[name].as_str().unwrap_or("")
    }

    /// `intact` …
    pub fn verdict(&self) -> &str {
        self.text("verdict")
    }

    /// `tls` …
    pub fn channel(&self) -> &str {
        self.text("channel")
    }

    /// Reasons, in their order.
    pub fn reasons(&self) -> Vec<String> {
        let list = self.0["reasons"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|r| r.as_str().map(str::to_owned)).collect()
    }

    /// Bytes at the origin; None where it was not observed.
    pub fn origin(&self) -> Option<u64> {
        self.0["bytes"]["origin"].as_u64()
    }

    /// Bytes at the destination.
    pub fn destination(&self) -> Option<u64> {
        self.0["bytes"]["destination"].as_u64()
    }

    /// Altered ranges: offset and length.
    pub fn altered(&self) -> Vec<(u64, u64)> {
        let list = self.0["altered"].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|r| (r["offset"].as_u64().unwrap_or(u64::MAX), r["length"].as_u64().unwrap_or(0)))
            .collect()
    }

    /// Ids of the transfers that it went over.
    pub fn legs(&self) -> Vec<String> {
        let list = self.0["legs"].as_array().cloned().unwrap_or_default();
        list.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect()
    }

    /// Name of the program at an end (`origin` or `destination`), without its folder.
    pub fn program(&self, end: &str) -> &str {
        self.0[end]["exe"].as_str().unwrap_or("").rsplit('/').next().unwrap_or("")
    }

    /// In one line.
    pub fn shown(&self) -> String {
        format!(
            "transfer {} {} {:?} {:?}→{:?} altered {:?} {}({})→{}({})",
            self.channel(),
            self.verdict(),
            self.reasons(),
            self.origin(),
            self.destination(),
            self.altered(),
            self.program("origin"),
            self.0["origin"]["pid"],
            self.program("destination"),
            self.0["destination"]["pid"],
        )
    }

    fn faults(&self) -> Vec<String> {
        let mut wrong = vec![];
        const FIELDS: &str = "id verdict reasons channel flow assurance class bytes altered origin \
            destination legs started ended";
        const ENDPOINT: &str = "host tap pid exe argv uid parent local remote path sha256 bytes witnessed";
        for name in FIELDS.split_whitespace().filter(|n| self.0.get(*n).is_none()) {
            wrong.push(format!("no `{name}`"));
        }
        for end in ["origin", "destination"].iter().filter(|e| self.0[**e].is_object()) {
            for name in ENDPOINT.split_whitespace().filter(|n| self.0[*end].get(*n).is_none()) {
                wrong.push(format!("no `{name}` in its {end}"));
            }
        }
        let both = self.origin().is_some() && self.destination().is_some();
        match self.verdict() {
            "intact" => {
                if !both || self.origin() != self.destination() {
                    wrong.push("intact without all bytes at both ends".into());
                }
                if !self.reasons().is_empty() {
                    wrong.push("intact, with reasons".into());
                }
                if self.0["assurance"].is_null() {
                    wrong.push("intact without an assurance".into());
                }
            }
            "altered" if self.altered().is_empty() => wrong.push("altered, but not where".into()),
            "unverified" if self.reasons().is_empty() => wrong.push("unverified, but not why".into()),
            "altered" | "unverified" | "truncated" => {}
            other => wrong.push(format!("verdict {other:?}")),
        }
        if self.verdict() != "altered" && !self.altered().is_empty() {
            wrong.push("ranges although not altered".into());
        }
        for (name, count) in [("origin", self.origin()), ("destination", self.destination())] {
            if self.0[name].is_null() != count.is_none() {
                wrong.push(format!("{name} and its byte count don't agree"));
            }
        }
        if let Some(flow) = self.0["flow"].as_str()
            && (flow.len() != 32 || !flow.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            wrong.push(format!("flow {flow:?}"));
        }
        wrong.into_iter().map(|w| format!("{w}: {}", self.shown())).collect()
    }
}

impl Alarm {
    /// Its rule.
    pub fn rule(&self) -> &str {
        self.0["rule"].as_str().unwrap_or("")
    }
}
