//! Writes transfers as a portable file.
#![forbid(unsafe_code)]

use super::{FORMAT, VERSION};
use crate::model::Transfer;
use crate::sinks::transfer_json;
use crate::verify::checksums::hex;
use jiff::Timestamp;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::io::{self, Write};

/// A portable file that is being written.
pub struct Writer<W> {
    out: W,
    sum: Sha256,
    transfers: u64,
}

impl<W: Write> Writer<W> {
    /// Begins one: exported on `host`, now.
    ///
    /// # Errors
    /// Writing failed.
    pub fn begin(out: W, host: &str) -> io::Result<Self> {
        let mut writer = Self { out, sum: Sha256::new(), transfers: 0 };
        let header = json!({
            "type": "manifest", "format": FORMAT, "version": VERSION, "host": host,
            "exported": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
        });
        writer.line(&header)?;
        Ok(writer)
    }

    /// One transfer more.
    ///
    /// # Errors
    /// Writing failed.
    pub fn transfer(&mut self, transfer: &Transfer) -> io::Result<()> {
        let mut line = transfer_json(transfer);
        // A drawing for reports; large, and nothing can be told from it that the rest doesn't say.
        line["strip"] = json!([]);
        self.transfers += 1;
        self.line(&line)
    }

    /// Ends it. Returns how many transfers it has.
    ///
    /// # Errors
    /// Writing failed.
    pub fn end(mut self) -> io::Result<u64> {
        let sum = self.sum.clone().finalize().into();
        self.line(&json!({ "type": "end", "transfers": self.transfers, "sha256": hex(&sum) }))?;
        self.out.flush()?;
        Ok(self.transfers)
    }

    fn line(&mut self, value: &serde_json::Value) -> io::Result<()> {
        let line = value.to_string() + "\n";
        self.sum.update(&line);
        self.out.write_all(line.as_bytes())
    }
}
