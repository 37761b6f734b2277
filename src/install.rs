//! Credentials on disk: generations, and the one that is current.
//!
//! ```text
//! DIR/gen-1/{cert.pem,key.pem}      a generation: a key, and once there is one its certificate
//! DIR/gen-2/{key.pem,csr.der}
//! DIR/current -> gen-1              the pair in use, switched by one rename
//! DIR/<name>                        notes of whoever uses the directory
//! ```
//!
//! The only module that writes credential files. A file is written beside its place, synced,
//! renamed, and its directory synced: a power cut leaves the old file or the new one. `current`
//! always names a generation whose certificate fits its key. Files are 0600, folders 0700; one
//! process at a time may write. Knows nothing of rotations.
//!
//! A superseded key is overwritten and removed. On a disk in the old sense that ends it. On flash
//! and on copy-on-write file systems the old blocks may stay until the device reuses them: only an
//! encrypted disk helps there.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is where credential files are written"
)]

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink},
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    keys::{KeyError, PrivateKey},
    x509::{CertificateFacts, Refusal, read_certificate},
};

const CURRENT: &str = "current";
const LOCK: &str = ".lock";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
const CSR: &str = "csr.der";

/// What is being written, or switched to, has this in front of its name.
const TEMPORARY: &str = ".new-";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 64 * 1024;

/// Which generation of credentials; a higher number is younger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u32);

impl Generation {
    /// The name of its folder, if it is one.
    fn parse(name: &str) -> Option<Self> {
        let number = name.strip_prefix("gen-")?.parse().ok().map(Self)?;
        (number.to_string() == name).then_some(number)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gen-{}", self.0)
    }
}

/// What can go wrong with the credentials on disk.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or folder could not be read or written.
    #[error("{path}: {why}", path = path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// Another process has the directory.
    #[error("{dir} is in use by another process: stop that first", dir = .0.display())]
    Locked(PathBuf),
    /// A file is larger than any credential.
    #[error("{path} is larger than 64 KiB", path = .0.display())]
    TooLarge(PathBuf),
    /// A key can't be read.
    #[error("{path}: {why}", path = path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        why: KeyError,
    },
    /// A certificate can't be read.
    #[error("{path}: there is no readable CERTIFICATE in it", path = .0.display())]
    Certificate(PathBuf),
    /// The generation is the current one, which is never removed.
    #[error("{0} is in use")]
    Current(Generation),
    /// The certificate is not the key's.
    #[error("{dir}: the certificate does not fit the key", dir = .0.display())]
    Mismatch(PathBuf),
}

type Result<T> = std::result::Result<T, InstallError>;

/// The files of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairFiles {
    /// The certificate, PEM: the leaf, then what follows it.
    pub certificate: PathBuf,
    /// The key, PEM.
    pub key: PathBuf,
}

/// A directory of credentials.
#[derive(Debug)]
pub struct Credentials {
    dir: PathBuf,
    _lock: Option<File>,
}

impl Credentials {
    /// Opens a directory for writing, makes it if need be, and repairs it: what was half-written is
    /// removed (but not `pending`, a generation that waits for its certificate), and if `current`
    /// leads nowhere it is set to the newest usable generation, `pending` last of all.
    pub fn open(dir: &Path, pending: impl FnOnce(&Self) -> Option<Generation>) -> Result<Self> {
        make_dir(dir)?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
        let lock = lock.map_err(at(&path))?;
        lock.try_lock().map_err(|_| InstallError::Locked(dir.to_owned()))?;
        let credentials = Self { dir: dir.to_owned(), _lock: Some(lock) };
        let pending = pending(&credentials);
        credentials.repair(pending)?;
        Ok(credentials)
    }

    /// Looks at a directory without changing it.
    pub fn look(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), _lock: None }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The generation in use; `None` when `current` leads to no usable pair.
    pub fn current(&self) -> Option<Generation> {
        let target = fs::read_link(self.dir.join(CURRENT)).ok()?;
        let generation = Generation::parse(target.to_str()?)?;
        self.facts(generation).is_ok().then_some(generation)
    }

    /// Every generation, oldest first, usable or not.
    pub fn generations(&self) -> Result<Vec<Generation>> {
        let mut found: Vec<_> =
            names(&self.dir)?.iter().filter_map(|name| Generation::parse(name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Where a generation's pair stands.
    pub fn files(&self, generation: Generation) -> PairFiles {
        let folder = self.folder(generation);
        PairFiles { certificate: folder.join(CERTIFICATE), key: folder.join(KEY) }
    }

    /// The facts of a generation's certificate, which fits its key.
    pub fn facts(&self, generation: Generation) -> Result<CertificateFacts> {
        let files = self.files(generation);
        let facts = leaf_facts(&files.certificate, &read(&files.certificate)?)?;
        if facts.key != load_key(&files.key)?.digest() {
            return Err(InstallError::Mismatch(self.folder(generation)));
        }
        Ok(facts)
    }

    /// A generation's CSR, DER, where it has one and the key is there too.
    pub fn csr(&self, generation: Generation) -> Result<Vec<u8>> {
        load_key(&self.files(generation).key)?;
        read(&self.folder(generation).join(CSR)).map(|csr| csr.to_vec())
    }

    /// Begins a generation: a key and the CSR that it signed. What stood there before is wiped.
    pub fn store_key(&self, generation: Generation, key: &PrivateKey, csr: &[u8]) -> Result<()> {
        self.wipe(generation)?;
        let folder = self.folder(generation);
        make_dir(&folder)?;
        write(&folder, KEY, key.to_pem().as_bytes())?;
        write(&folder, CSR, csr)?;
        sync_dir(&self.dir)
    }

    /// Completes a generation with a chain, DER, leaf first. If it has no key it gets that of
    /// `key_of`.
    pub fn store_certificate(
        &self,
        generation: Generation,
        key_of: Generation,
        chain: &[Vec<u8>],
    ) -> Result<CertificateFacts> {
        let folder = self.folder(generation);
        if key_of != generation {
            make_dir(&folder)?;
            write(&folder, KEY, &read(&self.files(key_of).key)?)?;
        }
        write(&folder, CERTIFICATE, chain_pem(chain).as_bytes())?;
        sync_dir(&self.dir)?;
        self.facts(generation)
    }

    /// Makes a usable generation the current one, by one rename.
    pub fn promote(&self, generation: Generation) -> Result<()> {
        self.facts(generation)?;
        let temporary = self.dir.join(format!("{TEMPORARY}{CURRENT}"));
        remove_if_there(&temporary)?;
        symlink(generation.to_string(), &temporary).map_err(at(&temporary))?;
        fs::rename(&temporary, self.dir.join(CURRENT)).map_err(at(&temporary))?;
        sync_dir(&self.dir)
    }

    /// Overwrites and removes a generation that is not current; nothing happens if there is none.
    pub fn wipe(&self, generation: Generation) -> Result<()> {
        if self.current() == Some(generation) {
            return Err(InstallError::Current(generation));
        }
        let folder = self.folder(generation);
        if !folder.exists() {
            return Ok(());
        }
        for name in names(&folder)? {
            wipe_file(&folder.join(name))?;
        }
        fs::remove_dir(&folder).map_err(at(&folder))?;
        sync_dir(&self.dir)
    }

    /// Takes a pair from elsewhere as generation 1 and makes it current. The files stay.
    pub fn adopt(&self, files: &PairFiles) -> Result<Generation> {
        let generation = Generation(1);
        let certificate = read(&files.certificate)?;
        let facts = leaf_facts(&files.certificate, &certificate)?;
        let key = load_key(&files.key)?;
        if facts.key != key.digest() {
            return Err(InstallError::Mismatch(self.dir.clone()));
        }
        self.wipe(generation)?;
        let folder = self.folder(generation);
        make_dir(&folder)?;
        write(&folder, KEY, key.to_pem().as_bytes())?;
        write(&folder, CERTIFICATE, &certificate)?;
        sync_dir(&self.dir)?;
        self.promote(generation)?;
        Ok(generation)
    }

    /// Writes a note beside the generations.
    pub fn save(&self, name: &str, content: &[u8]) -> Result<()> {
        write(&self.dir, name, content)
    }

    /// Reads a note; `None` when there is none.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match read(&self.dir.join(name)) {
            Ok(content) => Ok(Some(content.to_vec())),
            Err(InstallError::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn folder(&self, generation: Generation) -> PathBuf {
        self.dir.join(generation.to_string())
    }

    fn repair(&self, pending: Option<Generation>) -> Result<()> {
        remove_temporary(&self.dir)?;
        let mut usable = Vec::new();
        for generation in self.generations()? {
            remove_temporary(&self.folder(generation))?;
            if self.facts(generation).is_ok() {
                usable.push(generation);
            } else if pending != Some(generation) {
                self.wipe(generation)?;
            }
        }
        if self.current().is_some() {
            return Ok(());
        }
        let proven = usable.iter().rfind(|generation| pending != Some(**generation));
        proven.or(usable.last()).map_or(Ok(()), |generation| self.promote(*generation))
    }
}

fn leaf_facts(path: &Path, pem: &[u8]) -> Result<CertificateFacts> {
    let bad = || InstallError::Certificate(path.to_owned());
    let leaf = CertificateDer::from_pem_slice(pem).map_err(|_| bad())?;
    read_certificate(&leaf).map_err(|_: Refusal| bad())
}

fn load_key(path: &Path) -> Result<PrivateKey> {
    PrivateKey::from_pem(&read(path)?)
        .map_err(|why| InstallError::Key { path: path.to_owned(), why })
}

fn chain_pem(chain: &[Vec<u8>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let certificate = |der: &Vec<u8>| pem::Pem::new("CERTIFICATE", der.as_slice());
    chain.iter().map(|der| pem::encode_config(&certificate(der), config)).collect()
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    |why| InstallError::Io { path, why }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    if fs::metadata(path).map_err(at(path))?.len() > MAX_FILE {
        return Err(InstallError::TooLarge(path.to_owned()));
    }
    fs::read(path).map(Zeroizing::new).map_err(at(path))
}

/// Writes a file so that a power cut leaves the old one or the new one.
fn write(dir: &Path, name: &str, content: &[u8]) -> Result<()> {
    let temporary = dir.join(format!("{TEMPORARY}{name}"));
    remove_if_there(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(at(&temporary))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at(&temporary))?;
    fs::rename(&temporary, dir.join(name)).map_err(at(&temporary))?;
    sync_dir(dir)
}

fn make_dir(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at(dir))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(at(dir))
}

/// The names in a folder. One that is not UTF-8 is none of ours.
fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(at(dir))?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.collect())
}

fn remove_temporary(dir: &Path) -> Result<()> {
    for name in names(dir)?.iter().filter(|name| name.starts_with(TEMPORARY)) {
        wipe_file(&dir.join(name))?;
    }
    Ok(())
}

/// Overwrites a file with zeros and removes it; a link is only removed.
fn wipe_file(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(at(path))?;
    if metadata.is_file() {
        let zeros = vec![0; usize::try_from(metadata.len().min(MAX_FILE)).unwrap_or(0)];
        let mut file = OpenOptions::new().write(true).open(path).map_err(at(path))?;
        file.write_all(&zeros).and_then(|()| file.sync_all()).map_err(at(path))?;
    }
    fs::remove_file(path).map_err(at(path))
}

fn remove_if_there(path: &Path) -> Result<()> {
    match wipe_file(path) {
        Err(InstallError::Io { why, .. }) if why.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, CertificateSigningRequestParams, Issuer, KeyPair};

    use super::*;
    use crate::keys::KeyKind;

    fn issue(csr: &[u8]) -> Vec<Vec<u8>> {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::new(CertificateParams::default(), key);
        let csr = CertificateSigningRequestParams::from_der(&csr.into()).expect("a CSR");
        vec![csr.signed_by(&issuer).expect("a certificate").der().to_vec()]
    }

    fn open(dir: &Path) -> Credentials {
        Credentials::open(dir, |_| None).expect("opens")
    }

    fn begin(credentials: &Credentials, generation: u32) -> Vec<u8> {
        let key = PrivateKey::generate(KeyKind::P256).expect("a key");
        let csr = key.csr(&"pump-7".parse().expect("valid")).expect("a CSR");
        credentials.store_key(Generation(generation), &key, &csr).expect("stored");
        csr
    }

    fn complete(credentials: &Credentials, generation: u32) {
        let chain = issue(&begin(credentials, generation));
        let generation = Generation(generation);
        credentials.store_certificate(generation, generation, &chain).expect("stored");
    }

    fn temp() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn a_generation_becomes_current_by_one_switch_and_stays_so() {
        let dir = temp();
        let credentials = open(dir.path());
        assert_eq!(credentials.current(), None);
        complete(&credentials, 1);
        complete(&credentials, 2);
        credentials.promote(Generation(1)).expect("promoted");
        credentials.promote(Generation(2)).expect("promoted");
        drop(credentials);
        let credentials = open(dir.path());
        assert_eq!(credentials.current(), Some(Generation(2)));
        assert!(matches!(credentials.wipe(Generation(2)), Err(InstallError::Current(_))));
        credentials.wipe(Generation(1)).expect("wiped");
        assert_eq!(credentials.generations().expect("a list"), [Generation(2)]);
    }

    #[test]
    fn a_pair_that_does_not_fit_is_never_current() {
        let dir = temp();
        let credentials = open(dir.path());
        begin(&credentials, 1);
        assert!(credentials.promote(Generation(1)).is_err());
        let foreign = issue(&begin(&credentials, 2));
        let stored = credentials.store_certificate(Generation(1), Generation(1), &foreign);
        assert!(matches!(stored, Err(InstallError::Mismatch(_))));
        assert!(credentials.promote(Generation(1)).is_err());
        assert_eq!(credentials.current(), None);
    }

    #[test]
    fn files_are_for_their_owner_alone() {
        let dir = temp();
        let credentials = open(&dir.path().join("new"));
        complete(&credentials, 1);
        credentials.save("note", b"x").expect("saved");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        let files = credentials.files(Generation(1));
        for file in [&files.key, &files.certificate, &credentials.dir().join("note")] {
            assert_eq!(mode(file), 0o600, "{}", file.display());
        }
        assert_eq!(mode(credentials.dir()), 0o700);
        assert_eq!(mode(&credentials.folder(Generation(1))), 0o700);
    }

    #[test]
    fn what_was_half_written_is_gone_after_the_next_start_but_not_what_waits() {
        let dir = temp();
        let credentials = open(dir.path());
        complete(&credentials, 1);
        credentials.promote(Generation(1)).expect("promoted");
        begin(&credentials, 2);
        begin(&credentials, 3);
        let litter = [
            dir.path().join(".new-current"),
            dir.path().join(".new-note"),
            dir.path().join("gen-1/.new-key.pem"),
        ];
        for path in &litter {
            symlink("nowhere", path).expect("a link");
        }
        drop(credentials);
        let credentials = Credentials::open(dir.path(), |_| Some(Generation(3))).expect("opens");
        assert_eq!(credentials.generations().expect("a list"), [Generation(1), Generation(3)]);
        assert!(credentials.csr(Generation(3)).is_ok());
        assert!(litter.iter().all(|path| fs::symlink_metadata(path).is_err()));
        assert_eq!(credentials.current(), Some(Generation(1)));
    }

    #[test]
    fn a_current_that_leads_nowhere_is_set_to_the_newest_proven_pair() {
        let dir = temp();
        let credentials = open(dir.path());
        for generation in 1..=3 {
            complete(&credentials, generation);
        }
        symlink("gen-9", dir.path().join(CURRENT)).expect("a link");
        drop(credentials);
        let credentials = Credentials::open(dir.path(), |_| Some(Generation(3))).expect("opens");
        assert_eq!(credentials.current(), Some(Generation(2)));
        drop(credentials);
        fs::remove_file(dir.path().join(CURRENT)).expect("removed");
        assert_eq!(open(dir.path()).current(), Some(Generation(3)));
    }

    #[test]
    fn a_pair_from_elsewhere_is_adopted_if_it_fits() {
        let elsewhere = temp();
        let source = open(elsewhere.path());
        complete(&source, 1);
        complete(&source, 2);
        let dir = temp();
        let credentials = open(dir.path());
        let (one, two) = (source.files(Generation(1)), source.files(Generation(2)));
        let crossed = PairFiles { certificate: one.certificate.clone(), key: two.key };
        assert!(matches!(credentials.adopt(&crossed), Err(InstallError::Mismatch(_))));
        assert_eq!(credentials.adopt(&one).expect("adopted"), Generation(1));
        assert_eq!(credentials.current(), Some(Generation(1)));
        assert!(one.key.exists());
    }

    #[test]
    fn two_processes_can_not_write_to_one_directory() {
        let dir = temp();
        let _first = open(dir.path());
        assert!(matches!(Credentials::open(dir.path(), |_| None), Err(InstallError::Locked(_))));
    }

    #[test]
    fn a_wiped_key_is_overwritten_before_it_is_removed() {
        let dir = temp();
        let credentials = open(dir.path());
        complete(&credentials, 1);
        let key = credentials.files(Generation(1)).key;
        let other_name = dir.path().join("other-name");
        fs::hard_link(&key, &other_name).expect("a link");
        credentials.wipe(Generation(1)).expect("wiped");
        let left = fs::read(&other_name).expect("readable");
        assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
    }
}
