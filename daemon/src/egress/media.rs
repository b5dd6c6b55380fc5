//! Media files that leave for where they usually go.
#![forbid(unsafe_code)]

use crate::model::Finding;
use serde_json::Value;

/// A media file was read and something was sent: nothing else was done with it. Where a tool, a script, a change or what
/// stands behind its end comes before, the way that it took is the lesser part of the finding.
pub(super) fn only_sent(finding: &Finding) -> bool {
    let links = finding.evidence.get("links").and_then(Value::as_array);
    let sent = |link: &Value| link["link"] == "socket" || link["link"] == "image-libraries";
    finding.rule == "media-egress" && links.is_some_and(|all| all.iter().all(sent))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect;
    use crate::model::Severity;
    use serde_json::json;

    #[test]
    fn only_what_was_sent_and_nothing_else() {
        let only = |rule: &str, links: &[&str]| {
            let mut finding = detect::finding(rule, Severity::Medium, jiff::Timestamp::now());
            let links: Vec<Value> = links.iter().map(|l| json!({"link": l})).collect();
            finding.evidence = json!({"links": links});
            only_sent(&finding)
        };
        assert!(
            only("media-egress", &["socket", "socket"])
                && only("media-egress", &["image-libraries", "socket"])
        );
        assert!(!only("media-egress", &["changed", "socket"]));
        assert!(!only("media-egress", &["tool", "output", "socket"]));
        assert!(!only("media-script", &["script", "socket"]));
        assert!(!only("sensitive-egress", &["socket"]));
    }
}
