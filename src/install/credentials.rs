//! A directory of credentials.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject};
use zeroize::Zeroizing;

use super::{
    Generation, InstallError, PairFiles, Result,
    atomic::{
        TEMPORARY, at, folder_of, link, make_dir, read, remove_if_there, remove_temporary, rename,
        sync_dir, wipe_file, write,
    },
    disk::Disk,
    is_absent, known,
    port::{Access, Files},
};
use crate::{
    keys::PrivateKey,
    x509::{CertificateFacts, Refusal, read_certificate},
};

const CURRENT: &str = "current";
const LOCK: &str = ".lock";
const CERTIFICATE: &str = "cert.pem";
const KEY: &str = "key.pem";
const CSR: &str = "csr.der";

/// Folders are for their owner alone, unless said otherwise.
const PRIVATE: u32 = 0o700;

/// A directory of credentials.
#[derive(Debug)]
pub struct Credentials<F: Files = Disk> {
    files: F,
    dir: PathBuf,
    folder_mode: u32,
    _lock: Option<F::Lock>,
}

/// What the owner of a directory knows of its generations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints {
    /// It waits for its certificate, or to be proven.
    pub pending: Option<Generation>,
    /// The one to fall back to if `current` leads nowhere.
    pub fallback: Option<Generation>,
}

/// Who may use the files of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accesses {
    /// The certificate's.
    pub certificate: Access,
    /// The key's.
    pub key: Access,
}

/// A pair as it stands in its files, which was seen to be one.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    leaf: CertificateDer<'static>,
    facts: CertificateFacts,
}

impl Credentials {
    /// Opens a directory for writing, makes it if need be, and repairs it: what was half-written is
    /// removed (but not `pending`, a generation that waits for its certificate), and if `current`
    /// leads nowhere it is set to the newest usable generation, `pending` last of all. All is for
    /// its owner alone.
    pub fn open(dir: &Path, pending: impl FnOnce(&Self) -> Option<Generation>) -> Result<Self> {
        let hints = |opened: &Self| Ok(Hints { pending: pending(opened), fallback: None });
        Self::open_on(Disk, dir, PRIVATE, hints)
    }

    /// Looks at a directory without changing it.
    pub fn look(dir: &Path) -> Self {
        Self { files: Disk, dir: dir.to_owned(), folder_mode: PRIVATE, _lock: None }
    }
}

impl<F: Files> Credentials<F> {
    /// As [`Credentials::open`], on any file system, with folders of this mode.
    pub fn open_on(
        files: F,
        dir: &Path,
        folder_mode: u32,
        hints: impl FnOnce(&Self) -> Result<Hints>,
    ) -> Result<Self> {
        make_dir(&files, dir, folder_mode)?;
        let path = dir.join(LOCK);
        let lock = files.lock(&path).map_err(at(&path))?;
        let lock = lock.ok_or_else(|| InstallError::Locked(dir.to_owned()))?;
        let credentials = Self { files, dir: dir.to_owned(), folder_mode, _lock: Some(lock) };
        credentials.repair(hints(&credentials)?)?;
        Ok(credentials)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The generation in use; `None` when `current` leads to no usable pair.
    pub fn current(&self) -> Option<Generation> {
        self.in_use().ok().flatten()
    }

    /// As [`Credentials::current`], but what can't be read for now is an error.
    pub fn in_use(&self) -> Result<Option<Generation>> {
        let named = self.named()?;
        let Some(generation) = named else { return Ok(None) };
        Ok(known(self.facts(generation))?.map(|_| generation))
    }

    /// Every generation, oldest first, usable or not.
    pub fn generations(&self) -> Result<Vec<Generation>> {
        let mut found: Vec<_> =
            self.names(&self.dir)?.iter().filter_map(|name| Generation::parse(name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// Where a generation's pair stands.
    pub fn files(&self, generation: Generation) -> PairFiles {
        files_in(&self.folder(generation))
    }

    /// Where the current pair stands, whichever it is.
    pub fn current_files(dir: &Path) -> PairFiles {
        files_in(&dir.join(CURRENT))
    }

    /// The facts of a generation's certificate, which fits its key.
    pub fn facts(&self, generation: Generation) -> Result<CertificateFacts> {
        self.pair(generation).map(|pair| pair.facts)
    }

    /// Who may use the files of a generation.
    pub fn accesses(&self, generation: Generation) -> Result<Accesses> {
        Accesses::read(&self.files, &self.files(generation))
    }

    /// A generation's pair.
    pub fn pair(&self, generation: Generation) -> Result<Pair> {
        Pair::read(&self.files, &self.files(generation))
    }

    /// A generation's CSR, DER, where it has one and the key is there too.
    pub fn csr(&self, generation: Generation) -> Result<Vec<u8>> {
        load_key(&self.files, &self.files(generation).key)?;
        read(&self.files, &self.folder(generation).join(CSR)).map(|csr| csr.to_vec())
    }

    /// Begins a generation: a key as PEM, and the CSR that it signed. What stood there before is
    /// wiped.
    pub fn store_key(
        &self,
        generation: Generation,
        key: &[u8],
        csr: &[u8],
        access: Option<Access>,
    ) -> Result<()> {
        self.wipe(generation)?;
        let folder = self.make_folder(generation)?;
        write(&self.files, &folder, KEY, key, access)?;
        write(&self.files, &folder, CSR, csr, None)
    }

    /// Completes a generation with a chain, DER, leaf first. If it has no key it gets that of
    /// `key_of`.
    pub fn store_certificate(
        &self,
        generation: Generation,
        key_of: Generation,
        chain: &[Vec<u8>],
        access: Option<Access>,
    ) -> Result<CertificateFacts> {
        let certificate = Zeroizing::new(chain_pem(chain).into_bytes());
        let key = read(&self.files, &self.files(key_of).key)?;
        let pair = Pair::new(certificate, key, &self.files(generation))?;
        let folder = self.make_folder(generation)?;
        if key_of != generation {
            write(&self.files, &folder, KEY, &pair.key, access)?;
        }
        write(&self.files, &folder, CERTIFICATE, &pair.certificate, access)?;
        self.facts(generation)
    }

    /// Makes a usable generation the current one, by one rename.
    pub fn promote(&self, generation: Generation) -> Result<()> {
        self.facts(generation)?;
        let temporary = self.dir.join(format!("{TEMPORARY}{CURRENT}"));
        let current = self.dir.join(CURRENT);
        link(&self.files, Path::new(&generation.to_string()), &temporary, &current)?;
        rename(&self.files, &temporary, &current)
    }

    /// Overwrites and removes a generation that is not current; nothing happens if there is none.
    pub fn wipe(&self, generation: Generation) -> Result<()> {
        if self.in_use()? == Some(generation) {
            return Err(InstallError::Current(generation));
        }
        let folder = self.folder(generation);
        match self.files.facts(&folder) {
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found.map_err(at(&folder))?,
        };
        // A switch away from it may have been cut short: it must not come back once this is gone.
        sync_dir(&self.files, &self.dir)?;
        for name in self.names(&folder)? {
            wipe_file(&self.files, &folder.join(name))?;
        }
        self.files.remove_dir(&folder).map_err(at(&folder))?;
        sync_dir(&self.files, &self.dir)
    }

    /// Takes a pair in as a generation. What stood there before is wiped.
    pub fn take_in(
        &self,
        generation: Generation,
        pair: &Pair,
        accesses: Option<Accesses>,
    ) -> Result<()> {
        self.wipe(generation)?;
        let folder = self.make_folder(generation)?;
        let (certificate, key) = (accesses.map(|of| of.certificate), accesses.map(|of| of.key));
        write(&self.files, &folder, KEY, &pair.key, key)?;
        write(&self.files, &folder, CERTIFICATE, &pair.certificate, certificate)
    }

    /// Takes a pair from elsewhere as generation 1 and makes it current. The files stay.
    pub fn adopt(&self, files: &PairFiles) -> Result<Generation> {
        let generation = Generation(1);
        self.take_in(generation, &Pair::read(&self.files, files)?, None)?;
        self.promote(generation)?;
        Ok(generation)
    }

    /// Writes a note beside the generations.
    pub fn save(&self, name: &str, content: &[u8]) -> Result<()> {
        write(&self.files, &self.dir, name, content, None)
    }

    /// Reads a note; `None` when there is none that can be one.
    pub fn load(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let content = known(read(&self.files, &self.dir.join(name)))?;
        Ok(content.map(|content| content.to_vec()))
    }

    /// Removes what was half-written, and sees that `current` leads somewhere, as [`Self::open_on`]
    /// does.
    pub fn repair(&self, hints: Hints) -> Result<()> {
        remove_temporary(&self.files, &self.dir)?;
        let mut usable = Vec::new();
        for generation in self.generations()? {
            remove_temporary(&self.files, &self.folder(generation))?;
            // What a life before wrote is durable before anything rests on it.
            sync_dir(&self.files, &self.folder(generation))?;
            if known(self.facts(generation))?.is_some() {
                usable.push(generation);
            } else if hints.pending != Some(generation) {
                self.wipe(generation)?;
            }
        }
        sync_dir(&self.files, &self.dir)?;
        sync_dir(&self.files, folder_of(&self.dir))?;
        if self.in_use()?.is_some() {
            return Ok(());
        }
        choose(&usable, hints).map_or(Ok(()), |generation| self.promote(generation))
    }

    /// Wipes every generation, and removes the directory with `last`, the last note to go. Nothing
    /// may lead to `current` any more.
    pub fn remove(self, last: &str) -> Result<()> {
        remove_if_there(&self.files, &self.dir.join(CURRENT))?;
        for generation in self.generations()? {
            self.wipe(generation)?;
        }
        remove_temporary(&self.files, &self.dir)?;
        remove_if_there(&self.files, &self.dir.join(LOCK))?;
        sync_dir(&self.files, &self.dir)?;
        remove_if_there(&self.files, &self.dir.join(last))?;
        self.files.remove_dir(&self.dir).map_err(at(&self.dir))?;
        sync_dir(&self.files, folder_of(&self.dir))
    }

    fn folder(&self, generation: Generation) -> PathBuf {
        self.dir.join(generation.to_string())
    }

    fn make_folder(&self, generation: Generation) -> Result<PathBuf> {
        let folder = self.folder(generation);
        make_dir(&self.files, &folder, self.folder_mode)?;
        Ok(folder)
    }

    fn names(&self, dir: &Path) -> Result<Vec<String>> {
        self.files.list(dir).map_err(at(dir))
    }

    /// The generation that `current` names, usable or not.
    fn named(&self) -> Result<Option<Generation>> {
        let path = self.dir.join(CURRENT);
        match self.files.read_link(&path) {
            Ok(target) => Ok(target.to_str().and_then(Generation::parse)),
            // It is not there, or no link.
            Err(why) if is_absent(&why) || why.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(why) => Err(at(&path)(why)),
        }
    }
}

impl Accesses {
    /// Those of a pair, links followed.
    pub fn read<F: Files>(files: &F, pair: &PairFiles) -> Result<Self> {
        let of = |path: &Path| files.target_facts(path).map(|facts| facts.access).map_err(at(path));
        Ok(Self { certificate: of(&pair.certificate)?, key: of(&pair.key)? })
    }
}

impl Pair {
    /// Reads a pair, links followed.
    pub fn read<F: Files>(files: &F, at: &PairFiles) -> Result<Self> {
        Self::new(read(files, &at.certificate)?, read(files, &at.key)?, at)
    }

    fn new(
        certificate: Zeroizing<Vec<u8>>,
        key: Zeroizing<Vec<u8>>,
        at: &PairFiles,
    ) -> Result<Self> {
        let leaf = leaf(&at.certificate, &certificate)?;
        let unreadable = |_: Refusal| InstallError::Certificate(at.certificate.clone());
        let facts = read_certificate(&leaf).map_err(unreadable)?;
        if facts.key != parse_key(&at.key, &key)?.digest() {
            return Err(InstallError::Mismatch(at.certificate.clone()));
        }
        Ok(Self { certificate, key, leaf, facts })
    }

    /// The facts of its certificate.
    pub fn facts(&self) -> CertificateFacts {
        self.facts
    }

    /// Its certificates, PEM.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Its key, PEM.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Its leaf, DER.
    pub fn leaf(&self) -> &[u8] {
        &self.leaf
    }
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pair").field("facts", &self.facts).finish_non_exhaustive()
    }
}

fn choose(usable: &[Generation], hints: Hints) -> Option<Generation> {
    let fallback = hints.fallback.filter(|generation| usable.contains(generation));
    let proven = || usable.iter().rfind(|generation| hints.pending != Some(**generation));
    fallback.or_else(|| proven().copied()).or(usable.last().copied())
}

fn files_in(folder: &Path) -> PairFiles {
    PairFiles { certificate: folder.join(CERTIFICATE), key: folder.join(KEY) }
}

fn leaf(path: &Path, pem: &[u8]) -> Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem).map_err(|_| InstallError::Certificate(path.to_owned()))
}

fn load_key<F: Files>(files: &F, path: &Path) -> Result<PrivateKey> {
    parse_key(path, &read(files, path)?)
}

fn parse_key(path: &Path, pem: &[u8]) -> Result<PrivateKey> {
    PrivateKey::from_pem(pem).map_err(|why| InstallError::Key { path: path.to_owned(), why })
}

fn chain_pem(chain: &[Vec<u8>]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    let certificate = |der: &Vec<u8>| pem::Pem::new("CERTIFICATE", der.as_slice());
    chain.iter().map(|der| pem::encode_config(&certificate(der), config)).collect()
}
