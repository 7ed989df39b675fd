//! The cookies of -b and -c.

use std::fmt::Display;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process;

use httpstream::session::Jar;

use crate::values::Value;

#[derive(Clone, Default)]
pub(crate) struct Cookies {
    /// `name=value` pairs, as they are sent.
    line: String,
    /// A file of cookies. An empty name stands for an empty one.
    file: Option<Value>,
    save_to: Option<PathBuf>,
}

impl Cookies {
    /// Adds the value of -b: pairs if it contains `=`, otherwise the name of a file.
    pub(crate) fn add(&mut self, value: Value) -> Result<(), String> {
        if !value.raw().as_encoded_bytes().contains(&b'=') {
            if self.file.is_some() {
                return Err(value.wrong("only one file of cookies can be read"));
            }
            self.file = Some(value);
            return Ok(());
        }
        if !self.line.is_empty() {
            self.line.push_str("; ");
        }
        self.line.push_str(value.text()?);
        Ok(())
    }

    pub(crate) fn save_to(&mut self, value: Value) {
        self.save_to = Some(value.path());
    }

    /// Returns the pairs as they are sent, if there are any.
    pub(crate) fn line(&self) -> Option<&str> {
        Some(&*self.line).filter(|line| !line.is_empty())
    }

    /// Returns the jar, if there is one: with -c, or if -b names a file.
    ///
    /// As with curl, the file need not exist, so that the first run can be like all others.
    pub(crate) fn jar(&self) -> Result<Option<Jar>, String> {
        let Some(value) = &self.file else {
            return Ok(self.save_to.as_ref().map(|_| Jar::new()));
        };
        if value.raw().is_empty() {
            return Ok(Some(Jar::new()));
        }
        match Jar::load(value.raw()) {
            Ok(jar) => Ok(Some(jar)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Some(Jar::new())),
            Err(error) => Err(value.wrong(format_args!("{}: {error}", value.raw().display()))),
        }
    }

    /// Puts the pairs into the jar, as cookies for the hosts of `urls`. A request with a Cookie
    /// field of its own would carry nothing of the jar.
    ///
    /// # Errors
    /// A pair would replace a cookie of the file, or the jar refuses it.
    pub(crate) fn put_into(&self, jar: &Jar, urls: &[String]) -> Result<(), String> {
        let wrong = |number: u32, why: &dyn Display| format!("-b: cookie number {number}: {why}");
        let numbered = || (1..).zip(pairs(&self.line));
        for url in urls {
            if let Some((number, _)) = numbered().find(|(_, it)| jar.get(url, it.0).is_some()) {
                return Err(wrong(number, &"the file has another one of this name"));
            }
        }
        for url in urls {
            let is_secure = url.starts_with("https:");
            let secure = if is_secure { "; Secure" } else { "" };
            for (number, (name, value)) in numbered() {
                jar.set(url, &format!("{name}={value}; Path=/{secure}"))
                    .map_err(|error| wrong(number, &error))?;
            }
        }
        Ok(())
    }

    /// Takes the pairs out again that no server has replaced: they are not the servers' cookies.
    pub(crate) fn take_from(&self, jar: &Jar, urls: &[String]) {
        for url in urls {
            for (name, value) in pairs(&self.line) {
                if jar.get(url, name).as_deref() == Some(value) {
                    jar.remove(url, name);
                }
            }
        }
    }

    /// Writes the jar, if there is -c.
    pub(crate) fn save(&self, jar: &Jar) -> Result<(), String> {
        let Some(path) = &self.save_to else {
            return Ok(());
        };
        let saved = match path.as_os_str() == "-" || is_special(path) {
            true => copy_to(jar, path),
            false => jar.save(path),
        };
        saved.map_err(|error| format!("-c {}: {error}", path.display()))
    }
}

fn pairs(line: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = line
        .split(';')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Whether there is something other than a file, such as a device, which a jar does not replace.
fn is_special(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// Writes the jar to stdout (`-`), a device or a pipe, by way of a file.
fn copy_to(jar: &Jar, path: &Path) -> io::Result<()> {
    let file = std::env::temp_dir().join(format!("httpstream-get-{}", process::id()));
    jar.save(&file)?;
    let text = fs::read(&file);
    fs::remove_file(&file)?;
    match path.as_os_str() == "-" {
        true => {
            let mut stdout = io::stdout();
            stdout.write_all(&text?)?;
            stdout.flush()
        }
        false => fs::OpenOptions::new()
            .write(true)
            .open(path)?
            .write_all(&text?),
    }
}
