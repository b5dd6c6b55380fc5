//! Pictures and scripts to work with, made by real programs before anything is observed.

use crate::scratch::Scratch;
use std::process::Command;

/// `cover.jpg`, `cover.png` … `cover.tiff`: noise, 320 × 240, in the scratch folder.
pub fn make(scratch: &Scratch) {
    let code = "from PIL import Image\nim = Image.effect_noise((320, 240), 80).convert('RGB')\n\
                im.save('cover.jpg', quality=90)\nfor end in 'png bmp gif webp tiff'.split(): im.save('cover.' + end)";
    run(scratch, &[crate::peers::PYTHON, "-c", code]);
}

/// A folder of `count` small pictures.
pub fn library(scratch: &Scratch, folder: &str, count: usize) {
    let code = format!(
        "import os\nfrom PIL import Image\nos.makedirs('{folder}', exist_ok=True)\n\
         for i in range({count}): Image.effect_noise((48, 48), i % 99 + 1).convert('RGB').save(f'{folder}/picture{{i:03}}.jpg')"
    );
    run(scratch, &[crate::peers::PYTHON, "-c", &code]);
}

/// Runs a command in the scratch folder, unobserved.
pub fn run(scratch: &Scratch, words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).current_dir(scratch.path()).output();
    let output = status.expect("the program starts");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
