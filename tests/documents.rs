//! Holds the texts: links resolve, the README stays short, words are the field's, and the documented layers are those of
//! the stack.

#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

/// File extensions without prose.
const NO_PROSE: [&str; 5] = ["svg", "lock", "binpb", "json", "pem"];

/// Returns all text files of the repository by their path from its root.
fn files() -> BTreeMap<PathBuf, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let path = directory.join(&name);
            if entry.file_type().unwrap().is_dir() {
                if name == ".ci" || !(name.starts_with('.') || name == "target" || name == "node_modules") {
                    directories.push(path);
                }
            } else if !path.extension().is_some_and(|end| NO_PROSE.iter().any(|no| end == *no))
                && let Ok(text) = fs::read_to_string(entry.path())
            {
                files.insert(path, text);
            }
        }
    }
    assert!(files.len() > 200, "{} files", files.len());
    files
}

/// Returns the Markdown files by their path, without their code blocks.
fn pages() -> BTreeMap<PathBuf, String> {
    let is_page = |path: &PathBuf| path.extension().is_some_and(|end| end == "md");
    let prose = |text: String| text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n");
    files().into_iter().filter(|(path, _)| is_page(path)).map(|(path, text)| (path, prose(text))).collect()
}

/// Returns the anchors that GitHub gives the headings of a page.
fn anchors(page: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for heading in page.lines().filter(|line| line.starts_with('#')) {
        let title = heading.trim_start_matches('#').trim().to_lowercase();
        let anchor: String = title
            .chars()
            .filter(|char| char.is_alphanumeric() || " -_".contains(*char))
            .map(|char| if char == ' ' { '-' } else { char })
            .collect();
        let numbered = (1..).map(|number| format!("{anchor}-{number}"));
        let free = std::iter::once(anchor.clone()).chain(numbered).find(|anchor| !anchors.contains(anchor));
        anchors.extend(free);
    }
    anchors
}

/// Returns the targets of a page's links and images.
fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](").skip(1).map(|rest| rest.split([')', ' ']).next().unwrap())
}

/// Resolves `.` and `..` in a path.
fn normalize(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => assert!(normal.pop(), "{} leaves the repository", path.display()),
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

#[test]
fn relative_links_resolve() {
    let pages = pages();
    let mut broken = Vec::new();
    let mut checked = 0;
    for (path, page) in &pages {
        for link in links(page).filter(|link| !link.contains("://") && !link.starts_with("mailto:")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { normalize(&path.parent().unwrap().join(file)) };
            let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(&target).exists();
            let has_anchor = anchor.is_empty() || pages.get(&target).is_some_and(|page| anchors(page).contains(anchor));
            if !exists || !has_anchor {
                broken.push(format!("{}: {link}", path.display()));
            }
            checked += 1;
        }
    }
    assert!(broken.is_empty(), "links to nothing:\n{}", broken.join("\n"));
    assert!(checked > 100, "{checked} links");
}

#[test]
fn every_page_is_reachable_from_the_index() {
    let index = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/README.md")).unwrap();
    let linked: BTreeSet<_> = links(&index).map(|link| normalize(&Path::new("docs").join(link))).collect();
    for page in pages().into_keys().filter(|page| page.starts_with("docs") && page != Path::new("docs/README.md")) {
        assert!(linked.contains(&page), "docs/README.md does not link {}", page.display());
    }
}

#[test]
fn readme_has_at_most_180_lines() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    assert!(readme.lines().count() <= 180, "README.md has {} lines: move details to docs/", readme.lines().count());
}

#[test]
fn documented_layers_are_those_of_the_stack() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let stack = fs::read_to_string(root.join("src/grpc/stack.rs")).unwrap();
    let built: Vec<_> = stack
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".layer("))
        .map(|layer| layer.split(['.', ':']).next().unwrap().replace("shared", "CatchPanic"))
        .collect();
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let section = page.split("## Inbound stack").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: Vec<_> = section.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(documented, built);
    assert!(built.len() > 10, "{built:?}");
}

/// Splits a text into lowercase words, each with the number of its line. An identifier is split into its words.
fn words(text: &str) -> Vec<(String, usize)> {
    let mut words = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let mut word = String::new();
        for char in line.chars().chain([' ']) {
            let starts_word = char.is_uppercase() && word.ends_with(char::is_lowercase);
            if (starts_word || !char.is_alphanumeric()) && !word.is_empty() {
                words.push((std::mem::take(&mut word).to_lowercase(), number));
            }
            if char.is_alphanumeric() {
                word.push(char);
            }
        }
    }
    words
}

#[test]
fn retired_words_do_not_return() {
    const VOCABULARY: &str = "tests/vocabulary.tsv";
    let mut files = files();
    let vocabulary = files.remove(Path::new(VOCABULARY)).unwrap();
    let rows: Vec<(Vec<&str>, &str)> = vocabulary
        .lines()
        .filter(|line| !line.starts_with('#'))
        .skip(1)
        .map(|row| row.split_once('\t').expect("a retired word, a tab, and the standard term"))
        .map(|(retired, say)| (retired.split(' ').collect(), say))
        .collect();
    let mut found = Vec::new();
    for (path, text) in &files {
        let words = words(text);
        for (at, (word, line)) in words.iter().enumerate() {
            for (retired, say) in rows.iter().filter(|(retired, _)| retired[0] == word) {
                let next = words[at..].iter().map(|(word, _)| word.as_str());
                if next.take(retired.len()).eq(retired.iter().copied()) {
                    found.push(format!("{}:{line}: \"{}\": say {say}", path.display(), retired.join(" ")));
                }
            }
        }
    }
    assert!(rows.len() > 40 && found.is_empty(), "{VOCABULARY} retires these words:\n{}", found.join("\n"));
}

#[test]
fn identifiers_and_wrapped_lines_are_split() {
    let text = "fn read_all() {\n// the\n    /// FirstPart: `in-flight`";
    let split: Vec<_> = words(text).into_iter().map(|(word, _)| word).collect();
    assert_eq!(split, ["fn", "read", "all", "the", "first", "part", "in", "flight"]);
}

#[test]
fn anchors_are_those_of_github() {
    let page = "# SaveInfo: `GET /v2`\n## Error codes\n## Error codes\n";
    assert_eq!(anchors(page), BTreeSet::from(["saveinfo-get-v2", "error-codes", "error-codes-1"].map(str::to_owned)));
}
