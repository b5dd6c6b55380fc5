//! Sorts a corpus into classes and lays what came out beside what it is.
//!
//! Comes in: a folder with one folder a class. Goes out: a [`Matrix`]. Called by `tests/classes.rs`, with the
//! code that the library runs in observed programs.

use counterfoil_abi::class;
use counterfoil_abi::record::Class;
use std::fmt;
use std::path::Path;

/// All classes but `empty`.
pub const CLASSES: [Class; 6] =
    [Class::Text, Class::Structured, Class::Compressed, Class::Media, Class::Encrypted, Class::Binary];

/// How often what was called what.
#[derive(Default)]
pub struct Matrix {
    counts: [[usize; 6]; 6],
    /// Files that were sorted wrong, and how.
    pub wrong: Vec<String>,
}

fn place(class: Class) -> Option<usize> {
    CLASSES.iter().position(|&c| c == class)
}

impl Matrix {
    /// Sorts the first `bytes` of each file below `folder` that has as many.
    pub fn of(folder: &Path, bytes: usize) -> std::io::Result<Self> {
        let mut matrix = Self::default();
        for class in CLASSES {
            let Ok(files) = std::fs::read_dir(folder.join(class.word())) else { continue };
            let mut files: Vec<_> = files.flatten().map(|f| f.path()).collect();
            files.sort();
            for file in files {
                let content = std::fs::read(&file)?;
                if let Some(start) = content.get(..bytes) {
                    let name = file.file_name().unwrap_or_default().to_string_lossy();
                    matrix.sort(class, &name, start);
                }
            }
        }
        Ok(matrix)
    }

    /// One more.
    pub fn sort(&mut self, class: Class, name: &str, content: &[u8]) {
        let found = class::of(content);
        let (Some(is), Some(called)) = (place(class), place(found.class)) else { return };
        self.counts[is][called] += 1;
        if is != called {
            self.wrong.push(format!("{}/{name}: {found:?}", class.word()));
        }
    }

    /// How many of a class there are.
    pub fn all(&self, class: Class) -> usize {
        place(class).map_or(0, |is| self.counts[is].iter().sum())
    }

    /// How many of one class were called another.
    pub fn called(&self, class: Class, other: Class) -> usize {
        place(class).zip(place(other)).map_or(0, |(is, called)| self.counts[is][called])
    }

    /// What part of a class was called so, in percent.
    pub fn right(&self, class: Class) -> f64 {
        100.0 * self.called(class, class) as f64 / self.all(class).max(1) as f64
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| is \\ called |")?;
        CLASSES.iter().try_for_each(|class| write!(f, " {} |", class.word()))?;
        write!(f, " files | right |\n|---|")?;
        f.write_str(&"---:|".repeat(CLASSES.len() + 2))?;
        for is in CLASSES {
            write!(f, "\n| {} |", is.word())?;
            CLASSES.iter().try_for_each(|&called| match self.called(is, called) {
                0 => write!(f, " · |"),
                n => write!(f, " {n} |"),
            })?;
            write!(f, " {} | {:.1} % |", self.all(is), self.right(is))?;
        }
        Ok(())
    }
}
