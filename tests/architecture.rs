//! Holds the architecture: which directory names which crate, which module may use which, and no import cycles.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{
    Attribute, Item, ItemMod, ItemUse, UseTree,
    visit::{self, Visit},
};

/// The top-level modules that each top-level module may use.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("clock", &[]),
    ("jitter", &[]),
    ("error", &[]),
    ("scan", &[]),
    ("json", &["scan"]),
    ("sync", &[]),
    ("runtime", &[]),
    ("proto", &["json"]),
    ("validate", &["error", "proto", "scan"]),
    ("config", &["clock", "proto", "validate"]),
    ("ops", &["clock", "config", "json"]),
    ("scm", &["clock", "config", "error", "jitter", "json", "ops", "proto", "runtime", "scan", "sync", "validate"]),
    ("watch", &["clock", "error", "jitter", "proto", "sync"]),
    ("grpc", &["clock", "config", "error", "jitter", "ops", "proto", "runtime", "scm", "sync", "validate", "watch"]),
    ("reload", &["clock", "config", "grpc", "ops", "scm"]),
    ("fuzz", &["config", "grpc", "ops", "proto", "scm", "validate"]),
    ("call", &["clock", "config", "grpc", "ops", "proto", "runtime"]),
    ("app", &["clock", "config", "grpc", "ops", "reload", "runtime", "scm"]),
];

/// Text that may stand only in the files with this prefix.
const ONLY_UNDER: [(&str, &str); 7] = [
    ("tonic::", "src/grpc/"),
    ("tonic_health", "src/grpc/"),
    ("tonic_reflection", "src/grpc/"),
    ("client::legacy", "src/scm/"),
    ("env::", "src/config"),
    ("fastrand", "src/jitter"),
    ("fs::", "src/config/"),
];

/// Text that a file may name elsewhere, and why.
const EXCEPTIONS: [(&str, &str, &str); 7] = [
    ("fs::", "src/grpc/connection/listener.rs", "a Unix socket is a path"),
    ("fs::", "src/ops/telemetry/log.rs", "standard output is a file handle"),
    ("fs::", "src/ops/telemetry/process.rs", "the crate procfs reads the gateway's own files in /proc"),
    ("tonic::", "src/call/client.rs", "a client of the gateway"),
    ("tonic::", "src/call/codec.rs", "the codec of that client"),
    ("tonic::", "src/call/failure.rs", "the status that the client got"),
    ("tonic::", "src/ops/telemetry/export.rs", "the metadata of OTLP over gRPC"),
];

/// The generated files, and the module that includes each.
const GENERATED: [(&str, &str); 8] = [
    ("huaweicloud.scm.v1.rs", "proto"),
    ("messages.rs", "proto"),
    ("json.rs", "proto::json::messages"),
    ("checks.rs", "validate"),
    ("methods.rs", "scm::api::methods"),
    ("services.rs", "grpc::gateway"),
    ("routes.rs", "grpc::routes"),
    ("grpc/huaweicloud.scm.v1.rs", "grpc::service"),
];

/// Returns the source files below `src`, without tests, by their path.
fn sources() -> BTreeMap<String, String> {
    let mut sources = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.contains("/tests") {
                sources.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    sources
}

/// Returns the module of a source file; the crate root is empty.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_start_matches("src/").trim_end_matches(".rs");
    match path {
        "lib" => Vec::new(),
        _ => path.split('/').map(str::to_owned).collect(),
    }
}

/// Collects the paths that begin with `crate` or `super`, outside of test code.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn of(source: &str) -> Vec<Vec<String>> {
        let mut paths = Self::default();
        paths.visit_file(&syn::parse_file(source).unwrap());
        paths.0
    }

    fn add(&mut self, path: Vec<String>) {
        if matches!(path.first().map(String::as_str), Some("crate" | "super")) {
            self.0.push(path);
        }
    }

    fn add_tree(&mut self, mut prefix: Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.add_tree(prefix, &path.tree);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.add_tree(prefix.clone(), tree)),
            UseTree::Name(name) => {
                prefix.push(name.ident.to_string());
                self.add(prefix);
            }
            UseTree::Rename(rename) => {
                prefix.push(rename.ident.to_string());
                self.add(prefix);
            }
            UseTree::Glob(_) => self.add(prefix),
        }
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg") && attribute.meta.require_list().is_ok_and(|l| l.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(ItemMod { attrs, .. }) | Item::Use(ItemUse { attrs, .. }) if is_test(attrs) => {}
            Item::Use(ItemUse { tree, .. }) => self.add_tree(Vec::new(), tree),
            item => visit::visit_item(self, item),
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }
}

/// Returns the modules that each module uses, generated code included.
fn imports() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let sources = sources();
    let modules: BTreeSet<_> = sources.keys().map(|file| module_of(file)).collect();
    let generated = GENERATED.map(|(file, module)| {
        let source = fs::read_to_string(Path::new(env!("OUT_DIR")).join(file)).unwrap();
        (module.split("::").map(str::to_owned).collect(), source)
    });
    let code = sources.into_iter().map(|(file, source)| (module_of(&file), source));
    let mut imports = BTreeMap::<_, BTreeSet<_>>::new();
    for (module, source) in code.chain(generated).filter(|(module, _)| module != &["main"]) {
        let used = imports.entry(module.clone()).or_default();
        for path in Paths::of(&source) {
            used.extend(target(&module, &path, &modules).filter(|target| *target != module));
        }
    }
    imports
}

/// Returns the module that a path names, or that has the item that it names.
fn target(module: &[String], path: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut absolute = module.to_vec();
    let mut rest = path;
    if rest.first().is_some_and(|first| first == "crate") {
        absolute.clear();
        rest = &rest[1..];
    }
    while rest.first().is_some_and(|first| first == "super") {
        absolute.pop();
        rest = &rest[1..];
    }
    absolute.extend_from_slice(rest);
    while !modules.contains(&absolute) {
        absolute.pop()?;
    }
    (!absolute.is_empty()).then_some(absolute)
}

#[test]
fn crates_files_and_environment_stay_in_their_directory() {
    let mut found = Vec::new();
    for (file, source) in sources() {
        let code: String = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
        for (text, directory) in ONLY_UNDER {
            let excepted = EXCEPTIONS.iter().any(|exception| (exception.0, exception.1) == (text, file.as_str()));
            if code.contains(text) && !file.starts_with(directory) && !excepted {
                found.push(format!("{file} names {text}, which belongs under {directory}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn top_level_modules_use_only_those_that_they_may() {
    let allowed = BTreeMap::from(MAY_USE);
    let mut found = BTreeSet::new();
    for (module, used) in imports() {
        let Some(from) = module.first() else { continue };
        let allowed = allowed.get(from.as_str()).unwrap_or_else(|| panic!("{from} has no entry in MAY_USE"));
        for to in used.iter().map(|used| &used[0]).filter(|to| *to != from && !allowed.contains(&to.as_str())) {
            found.insert(format!("{} uses {to}", module.join("::")));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn there_are_no_import_cycles() {
    // A parent declares its children and may use them, and they may use its items. That is not a cycle.
    let is_family = |a: &[String], b: &[String]| a.starts_with(b) || b.starts_with(a);
    let mut imports = imports();
    for (module, used) in &mut imports {
        used.retain(|used| !is_family(module, used));
    }
    // Modules that use no remaining module are removed until only cycles, and what leads to them, are left.
    loop {
        let done: Vec<_> =
            imports.iter().filter(|(_, used)| used.is_empty()).map(|(module, _)| module.clone()).collect();
        if done.is_empty() {
            break;
        }
        imports.retain(|module, _| !done.contains(module));
        imports.values_mut().for_each(|used| used.retain(|used| !done.contains(used)));
    }
    assert!(imports.is_empty(), "{imports:#?}");
}
