//! A file system in memory that knows what is durable.
//!
//! A file's content and access are durable once it is synced; before, after a power cut, each is
//! any of its states since, and the content may be torn. A name is durable once its folder is
//! synced; before, it is any of its states since, whatever became of other names. A link's target
//! is part of its name. Operations are counted, and one can be made to fail, or the last.

use std::{
    cell::RefCell,
    collections::{BTreeMap, VecDeque},
    fmt, io,
    path::{Component, Path, PathBuf},
    rc::Rc,
};

use certrelay::install::{Access, Facts, Files, Kind, Owner, User};
use zeroize::Zeroizing;

const ROOT: u64 = 1;

/// Who writes here.
pub const US: Owner = Owner { uid: 0, gid: 0 };

/// The file system, by any number of handles.
#[derive(Clone)]
pub struct Model(Rc<RefCell<World>>);

#[derive(Clone)]
struct World {
    nodes: BTreeMap<u64, Node>,
    next: u64,
    /// Operations so far; those that change something.
    count: usize,
    changes: usize,
    /// From this change on nothing works.
    cut: Option<usize>,
    fault: Option<Fault>,
    fired: bool,
}

/// What fails.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The operation.
    pub at: usize,
    /// As what.
    pub kind: io::ErrorKind,
    /// So do all changes after it.
    pub lasts: bool,
}

#[derive(Clone)]
enum Node {
    File { content: Vec<Vec<u8>>, access: Vec<Access> },
    Link(PathBuf),
    Dir { names: BTreeMap<String, Vec<Option<u64>>>, mode: u32 },
}

/// A file that is open.
pub struct Handle {
    node: u64,
    at: usize,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (path, node) in self.tree() {
            writeln!(f, "{} {node}", path.display())?;
        }
        Ok(())
    }
}

impl Model {
    /// An empty root.
    pub fn new() -> Self {
        let root = Node::Dir { names: BTreeMap::new(), mode: 0o755 };
        let nodes = BTreeMap::from([(ROOT, root)]);
        let (count, changes, cut, fault, fired) = (0, 0, None, None, false);
        let world = World { nodes, next: ROOT + 1, count, changes, cut, fault, fired };
        Self(Rc::new(RefCell::new(world)))
    }

    /// A copy that goes its own way.
    pub fn fork(&self) -> Self {
        Self(Rc::new(RefCell::new(self.0.borrow().clone())))
    }

    /// A durable file.
    pub fn plant(&self, path: &Path, content: &[u8], access: Access) {
        let mut world = self.0.borrow_mut();
        let node = world.add(Node::File { content: vec![content.to_vec()], access: vec![access] });
        let (dir, name, _) = world.walk(path, false).expect("its folder is there");
        world.names(dir).expect("a folder").insert(name, vec![Some(node)]);
    }

    /// A durable folder.
    pub fn plant_dir(&self, path: &Path) {
        let mut world = self.0.borrow_mut();
        let node = world.add(Node::Dir { names: BTreeMap::new(), mode: 0o755 });
        let (dir, name, _) = world.walk(path, false).expect("its folder is there");
        world.names(dir).expect("a folder").insert(name, vec![Some(node)]);
    }

    /// The power goes before the change of this number, counted from now.
    pub fn cut_at(&self, change: Option<usize>) {
        let mut world = self.0.borrow_mut();
        world.cut = change.map(|change| world.changes + change);
    }

    /// Whether the power is off.
    pub fn is_cut(&self) -> bool {
        let world = self.0.borrow();
        world.cut.is_some_and(|cut| world.changes >= cut)
    }

    /// How many changes there were.
    pub fn changes(&self) -> usize {
        self.0.borrow().changes
    }

    /// How many operations there were.
    pub fn count(&self) -> usize {
        self.0.borrow().count
    }

    /// Something fails, or nothing any more.
    pub fn fail(&self, fault: Option<Fault>) {
        let mut world = self.0.borrow_mut();
        (world.fault, world.fired) = (fault, false);
    }

    /// Whether it has failed.
    pub fn has_failed(&self) -> bool {
        self.0.borrow().fired
    }

    /// What a process finds that starts after another was killed: all of it.
    pub fn after_kill(&self) -> Self {
        let after = self.fork();
        after.0.borrow_mut().cut = None;
        after
    }

    /// What may be found once the power is back. `choose` picks one of so many.
    pub fn after_cut(&self, mut choose: impl FnMut(usize) -> usize) -> Self {
        let after = self.after_kill();
        for node in after.0.borrow_mut().nodes.values_mut() {
            match node {
                Node::Link(_) => {}
                Node::File { content, access } => {
                    if content.len() > 1 {
                        let mut found = content[choose(content.len())].clone();
                        if choose(4) == 0 {
                            found.truncate(choose(found.len() + 1));
                        }
                        *content = vec![found];
                    }
                    *access = vec![access[choose(access.len())]];
                }
                Node::Dir { names, .. } => {
                    for states in names.values_mut() {
                        *states = vec![states[choose(states.len())]];
                    }
                    names.retain(|_, states| states[0].is_some());
                }
            }
        }
        after
    }

    /// Everything that has a path, in words.
    pub fn tree(&self) -> Vec<(PathBuf, String)> {
        let world = self.0.borrow();
        let mut todo = VecDeque::from([(PathBuf::from("/"), ROOT)]);
        let mut found = Vec::new();
        while let Some((path, node)) = todo.pop_front() {
            let what = match &world.nodes[&node] {
                Node::File { content, access } => {
                    let (length, access) = (last(content).len(), last(access));
                    format!("{length} bytes {:o} {}", access.mode, access.owner.uid)
                }
                Node::Link(target) => format!("-> {}", target.display()),
                Node::Dir { names, mode } => {
                    let there = names.iter().filter_map(|(name, it)| Some((name, (*last(it))?)));
                    todo.extend(there.map(|(name, node)| (path.join(name), node)));
                    format!("{mode:o}")
                }
            };
            found.push((path, what));
        }
        found
    }

    /// The content and access of every file there ever was, whether it still has a name or not.
    pub fn every_file(&self) -> Vec<(Vec<u8>, Access)> {
        let world = self.0.borrow();
        let files = world.nodes.values().filter_map(|node| match node {
            Node::File { content, access } => Some((last(content).clone(), *last(access))),
            _ => None,
        });
        files.collect()
    }

    fn see<T>(&self, look: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.0.borrow_mut();
        world.step(false)?;
        look(&mut world)
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> io::Result<T>) -> io::Result<T> {
        let mut world = self.0.borrow_mut();
        world.step(true)?;
        change(&mut world)
    }
}

impl World {
    fn step(&mut self, changes: bool) -> io::Result<()> {
        if self.cut.is_some_and(|cut| self.changes >= cut) {
            return Err(io::Error::other("the power is off"));
        }
        let fault = self.fault.filter(|fault| {
            self.count == fault.at || (fault.lasts && changes && self.count > fault.at)
        });
        self.count += 1;
        if let Some(fault) = fault {
            self.fired = true;
            return Err(fault.kind.into());
        }
        self.changes += usize::from(changes);
        Ok(())
    }

    fn add(&mut self, node: Node) -> u64 {
        self.next += 1;
        self.nodes.insert(self.next, node);
        self.next
    }

    fn names(&mut self, dir: u64) -> io::Result<&mut BTreeMap<String, Vec<Option<u64>>>> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir { names, .. }) => Ok(names),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The folder, the name in it, and what has that name.
    fn walk(&mut self, path: &Path, follow: bool) -> io::Result<(u64, String, Option<u64>)> {
        let mut todo = parts(path);
        let (mut dir, mut links) = (ROOT, 0);
        while let Some(name) = todo.pop_front() {
            let found = self.names(dir)?.get(&name).and_then(|states| *last(states));
            match found.map(|node| (node, self.nodes[&node].clone())) {
                Some((_, Node::Link(target))) if follow || !todo.is_empty() => {
                    links += 1;
                    if links > 40 {
                        return Err(io::Error::other("too many links"));
                    }
                    dir = if target.is_absolute() { ROOT } else { dir };
                    todo = parts(&target).into_iter().chain(todo).collect();
                }
                _ if todo.is_empty() => return Ok((dir, name, found)),
                Some((node, _)) => dir = node,
                None => return Err(io::ErrorKind::NotFound.into()),
            }
        }
        Ok((dir, String::new(), Some(dir)))
    }

    fn find(&mut self, path: &Path, follow: bool) -> io::Result<u64> {
        self.walk(path, follow)?.2.ok_or(io::ErrorKind::NotFound.into())
    }

    fn set(&mut self, path: &Path, node: Option<u64>) -> io::Result<()> {
        let (dir, name, _) = self.walk(path, false)?;
        self.names(dir)?.entry(name).or_insert_with(|| vec![None]).push(node);
        Ok(())
    }

    fn make(&mut self, path: &Path, node: Node) -> io::Result<u64> {
        if self.walk(path, false)?.2.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let node = self.add(node);
        self.set(path, Some(node))?;
        Ok(node)
    }

    fn facts(&self, node: u64) -> Facts {
        let (kind, length, access) = match &self.nodes[&node] {
            Node::File { content, access } => (Kind::File, last(content).len(), *last(access)),
            Node::Link(_) => (Kind::Link, 0, Access { owner: US, mode: 0o777 }),
            Node::Dir { mode, .. } => (Kind::Dir, 0, Access { owner: US, mode: *mode }),
        };
        let length = length.try_into().expect("small");
        Facts { kind, id: (1, node), names: 1, length, access }
    }

    fn file(&mut self, node: u64) -> io::Result<(&mut Vec<Vec<u8>>, &mut Vec<Access>)> {
        match self.nodes.get_mut(&node) {
            Some(Node::File { content, access }) => Ok((content, access)),
            Some(Node::Dir { .. }) => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Files for Model {
    type Handle = Handle;
    type Lock = ();

    fn facts(&self, path: &Path) -> io::Result<Facts> {
        self.see(|world| world.find(path, false).map(|node| world.facts(node)))
    }

    fn target_facts(&self, path: &Path) -> io::Result<Facts> {
        self.see(|world| world.find(path, true).map(|node| world.facts(node)))
    }

    fn read(&self, path: &Path, most: u64) -> io::Result<Zeroizing<Vec<u8>>> {
        self.see(|world| {
            let node = world.find(path, true)?;
            let mut content = last(world.file(node)?.0).clone();
            content.truncate(most.try_into().expect("small"));
            Ok(Zeroizing::new(content))
        })
    }

    fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        self.see(|world| match world.find(path, false).map(|node| &world.nodes[&node])? {
            Node::Link(target) => Ok(target.clone()),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.see(|world| {
            let dir = world.find(dir, true)?;
            let there = world.names(dir)?.iter().filter(|(_, states)| last(states).is_some());
            Ok(there.map(|(name, _)| name.clone()).collect())
        })
    }

    fn create(&self, path: &Path) -> io::Result<Handle> {
        let access = Access { owner: US, mode: 0o600 };
        let file = Node::File { content: vec![Vec::new()], access: vec![access] };
        self.change(|world| Ok(Handle { node: world.make(path, file)?, at: 0 }))
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        self.see(|world| {
            let node = world.find(path, true)?;
            world.file(node).map(|_| Handle { node, at: 0 })
        })
    }

    fn handle_facts(&self, file: &Handle) -> io::Result<Facts> {
        self.see(|world| Ok(world.facts(file.node)))
    }

    fn write(&self, file: &mut Handle, content: &[u8]) -> io::Result<()> {
        self.change(|world| {
            let (states, _) = world.file(file.node)?;
            let mut now = last(states).clone();
            let end = file.at + content.len();
            now.resize(now.len().max(end), 0);
            now[file.at..end].copy_from_slice(content);
            // Half of it may be there.
            let mut torn = last(states).clone();
            let half = file.at + content.len() / 2;
            torn.resize(torn.len().max(half), 0);
            torn[file.at..half].copy_from_slice(&content[..content.len() / 2]);
            states.extend([torn, now]);
            file.at = end;
            Ok(())
        })
    }

    fn set_owner(&self, file: &Handle, owner: Owner) -> io::Result<()> {
        self.change(|world| {
            let (_, states) = world.file(file.node)?;
            states.push(Access { owner, ..*last(states) });
            Ok(())
        })
    }

    fn set_mode(&self, file: &Handle, mode: u32) -> io::Result<()> {
        self.change(|world| {
            let (_, states) = world.file(file.node)?;
            states.push(Access { mode, ..*last(states) });
            Ok(())
        })
    }

    fn sync(&self, file: &Handle) -> io::Result<()> {
        self.change(|world| {
            let (content, access) = world.file(file.node)?;
            content.drain(..content.len() - 1);
            access.drain(..access.len() - 1);
            Ok(())
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|world| {
            let node = world.find(from, false)?;
            if let Some(there) = world.walk(to, false)?.2
                && matches!(world.nodes[&there], Node::Dir { .. })
            {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            world.set(to, Some(node))?;
            world.set(from, None)
        })
    }

    fn symlink(&self, target: &Path, link: &Path) -> io::Result<()> {
        self.change(|world| world.make(link, Node::Link(target.to_owned())).map(|_| ()))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change(|world| {
            let node = world.find(path, false)?;
            match world.nodes[&node] {
                Node::Dir { .. } => Err(io::ErrorKind::IsADirectory.into()),
                _ => world.set(path, None),
            }
        })
    }

    fn make_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        let node = Node::Dir { names: BTreeMap::new(), mode };
        self.change(|world| world.make(dir, node).map(|_| ()))
    }

    fn set_dir_mode(&self, dir: &Path, mode: u32) -> io::Result<()> {
        self.change(|world| {
            let node = world.find(dir, true)?;
            let Some(Node::Dir { mode: there, .. }) = world.nodes.get_mut(&node) else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            *there = mode;
            Ok(())
        })
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|world| {
            let node = world.find(dir, false)?;
            if world.names(node)?.values().any(|states| last(states).is_some()) {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            world.set(dir, None)
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.change(|world| {
            let dir = world.find(dir, true)?;
            let names = world.names(dir)?;
            for states in names.values_mut() {
                states.drain(..states.len() - 1);
            }
            names.retain(|_, states| states[0].is_some());
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Option<()>> {
        if self.see(|world| Ok(world.find(path, false).is_err()))? {
            self.create(path)?;
        }
        Ok(Some(()))
    }

    fn is_mount_point(&self, path: &Path) -> io::Result<bool> {
        self.see(|world| world.find(path, true).map(|_| false))
    }

    fn can_read(&self, _: User, _: &[&Path]) -> io::Result<bool> {
        Ok(true)
    }
}

fn last<T>(states: &[T]) -> &T {
    states.last().expect("there is always one")
}

fn parts(path: &Path) -> VecDeque<String> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_str().expect("UTF-8").to_owned()),
        _ => None,
    });
    names.collect()
}
