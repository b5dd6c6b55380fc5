use super::*;
use crate::model::{Channel, Tap, Transfer, Verdict};
use crate::sample;
use uuid::Uuid;

fn written(transfers: &[Transfer]) -> Vec<u8> {
    let mut out = vec![];
    let mut writer = Writer::begin(&mut out, "alpha").unwrap();
    for t in transfers {
        writer.transfer(t).unwrap();
    }
    assert_eq!(writer.end().unwrap(), transfers.len() as u64);
    out
}

fn read_all(bytes: &[u8]) -> Result<Vec<Transfer>, PortableError> {
    let mut out = vec![];
    read(bytes, |t| {
        out.push(t);
        true
    })?;
    Ok(out)
}

fn some() -> Vec<Transfer> {
    let mut all: Vec<_> = [Verdict::Intact, Verdict::Altered, Verdict::Truncated, Verdict::Unverified]
        .map(sample::transfer)
        .into();
    all[1].origin.as_mut().unwrap().path = Some("/home/p/\u{202e}\n\\xff".into());
    all.iter_mut().for_each(|t| t.strip.clear());
    all
}

#[test]
fn what_is_written_is_read() {
    let all = some();
    let bytes = written(&all);
    assert!(bytes.starts_with(BEGINNING), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(read_all(&bytes).unwrap(), all);
    assert_eq!(read(&bytes[..], |_| true).unwrap().host, "alpha");
    assert_eq!(read_all(&written(&[])).unwrap(), []);
}

#[test]
fn every_cut_and_every_flipped_byte_is_noticed() {
    let bytes = written(&some()[..2]);
    for cut in 0..bytes.len() {
        assert!(read_all(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    for at in 0..bytes.len() {
        for bit in [0, 5] {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            assert!(read_all(&bad).is_err(), "byte {at}, bit {bit}");
        }
    }
    let lines: Vec<_> = bytes.split_inclusive(|&b| b == b'\n').collect();
    for without in 0..lines.len() {
        let mut less = lines.clone();
        less.remove(without);
        assert!(read_all(&less.concat()).is_err(), "without line {without}");
    }
    assert!(read_all(&[&bytes[..], b"\n"].concat()).is_err(), "something behind the end");
}

/// A file with a right last line, whatever is in it.
fn sealed(lines: &[String]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let header = String::from_utf8(written(&[])).unwrap().lines().next().unwrap().to_owned();
    let body: String = std::iter::once(&header).chain(lines).map(|l| format!("{l}\n")).collect();
    let sum = crate::verify::checksums::hex(&Sha256::digest(&body).into());
    format!("{body}{{\"type\":\"end\",\"transfers\":{},\"sha256\":\"{sum}\"}}\n", lines.len()).into_bytes()
}

#[test]
fn a_hostile_writer_is_held_to_bounds() {
    let line = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = crate::sinks::transfer_json(&some()[0]);
        change(&mut value);
        read_all(&sealed(&[value.to_string()])).map(|t| t.len())
    };
    assert_eq!(line(&|_| {}).unwrap(), 1, "the frame itself is good");
    let long = "x".repeat(20_000);
    let range = |o: u64, l: u64| serde_json::json!({ "offset": o, "length": l });
    type Change<'a> = &'a dyn Fn(&mut serde_json::Value);
    let changes: &[Change<'_>] = &[
        &|v| v["flow"] = "xyz".into(),
        &|v| v["origin"]["path"] = long.clone().into(),
        &|v| v["origin"]["host"] = long.clone().into(),
        &|v| v["origin"]["sha256"] = "00".into(),
        &|v| v["origin"]["pid"] = (-1).into(),
        &|v| v["origin"]["argv"] = vec!["a"; 5000].into(),
        &|v| v["altered"] = vec![range(u64::MAX, 2)].into(),
        &|v| v["altered"] = vec![range(10, 5), range(0, 5)].into(),
        &|v| v["verdict"] = "fine".into(),
        &|v| v["reasons"] = vec!["because"].into(),
        &|v| v["started"] = "yesterday".into(),
        &|v| v["id"] = "1".into(),
        &|v| v["type"] = "alarm".into(),
        &|v| v["class"] = "c".repeat(2 << 20).into(),
    ];
    for (number, change) in changes.iter().enumerate() {
        assert!(line(change).is_err(), "change {number} was taken");
    }
    let deep = format!("{{\"type\":\"transfer\",\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(read_all(&sealed(&[deep])).is_err());
    let newer = String::from_utf8(written(&[])).unwrap().replace("\"version\":1", "\"version\":2");
    assert!(matches!(read_all(newer.as_bytes()), Err(PortableError::Newer(2))));
}

#[test]
fn random_bytes_are_survived() {
    let good = written(&some());
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    for _ in 0..2000 {
        let mut bytes = good.clone();
        for _ in 0..1 + random() % 8 {
            let at = random() % bytes.len();
            match random() % 3 {
                0 => bytes[at] = random() as u8,
                1 => bytes.truncate(at.max(1)),
                _ => drop(bytes.drain(at..(at + random() % 64).min(bytes.len()))),
            }
            if bytes.is_empty() {
                break;
            }
        }
        assert!(read_all(&bytes).is_err() || bytes == good);
    }
}

#[test]
fn paths_back_to_bytes() {
    assert_eq!(path_bytes("/a/\\xff\\xc3b"), b"/a/\xff\xc3b");
    assert_eq!(path_bytes("/a\\x41\\x\\xf"), b"/a\\x41\\x\\xf", "an ASCII byte is never written so");
    assert_eq!(path_bytes("grüße"), "grüße".as_bytes());
}

const FLOW: &str = "00112233445566778899aabbccddeeff";

/// A file that alpha sent or beta received over `flow`; the other end was not seen.
fn half(role: Role, path: &str, content: u8, flow: &str) -> Transfer {
    let mut t = sample::transfer(Verdict::Unverified);
    (t.id, t.channel, t.flow) = (Uuid::now_v7(), Channel::File, Some(flow.into()));
    let e = match role {
        Role::Origin => {
            t.destination = None;
            t.origin.as_mut().unwrap()
        }
        Role::Destination => {
            t.origin = None;
            t.destination.as_mut().unwrap()
        }
    };
    (e.path, e.sha256) = (Some(path.into()), Some(format!("{content:02x}").repeat(32)));
    e.tap = if role == Role::Origin { Tap::FileRead } else { Tap::FileWrite };
    e.host = if role == Role::Origin { "alpha" } else { "beta" }.into();
    t
}

fn halves(transfers: &[Transfer]) -> Vec<Half> {
    let mut halves = Halves::default();
    transfers.iter().for_each(|t| halves.take(t, None));
    halves.finish()
}

#[test]
fn halves_find_each_other_by_flow_content_and_name() {
    use Role::{Destination, Origin};
    let other = "f".repeat(32);
    let alpha = halves(&[
        half(Origin, "/a/one", 1, FLOW),
        half(Origin, "/a/two", 2, FLOW),
        half(Origin, "/a/same-as-two", 2, FLOW),
        half(Origin, "/a/bad", 3, FLOW),
        half(Origin, "/a/lost", 5, FLOW),
        half(Origin, "/a/elsewhere", 9, &other),
    ]);
    let beta = halves(&[
        half(Destination, "/b/same-as-two", 2, FLOW),
        half(Destination, "/b/two", 2, FLOW),
        half(Destination, "/b/renamed", 1, FLOW),
        half(Destination, "/b/bad", 4, FLOW),
    ]);
    let (pairs, shared) = pair(&alpha, &beta);
    assert!(shared);
    let mut found: Vec<_> = pairs.iter().map(|p| (p.name(), p.equal())).collect();
    found.sort();
    let named = |from: &str, to: &str, equal| (format!("{from} → {to}"), equal);
    assert_eq!(
        found,
        [
            named("alpha:/a/bad", "beta:/b/bad", Some(false)),
            named("alpha:/a/lost", "?", None),
            named("alpha:/a/one", "beta:/b/renamed", Some(true)),
            named("alpha:/a/same-as-two", "beta:/b/same-as-two", Some(true)),
            named("alpha:/a/two", "beta:/b/two", Some(true)),
        ]
    );
    // The same from the other side.
    assert_eq!(pair(&beta, &alpha).0.len(), 5);
    assert!(pair(&beta, &alpha).0.iter().all(|p| p.name().starts_with("alpha")));
    // Two origins are no pair, nor are strangers.
    assert!(pair(&alpha, &alpha).0.iter().all(|p| p.a.is_none() || p.b.is_none()));
    assert!(!pair(&alpha[5..], &beta).1);
}

#[test]
fn a_file_has_the_flow_of_its_legs() {
    let mut file = half(Role::Origin, "/a/x", 1, FLOW);
    let mut leg = sample::transfer(Verdict::Unverified);
    (leg.destination, leg.flow) = (None, Some(FLOW.into()));
    (file.flow, file.legs) = (None, vec![leg.id]);
    let alpha = halves(&[file, leg]);
    let beta = halves(&[half(Role::Destination, "/b/x", 1, FLOW)]);
    let (pairs, _) = pair(&alpha, &beta);
    assert!(
        pairs.iter().any(|p| p.equal() == Some(true) && p.name() == "alpha:/a/x → beta:/b/x"),
        "{pairs:?}"
    );
}
