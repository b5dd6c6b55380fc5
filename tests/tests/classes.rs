//! Classes of content: the code that runs in observed programs, on real files; and what of it reaches a report.
#![cfg(test)]

use counterfoil_abi::class;
use counterfoil_abi::record::Class;
use counterfoil_tests::classes::{CLASSES, Matrix};
use counterfoil_tests::{Observed, Scratch, check, need, peers};
use std::path::Path;
use std::process::Command;

/// `make classes`: prints the matrix of docs/classes.md.
#[test]
#[ignore = "needs a corpus: make classes"]
fn corpus() {
    let Some(folder) = std::env::var_os("CLASSES_CORPUS") else {
        return println!("skipped: CLASSES_CORPUS is not set; make classes does it");
    };
    for (bytes, name) in [(class::EARLY, "4 KiB"), (class::LOOK, "64 KiB")] {
        let matrix = Matrix::of(Path::new(&folder), bytes).expect("the corpus is readable");
        println!("\n### {name}\n\n{matrix}\n");
        if std::env::var_os("CLASSES_WRONG").is_some() {
            matrix.wrong.iter().for_each(|wrong| println!("{wrong}"));
        }
        let least = if bytes == class::LOOK { 99.0 } else { 98.0 };
        let tested = [Class::Text, Class::Compressed, Class::Media, Class::Encrypted];
        sound(&matrix, &tested, least);
        for class in CLASSES {
            assert!(matrix.all(class) >= 10, "too few files of class {} have {name}", class.word());
        }
    }
}

/// Ciphertext is never called text nor the other way round, and at least so much of each is right.
fn sound(matrix: &Matrix, classes: &[Class], least: f64) {
    for readable in [Class::Text, Class::Structured] {
        assert_eq!(
            matrix.called(Class::Encrypted, readable),
            0,
            "ciphertext called text: {:?}",
            matrix.wrong
        );
        assert_eq!(
            matrix.called(readable, Class::Encrypted),
            0,
            "text called ciphertext: {:?}",
            matrix.wrong
        );
    }
    for &class in classes {
        let right = matrix.right(class);
        assert!(right >= least, "{}: {right:.1} % right\n{matrix}\n{:?}", class.word(), matrix.wrong);
    }
}

/// A small corpus, of what every host has.
#[test]
fn archives_and_ciphertext_of_what_is_here() {
    need!("gzip", "bzip2", "xz", "openssl");
    let scratch = Scratch::new();
    let (mut early, mut all) = (Matrix::default(), Matrix::default());
    let mut sort = |class: Class, name: &str, content: &[u8]| {
        for (matrix, bytes) in [(&mut early, class::EARLY), (&mut all, class::LOOK)] {
            if let Some(start) = content.get(..bytes) {
                matrix.sort(class, name, start);
            }
        }
    };
    let licences: Vec<u8> =
        ["Apache-2.0", "GPL-1", "GPL-2", "GPL-3", "LGPL-2.1", "GFDL-1.3", "MPL-2.0", "Artistic"]
            .iter()
            .filter_map(|name| std::fs::read(format!("/usr/share/common-licenses/{name}")).ok())
            .flatten()
            .collect();
    let program = std::fs::read("/bin/bash").expect("a shell");
    let sources = [("licences", &licences, Class::Text), ("program", &program, Class::Binary)];
    for (name, content, class) in sources {
        sort(class, name, content);
        let plain = scratch.write(name, content);
        for (tool, words) in [
            ("gzip", "gzip -c"),
            ("gzip -1", "gzip -1 -c"),
            ("bzip2", "bzip2 -c"),
            ("xz", "xz -c"),
            ("cbc", "openssl enc -aes-256-cbc -pbkdf2 -pass pass:x -in"),
            ("base64", "openssl enc -aes-256-cbc -a -pbkdf2 -pass pass:x -in"),
            ("ctr", "openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00 -in"),
            ("des3", "openssl enc -des-ede3-cbc -pbkdf2 -nosalt -pass pass:x -in"),
        ] {
            let mut words = words.split(' ');
            let made = Command::new(words.next().expect("a program")).args(words).arg(&plain).output();
            let made = made.expect("the tool starts").stdout;
            let class =
                if tool.contains("zip") || tool == "xz" { Class::Compressed } else { Class::Encrypted };
            assert!(made.len() > 4096, "{tool} made something of {name}");
            sort(class, &format!("{tool} of {name}"), &made);
        }
    }
    let classes = [Class::Text, Class::Compressed, Class::Encrypted, Class::Binary];
    for matrix in [&early, &all] {
        classes.iter().for_each(|&c| assert!(matrix.all(c) > 0, "none of {}", c.word()));
        sound(matrix, &classes, 100.0);
    }
}

/// What of it reaches a report: by HTTP, over a pipe, and of files.
#[test]
fn transfers_have_a_class() {
    need!("curl", "python3", "gzip", "openssl");
    let port = peers::free_port();
    let run = Observed::script(&format!(
        "cat /usr/share/common-licenses/* >text; gzip -c text >archive
         openssl enc -aes-128-ctr -K 00112233445566778899aabbccddeeff -iv 00 -in text -out secret
         printf '{{\"a\": [1, 2, 3], \"b\": null}}' >json; : >nothing
         {{ printf '\\211PNG\\r\\n\\032\\n\\0\\0\\0\\rIHDR'; cat archive; }} >picture
         python3 -m http.server {port} --bind 127.0.0.1 2>log & server=$!
         listening {port}
         for file in text archive secret json picture; do curl -s http://127.0.0.1:{port}/$file -o got-$file; done
         cat picture | cat >copy
         kill $server"
    ))
    .go()
    .well();
    let class = |channel: &str, end: &str, name: &str| {
        let transfers = run.report.on(channel);
        let found = transfers.iter().find(|t| t.0[end]["path"].as_str().is_some_and(|p| p.ends_with(name)));
        found.map(|t| t.0["class"].as_str().unwrap_or("null").to_owned())
    };
    for (name, expected) in [
        ("text", "text"),
        ("archive", "compressed"),
        ("secret", "encrypted"),
        ("json", "structured"),
        ("picture", "media"),
    ] {
        let found = class("file", "destination", &format!("/got-{name}"));
        check!(run, found.as_deref() == Some(expected), "{name} by HTTP: {found:?}, not {expected}");
    }
    check!(run, class("file", "destination", "/copy").as_deref() == Some("media"), "over a pipe");
    // What a server sends begins with headers, and what a client asks is nothing else.
    let mut classes: Vec<String> = run
        .report
        .on("tcp")
        .iter()
        .filter(|t| {
            t.program("origin").starts_with("python3") && t.program("destination").starts_with("curl")
        })
        .map(|t| t.0["class"].as_str().unwrap_or("null").to_owned())
        .collect();
    classes.sort();
    check!(
        run,
        classes == ["compressed", "encrypted", "media", "structured", "text"],
        "behind HTTP's headers: {classes:?}"
    );
}
