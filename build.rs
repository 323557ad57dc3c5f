//! Prints the Rust that binds `proto/` to the REST side, from the standard annotations alone.
//!
//! `protox` compiles the proto without `protoc`; `src/build/annotations.rs` reads it and refuses what it cannot
//! express, with a sentence; `tonic-prost-build` prints messages and the tonic service, `src/build/print.rs` the rest.

use std::{env, error::Error, fs, path::PathBuf};

use prost_reflect::DescriptorPool;

#[path = "src/build/annotations.rs"]
mod annotations;
#[path = "src/build/print.rs"]
mod print;

const ROOT: &str = "proto";
const FILE: &str = "huaweicloud/scm/v1/certificate_service.proto";
const PACKAGE: &str = "huaweicloud.scm.v1";

/// Messages whose fields have rules of their own: their `Check` is written by hand, in `src/validate`.
const CHECKED_BY_HAND: &[&str] = &["CertificateInfo"];

/// Replies that the vendor spells in other words than our proto: message, and the type that reads the vendor's.
const SPELLED_BY_VENDOR: &[(&str, &str)] = &[("ReadInfoResponse", "crate::rest::spelling::SavedInfo")];

#[allow(clippy::disallowed_methods, reason = "cargo speaks to a build script through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=src/build");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).open_files([FILE])?;
    // The encoded set keeps extensions, the typed one drops them.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptor_set.bin"), &encoded)?;
    let api = annotations::read(&DescriptorPool::decode(encoded.as_slice())?, PACKAGE)?;

    let mut own = compiler.file_descriptor_set();
    own.file.retain(|f| f.package() == PACKAGE); // else Google's types are printed too
    print::json_attributes(tonic_prost_build::configure(), &api, SPELLED_BY_VENDOR)
        .build_transport(false)
        .skip_debug(["."])
        .compile_fds(own)?;
    fs::write(out.join("binding.rs"), print::binding(&api, CHECKED_BY_HAND)?)?;
    Ok(())
}
