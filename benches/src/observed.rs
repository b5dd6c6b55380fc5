//! Runs a program under `counterfoil run` and reads what was said about it.

use crate::{Bench, load};
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;

/// What a run's verdicts and losses were, summed over runs.
#[derive(Debug, Default, Serialize)]
pub struct Account {
    /// Transfers by verdict, `unverified` with its reasons.
    pub verdicts: BTreeMap<String, u64>,
    /// Records that a lane had no room for.
    pub dropped: u64,
    /// Records taken.
    pub records: u64,
    /// Alarms by rule.
    pub alarms: BTreeMap<String, u64>,
    /// Transfers on other channels that were `altered`.
    pub altered_elsewhere: u64,
    /// Runs that ended without a word about themselves.
    pub no_summary: u64,
    /// Runs without a transfer on the channel that was loaded.
    pub no_transfer: u64,
}

impl Account {
    /// Adds the JSON Lines of one run that put its load on `channel`.
    pub fn add(&mut self, lines: &str, channel: &str) -> Result<()> {
        let (mut transfers, mut summaries) = (0, 0);
        for line in lines.lines() {
            let event: Value = serde_json::from_str(line).with_context(|| line.to_string())?;
            match event["type"].as_str() {
                Some("transfer") if event["channel"] == channel => {
                    transfers += 1;
                    *self.verdicts.entry(verdict_in_words(&event)).or_default() += 1;
                }
                Some("transfer") => {
                    self.altered_elsewhere += u64::from(event["verdict"] == "altered");
                }
                Some("alarm") => {
                    *self.alarms.entry(event["rule"].as_str().unwrap_or("?").into()).or_default() += 1;
                }
                Some("summary") => {
                    summaries += 1;
                    self.dropped += event["dropped"].as_u64().unwrap_or(0);
                    self.records += event["records"].as_u64().unwrap_or(0);
                }
                _ => {}
            }
        }
        self.no_transfer += u64::from(transfers == 0);
        self.no_summary += u64::from(summaries == 0);
        Ok(())
    }

    /// The load's bytes all arrive: anything but `intact` is wrong, or lost.
    pub fn wrong(&self) -> bool {
        self.wrong_unless("intact")
    }

    /// The same where a load can have no other verdict than this one.
    pub fn wrong_unless(&self, right: &str) -> bool {
        self.no_summary + self.no_transfer + self.dropped + self.altered_elsewhere > 0
            || self.verdicts.keys().any(|said| said != right)
    }

    /// In a few words, for a table.
    pub fn words(&self) -> String {
        let mut words: Vec<String> = self.verdicts.iter().map(|(v, n)| format!("{n} {v}")).collect();
        words.push(format!("{} of {} records dropped", self.dropped, self.records));
        words.extend(self.alarms.iter().map(|(rule, n)| format!("{n} × alarm {rule}")));
        if self.altered_elsewhere > 0 {
            words.push(format!("{} altered on other channels", self.altered_elsewhere));
        }
        if self.no_transfer > 0 {
            words.push(format!("{} runs without a transfer", self.no_transfer));
        }
        if self.no_summary > 0 {
            words.push(format!("{} runs without a summary", self.no_summary));
        }
        words.join(", ")
    }
}

fn verdict_in_words(transfer: &Value) -> String {
    let reasons: Vec<&str> =
        transfer["reasons"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let verdict = transfer["verdict"].as_str().unwrap_or("?");
    if reasons.is_empty() { verdict.into() } else { format!("{verdict} ({})", reasons.join(" ")) }
}

/// A load program alone.
pub fn plain(bench: &Bench, program: &str, arguments: &[&str]) -> Result<Value> {
    let mut command = Command::new(bench.folder.join(program));
    command.args(arguments);
    load::run(command)
}

/// The same under `counterfoil run`.
pub fn observed(
    bench: &Bench,
    program: &str,
    arguments: &[&str],
    account: &mut Account,
    channel: &str,
) -> Result<Value> {
    let lines = bench.folder.join("run.jsonl");
    std::fs::remove_file(&lines).ok();
    let mut command = Command::new(&bench.program);
    command.arg("run").arg("--json").arg(&lines).args(["--quiet", "--"]);
    command.arg(bench.folder.join(program)).args(arguments);
    let result = load::run(command)?;
    let said = std::fs::read_to_string(&lines).with_context(|| format!("{}", lines.display()))?;
    account.add(&said, channel)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SUMMARY: &str = r#"{"type":"summary","records":10,"dropped":0}"#;

    fn account(lines: &[&str]) -> Account {
        let mut account = Account::default();
        account.add(&lines.join("\n"), "tls").unwrap();
        account
    }

    #[test]
    fn only_intact_is_right() {
        let intact = r#"{"type":"transfer","channel":"tls","verdict":"intact","reasons":[]}"#;
        let lost =
            r#"{"type":"transfer","channel":"tls","verdict":"unverified","reasons":["records-dropped"]}"#;
        assert!(!account(&[intact, SUMMARY]).wrong());
        assert!(account(&[intact, lost, SUMMARY]).wrong());
        assert!(account(&[intact]).wrong(), "no summary");
        assert!(account(&[SUMMARY]).wrong(), "nothing was observed");
        let dropped = SUMMARY.replace("\"dropped\":0", "\"dropped\":1");
        assert!(account(&[intact, &dropped]).wrong(), "a record was dropped");
    }

    #[test]
    fn an_end_alone_may_only_say_so() {
        let alone =
            r#"{"type":"transfer","channel":"tls","verdict":"unverified","reasons":["peer-not-observed"]}"#;
        let altered = r#"{"type":"transfer","channel":"tls","verdict":"altered","reasons":[]}"#;
        let right = "unverified (peer-not-observed)";
        assert!(!account(&[alone, SUMMARY]).wrong_unless(right));
        assert!(account(&[alone, altered, SUMMARY]).wrong_unless(right));
        let file = altered.replace("\"tls\"", "\"file\"");
        assert!(account(&[alone, &file, SUMMARY]).wrong_unless(right), "altered elsewhere");
    }
}
