//! Generates the Rust that binds `proto/` to the REST side, from the standard annotations alone.
//!
//! `protox` compiles the proto without `protoc`. `build/annotations.rs` reads the annotations and stops the build with a
//! sentence at what they cannot express. `tonic-prost-build` generates the messages and the tonic service,
//! `build/codegen.rs` everything else. Each output goes to the module that owns it, so that generated code adds no import
//! cycle.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::DescriptorPool;

#[path = "build/annotations.rs"]
mod annotations;
#[path = "build/codegen.rs"]
mod codegen;

const ROOT: &str = "proto";
const FILE: &str = "huaweicloud/scm/v1/certificate_service.proto";
const PACKAGE: &str = "huaweicloud.scm.v1";

/// Messages with field rules that annotations cannot express. Their `Check` is written by hand in `src/validate`.
const CUSTOM_CHECKS: &[&str] = &["CertificateInfo"];

/// Replies whose JSON differs from the proto, and the type that reads that JSON.
const WIRE_TYPES: &[(&str, &str)] = &[("ReadInfoResponse", "crate::scm::api::wire::ReadInfoWire")];

#[allow(clippy::disallowed_methods, reason = "cargo passes settings to build scripts in the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).open_files([FILE])?;
    // The encoded set keeps extensions, the typed one drops them.
    let encoded = compiler.encode_file_descriptor_set();
    fs::write(out.join("descriptor_set.bin"), &encoded)?;
    let api = annotations::read(&DescriptorPool::decode(encoded.as_slice())?, PACKAGE)?;

    let mut own = compiler.file_descriptor_set();
    own.file.retain(|f| f.package() == PACKAGE); // otherwise Google's types are generated too
    codegen::json_attributes(tonic_prost_build::configure(), &api)
        .build_client(false)
        .build_server(false)
        .skip_debug(["."])
        .compile_fds(own.clone())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .extern_path(format!(".{PACKAGE}"), "crate::proto")
        .out_dir(subdirectory(&out, "grpc")?)
        .compile_fds(own)?;
    fs::write(out.join("messages.rs"), codegen::messages(&api)?)?;
    fs::write(out.join("checks.rs"), codegen::checks(&api, CUSTOM_CHECKS)?)?;
    fs::write(out.join("methods.rs"), codegen::methods(&api, WIRE_TYPES)?)?;
    fs::write(out.join("service.rs"), codegen::service(&api)?)?;
    Ok(())
}

fn subdirectory(parent: &Path, name: &str) -> std::io::Result<PathBuf> {
    let path = parent.join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}
