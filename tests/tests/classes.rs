//! Classes of content: the code that runs in observed programs, on real files.
#![cfg(test)]

use counterfoil_abi::record::Class;
use counterfoil_abi::class;
use counterfoil_tests::classes::{CLASSES, Matrix};
use std::path::Path;

/// `make classes`: prints the matrix of docs/classes.md.
#[test]
#[ignore = "needs a corpus: make classes"]
fn corpus() {
    let Some(folder) = std::env::var_os("CLASSES_CORPUS") else { return println!("skipped: CLASSES_CORPUS is not set") };
    for (bytes, name) in [(class::EARLY, "4 KiB"), (class::LOOK, "64 KiB")] {
        let matrix = Matrix::of(Path::new(&folder), bytes).expect("the corpus is readable");
        println!("\n### {name}\n\n{matrix}\n");
        if std::env::var_os("CLASSES_WRONG").is_some() {
            matrix.wrong.iter().for_each(|wrong| println!("{wrong}"));
        }
        for class in CLASSES {
            assert!(matrix.all(class) > 0, "no file of class {} has {name}", class.word());
        }
        for readable in [Class::Text, Class::Structured] {
            assert_eq!(matrix.called(Class::Encrypted, readable), 0, "ciphertext is never called text");
            assert_eq!(matrix.called(readable, Class::Encrypted), 0, "text is never called encrypted");
        }
        if bytes == class::LOOK {
            for class in [Class::Text, Class::Compressed, Class::Media, Class::Encrypted] {
                assert!(matrix.right(class) >= 99.0, "{}: {:.1} %", class.word(), matrix.right(class));
            }
        }
    }
}
