//! Where the body of each response goes, decided before anything is sent: no server chooses the
//! name of a file.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use http::Uri;
use httpstream::Request;

use crate::options::{Output, Resume, Saving};

/// Where the body of a response goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stdout {
        /// `-o -`: even if it is a terminal and the body is binary.
        is_forced: bool,
    },
    File(Destination),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) path: PathBuf,
    /// The path for messages.
    pub(crate) shown: String,
    makes_dirs: bool,
    /// What has arrived of a response stays if the rest does not.
    pub(crate) keeps_part: bool,
}

impl Destination {
    /// Creates the file, or empties it. It is written in place, as with curl, so it may also be a
    /// device or a pipe.
    pub(crate) fn create(&self) -> io::Result<File> {
        if self.makes_dirs
            && let Some(dir) = self.path.parent()
        {
            fs::create_dir_all(dir)?;
        }
        File::create(&self.path)
    }

    /// Opens the file to append to its first `length` bytes.
    pub(crate) fn append(&self, length: u64) -> io::Result<File> {
        if length == 0 {
            return self.create();
        }
        let file = File::options().append(true).open(&self.path)?;
        if file.metadata()?.is_file() {
            file.set_len(length)?;
        }
        Ok(file)
    }

    /// Returns the length of the file. One that does not exist has none, nor has a device.
    pub(crate) fn length(&self) -> u64 {
        let found = fs::metadata(&self.path).ok();
        found.filter(Metadata::is_file).map_or(0, |it| it.len())
    }
}

/// Returns the target of each request, in order.
///
/// # Errors
/// A URL that names no file, or two that name the same one.
pub(crate) fn targets(saving: &Saving, requests: &[Request]) -> Result<Vec<Target>, String> {
    if saving.outputs.len() > requests.len() {
        return Err("there are more -o and -O than URLs".to_owned());
    }
    let tree = match &saving.tree {
        Some(dir) if saving.outputs.is_empty() && !saving.remote_name_all => {
            Some(Tree::new(dir, requests, saving.resume.is_some()))
        }
        Some(_) => return Err("--tree: cannot be combined with -o and -O".to_owned()),
        None => None,
    };
    let mut taken = HashSet::new();
    let mut targets = Vec::with_capacity(requests.len());
    for (number, request) in requests.iter().enumerate() {
        let target = match &tree {
            Some(tree) => tree.target(request.uri())?,
            None => saving.target(number, request.uri())?,
        };
        if let Target::File(Destination { path, shown, .. }) = &target {
            check_file(path)?;
            if is_file_to_be(path) && !taken.insert(path.clone()) {
                let url = self::shown(request.uri());
                return Err(format!("{url}: {shown} is already the file of another URL"));
            }
        }
        targets.push(target);
    }
    Ok(targets)
}

impl Saving {
    /// Returns where in a body to begin (-C).
    pub(crate) fn offset(&self, target: &Target) -> u64 {
        match (self.resume, target) {
            (None, _) | (Some(Resume::AfterFile), Target::Stdout { .. }) => 0,
            (Some(Resume::At(offset)), _) => offset,
            (Some(Resume::AfterFile), Target::File(file)) => file.length(),
        }
    }

    fn target(&self, number: usize, url: &Uri) -> Result<Target, String> {
        let name = match self.outputs.get(number) {
            Some(Output::To(path)) if path.as_os_str() == "-" => {
                return Ok(Target::Stdout { is_forced: true });
            }
            Some(Output::To(path)) => path.clone(),
            Some(Output::RemoteName) => remote_name(url)?.into(),
            None if self.remote_name_all => remote_name(url)?.into(),
            None => return Ok(Target::Stdout { is_forced: false }),
        };
        let path = match &self.output_dir {
            Some(dir) => dir.join(name),
            None => name,
        };
        Ok(Target::File(Destination {
            shown: path.display().to_string(),
            path,
            makes_dirs: self.creates_dirs,
            keeps_part: !self.removes_on_error,
        }))
    }
}

/// Returns the last segment of the URL's path, as -O uses it. It stays percent-encoded, so it
/// cannot lead into another directory.
fn remote_name(url: &Uri) -> Result<&str, String> {
    let name = url.path().rsplit(['/', '\\']).next().unwrap_or_default();
    match name {
        "" => Err(format!(
            "{}: the URL names no file for -O; use -o",
            shown(url)
        )),
        "." | ".." => Err(cannot_be_a_file(name, url)),
        name => Ok(name),
    }
}

/// Refuses a directory before anything is sent.
fn check_file(path: &Path) -> Result<(), String> {
    match path.as_os_str().is_empty() || path.is_dir() {
        true => Err(format!(
            "{:?} is not the name of a file; --tree writes into a directory",
            path.display().to_string()
        )),
        false => Ok(()),
    }
}

/// Whether the path is, or will be, a file. Several responses may go to one device.
fn is_file_to_be(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.is_file())
}

/// The directory into which --tree writes.
struct Tree<'a> {
    dir: &'a Path,
    /// Whether each origin has a subdirectory, which is so if there is more than one origin.
    by_origin: bool,
    keeps_parts: bool,
}

impl<'a> Tree<'a> {
    fn new(dir: &'a Path, requests: &[Request], keeps_parts: bool) -> Self {
        let mut origins = requests.iter().map(|request| origin(request.uri()));
        let first = origins.next();
        let by_origin = origins.any(|origin| Some(origin) != first);
        Self {
            dir,
            by_origin,
            keeps_parts,
        }
    }

    /// Returns the file for a body. Names stay percent-encoded as they are in the URL, so none of
    /// them can lead into another directory.
    fn target(&self, url: &Uri) -> Result<Target, String> {
        let mut path = self.dir.to_owned();
        if self.by_origin {
            path.push(origin(url));
        }
        let (folders, file) = url.path().rsplit_once('/').unwrap_or(("", url.path()));
        for folder in folders.split('/').filter(|folder| !folder.is_empty()) {
            path.push(checked(folder, url)?);
        }
        let file = if file.is_empty() { "index.html" } else { file };
        path.push(checked(file, url)?);
        let mut shown = path.display().to_string();
        if let Some(query) = url.query() {
            path.set_file_name(format!("{file}?{}", query.replace('/', "%2F")));
            shown += "?...";
        }
        Ok(Target::File(Destination {
            path,
            shown,
            makes_dirs: true,
            // Among many files, one that is not complete would go unnoticed, unless -C continues
            // it.
            keeps_part: self.keeps_parts,
        }))
    }
}

/// Returns `HOST_PORT`, including the port if it is the scheme's default.
fn origin(url: &Uri) -> String {
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let usual = match url.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    format!("{host}_{}", url.port_u16().unwrap_or(usual))
}

/// Refuses path segments that name another directory.
fn checked<'a>(name: &'a str, url: &Uri) -> Result<&'a str, String> {
    match matches!(name, "." | "..") {
        true => Err(cannot_be_a_file(name, url)),
        false => Ok(name),
    }
}

fn cannot_be_a_file(name: &str, url: &Uri) -> String {
    format!("{}: {name:?} cannot be a file name", shown(url))
}

/// Returns a URL for messages. Its query may contain secrets: those of -G, for example.
pub(crate) fn shown(url: &Uri) -> String {
    let text = url.to_string();
    match text.split_once('?') {
        Some((front, _)) => format!("{front}?..."),
        None => text,
    }
}
