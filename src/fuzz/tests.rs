//! Replays the inputs that `tests/fuzz` keeps: the seeds, and every input that once crashed a target.

use std::{
    collections::BTreeSet,
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use toml::Table;

use super::{canonical_request, csr, responses, traceparent};
use crate::{
    config, grpc,
    scm::{client::transport, credentials},
    validate,
};

type Target = fn(&[u8]);

/// All targets by name.
const TARGETS: [(&str, Target); 17] = [
    ("canonical_request", canonical_request),
    ("certificate", validate::fuzz::certificate),
    ("claims", config::fuzz::claims),
    ("configuration", config::fuzz::configuration),
    ("csr", csr),
    ("error_body", responses::error_body),
    ("forwarded_client_cert", grpc::fuzz::forwarded_client_cert),
    ("grpc_timeout", grpc::fuzz::grpc_timeout),
    ("http2_frames", grpc::fuzz::http2_frames),
    ("pem_pair", config::fuzz::pem_pair),
    ("private_key", validate::fuzz::private_key),
    ("profile", config::fuzz::profile),
    ("proxy_response", transport::fuzz::proxy_response),
    ("reply", responses::reply),
    ("request_message", grpc::fuzz::request_message),
    ("temporary_credentials", credentials::fuzz::temporary_credentials),
    ("traceparent", traceparent),
];

/// The largest seed in bytes.
const MAX_SEED: usize = 2048;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

/// Returns the inputs of a target with their paths. `kind` is `seeds` or `crashes`.
fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let Ok(files) = fs::read_dir(folder().join(kind).join(target)) else { return Vec::new() };
    let input = |path: PathBuf| (path.display().to_string(), fs::read(path).expect("the input is readable"));
    files.map(|file| input(file.expect("the folder is readable").path())).collect()
}

/// Returns the names of the files and folders in `folder`, without extensions.
fn names(folder: &Path) -> BTreeSet<String> {
    let name = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    let Ok(files) = fs::read_dir(folder) else { return BTreeSet::new() };
    files.map(|file| name(file.expect("the folder is readable").path())).collect()
}

#[test]
fn seeds_and_kept_crashes_satisfy_their_target() {
    for (target, check) in TARGETS {
        let seeds = inputs("seeds", target);
        assert!(!seeds.is_empty(), "{target} has no seed");
        assert!(seeds.iter().all(|(_, input)| input.len() <= MAX_SEED), "a seed of {target} is large");
        for (path, input) in seeds.iter().chain(&inputs("crashes", target)) {
            assert!(catch_unwind(|| check(input)).is_ok(), "{path}");
        }
    }
}

#[test]
fn every_target_has_a_program_and_its_inputs_are_used() {
    let targets = BTreeSet::from(TARGETS.map(|(name, _)| name.to_owned()));
    assert_eq!(names(&folder().join("fuzz_targets")), targets);
    assert_eq!(names(&folder().join("seeds")), targets);
    assert!(names(&folder().join("crashes")).is_subset(&targets));
    let manifest: Table = fs::read_to_string(folder().join("Cargo.toml")).unwrap().parse().unwrap();
    let programs = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_owned());
    assert_eq!(programs.collect::<BTreeSet<_>>(), targets);
}
