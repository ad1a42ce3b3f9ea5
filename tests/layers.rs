//! The rule of the map in `src/lib.rs`: a room imports only those in the rows below its own, and nowhere, at
//! the top or inside the rooms, do imports run in a circle. A file that hands on what a child defines
//! (`pub use`) imports nothing by that. Tests and what is fuzzed may look at everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module's path below the crate: `["machine", "disk", "find"]`.
type Module = Vec<String>;

/// What each module names, but in comments and in unit tests.
struct Tree(BTreeMap<Module, Vec<Name>>);

#[test]
fn rooms_import_only_those_below_them() {
    let map = fs::read_to_string(source().join("lib.rs")).unwrap();
    let rows: Vec<Vec<&str>> = map.lines().filter_map(rooms_of_row).collect();
    let row_of = |room: &String| {
        let row = rows.iter().position(|row| row.contains(&room.as_str()));
        row.unwrap_or_else(|| panic!("the map in src/lib.rs lacks {room}"))
    };
    let imports = Tree::read().imports();
    let upwards: Vec<String> = imports
        .iter()
        .filter(|(from, to)| from[0] != to[0] && row_of(&from[0]) >= row_of(&to[0]))
        .map(|(from, to)| format!("{} imports {}", from.join("::"), to.join("::")))
        .collect();
    assert!(upwards.is_empty(), "against the map in src/lib.rs: {upwards:#?}");
}

#[test]
fn no_imports_run_in_a_circle() {
    // By the folder in which two modules part: what in it imports what.
    let mut folders: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (from, to) in Tree::read().imports() {
        let shared = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
        // A folder's own file is one in it, too.
        let part = |module: &Module| module.get(shared).map_or("mod", String::as_str).to_owned();
        let folder = folders.entry(from[..shared].to_vec()).or_default();
        folder.entry(part(&from)).or_default().insert(part(&to));
    }
    let circles: Vec<String> = folders
        .into_iter()
        .map(|(folder, imports)| (folder, without_ends(imports)))
        .filter(|(_, circle)| !circle.is_empty())
        .map(|(folder, circle)| format!("in src/{}: {circle:?}", folder.join("/")))
        .collect();
    assert!(circles.is_empty(), "{circles:#?}");
}

/// What is left when all go that import nothing which is left: circles, and what lies above them.
fn without_ends(mut imports: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    loop {
        let left: BTreeSet<String> = imports.keys().cloned().collect();
        imports.retain(|_, imported| imported.intersection(&left).next().is_some());
        imports
            .values_mut()
            .for_each(|imported| imported.retain(|each| left.contains(each)));
        if imports.len() == left.len() {
            return imports;
        }
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The rooms of a row of the map: ``//! | [`cli`], [`init`] | … |``.
fn rooms_of_row(line: &str) -> Option<Vec<&str>> {
    let cell = line.strip_prefix("//! | [`")?.split('|').next()?;
    Some(cell.trim().trim_end_matches("`]").split("`], [`").collect())
}

fn below(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}

/// Whether a file is there for tests and the fuzzer alone.
fn is_for_tests(module: &Module) -> bool {
    let names = [
        "tests",
        "fuzz",
        "differential",
        "notation",
        "bombs",
        "machines",
        "sysfs_fixture",
        "random",
    ];
    module.iter().any(|name| names.contains(&name.as_str()))
}

impl Tree {
    fn read() -> Self {
        let mut files = BTreeMap::new();
        let mut folders = vec![(source(), Module::new())];
        while let Some((folder, module)) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
                let inner = below(&module, &stem);
                match stem.as_str() {
                    _ if path.is_dir() => folders.push((path, inner)),
                    "lib" => {}
                    "mod" => drop(files.insert(module.clone(), paths(&code(&path)))),
                    _ => drop(files.insert(inner, paths(&code(&path)))),
                }
            }
        }
        files.retain(|module, _| !is_for_tests(module));
        Self(files)
    }

    /// Who imports whom.
    fn imports(&self) -> BTreeSet<(Module, Module)> {
        let mut imports = BTreeSet::new();
        for (from, names) in &self.0 {
            for name in names.iter().filter(|name| !name.is_handed_on) {
                let to = self.home(from, &name.path);
                imports.extend(to.filter(|to| to != from).map(|to| (from.clone(), to)));
            }
        }
        imports
    }

    /// The module that defines what `from` calls `names`; none if it is a stranger's.
    fn home(&self, from: &Module, names: &[String]) -> Option<Module> {
        let mut names = names.iter();
        let first = names.next()?;
        let mut module = match first.as_str() {
            "crate" => Module::new(),
            "self" => from.clone(),
            "super" => from[..from.len() - 1].to_vec(),
            child => {
                let child = below(from, child);
                self.0.contains_key(&child).then_some(child)?
            }
        };
        for name in names {
            let inner = below(&module, name);
            if name == "super" {
                module.pop();
            } else if self.0.contains_key(&inner) {
                module = inner;
            } else {
                return self.definition(&module, name);
            }
        }
        Some(module).filter(|module| !module.is_empty())
    }

    /// Where `name` comes from that `module` has.
    fn definition(&self, module: &Module, name: &String) -> Option<Module> {
        let mut names = self.0.get(module)?.iter();
        let handed_on = names.find(|each| each.is_handed_on && each.path.last() == Some(name));
        match handed_on {
            Some(elsewhere) => self.home(module, &elsewhere.path),
            None => Some(module.clone()),
        }
    }
}

/// What is compiled into the product of a file: no comments, and nothing from its unit tests on.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    product
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A path to something: `crate::machine::disk::Disk`.
struct Name {
    path: Vec<String>,
    /// By `pub use`.
    is_handed_on: bool,
}

/// All paths in `code`; those in braces one by one.
fn paths(code: &str) -> Vec<Name> {
    let is_name = |sign: char| sign.is_alphanumeric() || sign == '_';
    let tokens: Vec<&str> = code
        .split_inclusive(|sign| !is_name(sign))
        .flat_map(|token| {
            let name = token.trim_end_matches(|sign| !is_name(sign));
            [name, token[name.len()..].trim()]
        })
        .filter(|token| !token.is_empty())
        .collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let is_handed_on = at > 1 && tokens[at - 1] == "use" && ["pub", ")"].contains(&tokens[at - 2]);
        let mut inside = Vec::new();
        at = 1 + path(&tokens, at, &[], &mut inside);
        found.extend(inside.into_iter().map(|path| Name { path, is_handed_on }));
    }
    found
}

/// Reads the path that begins with token number `at`, below `before`. Returns where its last token is.
fn path(tokens: &[&str], mut at: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut names = before.to_vec();
    loop {
        match tokens.get(at) {
            Some(&"{") if !names.is_empty() => {
                while tokens.get(at).is_some_and(|token| *token != "}") {
                    // A comma may be the last.
                    at += 1;
                    if tokens.get(at) != Some(&"}") {
                        at = 1 + path(tokens, at, &names, found);
                    }
                }
                return at;
            }
            Some(&"self") if !names.is_empty() => {}
            Some(name) => names.push((*name).to_owned()),
            None => {}
        }
        if tokens.get(at + 1) != Some(&":") || tokens.get(at + 2) != Some(&":") {
            found.extend((names.len() > 1).then_some(names));
            return at;
        }
        at += 3;
    }
}
