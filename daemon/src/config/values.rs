//! The kinds of values in a configuration, each read from its text.
#![forbid(unsafe_code)]

use super::section::nearest;
use crate::model::Severity;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// A network: address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// Its address.
    pub ip: IpAddr,
    /// Leading bits that count.
    pub prefix: u8,
}

impl Cidr {
    /// True if `ip` lies in it. A v4-mapped address counts as v4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let under = |a: u128, b: u128, bits: u32| {
            let shift = bits - u32::from(self.prefix);
            a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
        };
        match (self.ip.to_canonical(), ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => under(u32::from(a).into(), u32::from(b).into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => under(a.into(), b.into(), 128),
            _ => false,
        }
    }
}

pub(crate) fn cidr(text: &str) -> Result<Cidr, String> {
    let wrong = || format!("`{text}` is no network; write one as `10.0.0.0/8` or `fd00::/8`");
    let (ip, prefix) = text.split_once('/').map_or((text, None), |(ip, p)| (ip, Some(p)));
    let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    let prefix = prefix.map_or(Ok(bits), |p| p.parse().map_err(|_| wrong()))?;
    if prefix > bits {
        return Err(format!("`{text}`: the prefix is at most {bits}"));
    }
    Ok(Cidr { ip, prefix })
}

/// `[watch] monitored_ports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// Every port.
    All,
    /// These, both ends included.
    Only(Vec<(u16, u16)>),
}

impl Ports {
    /// True if `port` is monitored.
    #[must_use]
    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Only(ranges) => ranges.iter().any(|(a, b)| (*a..=*b).contains(&port)),
        }
    }
}

pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let wrong = || format!("`{text}` is no port; write 443, or a range as \"8000-8099\"");
    let (a, b) = text.split_once('-').unwrap_or((text, text));
    let (a, b) = (a.trim().parse().map_err(|_| wrong())?, b.trim().parse().map_err(|_| wrong())?);
    if a > b {
        return Err(format!("`{text}` ends before it begins"));
    }
    Ok((a, b))
}

/// Where syslog lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogAddress {
    /// A Unix datagram socket.
    Unix(PathBuf),
    /// `host:port`.
    Udp(String),
    /// `host:port`, with octet counting (RFC 6587).
    Tcp(String),
    /// `host:port`, over TLS (RFC 5425).
    Tls(String),
}

impl std::fmt::Display for SyslogAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(to) => write!(f, "udp:{to}"),
            Self::Tcp(to) => write!(f, "tcp:{to}"),
            Self::Tls(to) => write!(f, "tls:{to}"),
        }
    }
}

pub(super) fn syslog_address(text: &str) -> Result<SyslogAddress, String> {
    let form = "write \"unix:/dev/log\", \"udp:host:514\", \"tcp:host:601\" or \"tls:host:6514\"";
    let (scheme, rest) =
        text.split_once(':').ok_or_else(|| format!("`{text}` names no transport; {form}"))?;
    let host_port = || {
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port; {form}"))?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        match (bare, host.contains(':')) {
            _ if host.is_empty() => return Err(format!("`{text}` has no host; {form}")),
            (Some(ip), _) if ip.parse::<std::net::Ipv6Addr>().is_err() => {
                return Err(format!("`{ip}` is no IPv6 address"));
            }
            (None, true) => return Err(format!("`{text}`: write an IPv6 address in brackets, [::1]:514")),
            _ => {}
        }
        match port.parse::<u16>() {
            Ok(port) if port != 0 => Ok(rest.to_owned()),
            _ => Err(format!("`{port}` is no port (1 to 65535)")),
        }
    };
    match scheme {
        "unix" if rest.starts_with('/') => Ok(SyslogAddress::Unix(rest.into())),
        "unix" => Err(format!("`{text}`: the socket's path must begin with `/`")),
        "udp" => host_port().map(SyslogAddress::Udp),
        "tcp" => host_port().map(SyslogAddress::Tcp),
        "tls" => host_port().map(SyslogAddress::Tls),
        _ => Err(format!("unknown transport `{scheme}`; {form}")),
    }
}

/// A syslog facility's number, unshifted (RFC 5424, table 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facility(pub u8);

/// Facility numbers by name; syslog(3)'s names.
const FACILITIES: &[(&str, u8)] = &[
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];

impl Default for Facility {
    fn default() -> Self {
        Self(10)
    }
}

pub(super) fn facility(text: &str) -> Result<Facility, String> {
    let names: Vec<&str> = FACILITIES.iter().map(|(n, _)| *n).collect();
    FACILITIES
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, n)| Facility(*n))
        .ok_or_else(|| format!("unknown facility `{text}`{}", nearest(text, &names)))
}

/// An address of this host's own, and a port: a page there is for this host's programs.
pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let form = "write \"127.0.0.1:9464\" or \"[::1]:9464\"";
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err(format!("`{text}` has no port; {form}")),
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => Err(format!(
            "`{text}` is no loopback address, and the page is for everyone who can reach it; {form}"
        )),
        Err(_) => Err(format!("`{text}` is no address and port; {form}")),
    }
}

/// A path from `/` on.
pub(super) fn absolute(text: &str) -> Result<PathBuf, String> {
    match text.starts_with('/') {
        true => Ok(text.into()),
        false => Err(format!("`{text}` must begin with `/`: a daemon has no folder of its own")),
    }
}

/// One of `words`, or an error that names the nearest.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, String> {
    let names: Vec<&str> = words.iter().map(|(n, _)| *n).collect();
    words
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, value)| *value)
        .ok_or_else(|| format!("`{text}` is none of {}{}", names.join(", "), only_near(text, &names)))
}

fn only_near(text: &str, names: &[&str]) -> String {
    let near = nearest(text, names);
    if near.starts_with("; did") { near } else { String::new() }
}

pub(super) fn severity(text: &str) -> Result<Severity, String> {
    one_of(
        text,
        &[
            ("info", Severity::Info),
            ("low", Severity::Low),
            ("medium", Severity::Medium),
            ("high", Severity::High),
            ("critical", Severity::Critical),
        ],
    )
}

/// A span of time: `90d`, `36h`, `5 min`, `60s`, `250ms`.
///
/// # Errors
/// What would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" | "sec" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => 0,
    };
    let wrong = || format!("`{text}` is no span of time; write `90d`, `36h`, `5min`, `60s` or `250ms`");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    if millis == 0 {
        return Err(wrong());
    }
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

/// A size in bytes: `512MiB`, `1 GiB`, `4GB`, `65536`.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text);
    let wrong = || format!("`{text}` is no size; write `512MiB`, `1GiB` or `4GB`");
    let factor: u64 = match unit {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "KiB" | "K" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" | "G" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" | "T" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)).ok_or_else(wrong)
}

fn number_and_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..at], text[at..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes() {
        assert_eq!(duration("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert_eq!(duration(" 5 min "), Ok(Duration::from_secs(300)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "d", "-1s", "1.5h", "5 parsecs", "99999999999999999999d", "999999999999999999d"]
        {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("65536"), Ok(65536));
        for bad in ["", "GiB", "-1", "1EiB", "99999999999TiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn networks() {
        let net = cidr("10.1.0.0/16").unwrap();
        assert!(net.contains("10.1.255.3".parse().unwrap()));
        assert!(net.contains("::ffff:10.1.0.9".parse().unwrap()));
        assert!(!net.contains("10.2.0.1".parse().unwrap()));
        assert!(!net.contains("fd00::1".parse().unwrap()));
        assert!(cidr("0.0.0.0/0").unwrap().contains("8.8.8.8".parse().unwrap()));
        assert!(cidr("fd00::/8").unwrap().contains("fdff::1".parse().unwrap()));
        assert!(cidr("::/0").unwrap().contains("::1".parse().unwrap()));
        for bad in ["10.0.0.0/33", "fd00::/129", "ten", "10.0.0/8", "10.0.0.0/x"] {
            assert!(cidr(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses() {
        assert_eq!(syslog_address("unix:/dev/log"), Ok(SyslogAddress::Unix("/dev/log".into())));
        assert_eq!(syslog_address("udp:log.example:514"), Ok(SyslogAddress::Udp("log.example:514".into())));
        assert_eq!(syslog_address("tcp:[::1]:601"), Ok(SyslogAddress::Tcp("[::1]:601".into())));
        assert_eq!(syslog_address("tls:log.example:6514"), Ok(SyslogAddress::Tls("log.example:6514".into())));
        for bad in [
            "",
            "/dev/log",
            "unix:dev/log",
            "udp:host",
            "udp:host:0",
            "udp:host:70000",
            "tcp::514",
            "tcp:::1:514",
            "tcp:[fe80]:1",
            "tls:host",
            "http://x",
        ] {
            assert!(syslog_address(bad).is_err(), "{bad}");
        }
    }
}
