//! Generates the Rust that binds `proto/` to the REST side, from the annotations alone.
//!
//! `protox` compiles the protos without `protoc`. `build/annotations.rs` and `build/options.rs` read the annotations, and
//! with `build/unsupported.rs` they stop the build with a sentence at what they cannot express. `tonic-prost-build`
//! generates the messages and the tonic services, the other files of `build/` everything else. Each output goes to the
//! module that owns it, so that generated code adds no import cycle.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use prost_reflect::DescriptorPool;

#[path = "build/annotations.rs"]
mod annotations;
#[path = "build/checks.rs"]
mod checks;
#[path = "build/messages.rs"]
mod messages;
#[path = "build/methods.rs"]
mod methods;
#[path = "build/options.rs"]
mod options;
#[path = "build/rust.rs"]
mod rust;
#[path = "build/unsupported.rs"]
mod unsupported;

const ROOT: &str = "proto";
const PACKAGE: &str = "huaweicloud.scm.v1";

/// The directory of the package. Each `.proto` file in it is compiled.
const DIRECTORY: &str = "huaweicloud/scm/v1";

/// Messages with rules that annotations cannot express, and the function in `src/validate/custom.rs` that checks them.
const CUSTOM_CHECKS: &[(&str, &str)] = &[
    ("ApplyCertificateRequest", "apply_certificate_request"),
    ("CertificateInfo", "certificate_info"),
    ("CheckCsrRequest", "check_csr_request"),
    ("CreateCsrRequest", "create_csr_request"),
    ("ImportCertificateRequest", "import_certificate_request"),
    ("SupplementDomainsRequest", "supplement_domains_request"),
    ("UploadCsrRequest", "upload_csr_request"),
];

/// Replies whose JSON differs from the proto. `src/scm/api/wire.rs` reads them.
const CUSTOM_REPLIES: &[&str] = &["ReadInfoResponse"];

/// RPCs that are written by hand because they stream their responses, and the module in `src/grpc/gateway` that has the
/// function `open` of each.
const CUSTOM_RPCS: &[(&str, &str)] = &[("WatchCertificate", "watch_certificate")];

#[allow(clippy::disallowed_methods, reason = "cargo passes settings to build scripts in the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=build");
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut compiler = protox::Compiler::new([ROOT])?;
    compiler.include_imports(true).open_files(files()?)?;
    // The encoded set keeps extensions, the typed one drops them.
    fs::write(out.join("descriptor_set.bin"), compiler.encode_file_descriptor_set())?;
    let with_source = compiler.include_source_info(true).encode_file_descriptor_set();
    let custom_rpcs: Vec<_> = CUSTOM_RPCS.iter().map(|(name, _)| *name).collect();
    let api = annotations::read(&DescriptorPool::decode(with_source.as_slice())?, PACKAGE, &custom_rpcs)?;

    let mut own = compiler.file_descriptor_set();
    own.file.retain(|f| f.package() == PACKAGE); // otherwise Google's types are generated too
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .skip_debug(["."])
        .compile_fds(own.clone())?;
    tonic_prost_build::configure()
        .build_transport(false)
        .codec_path("crate::grpc::codec::Codec")
        .extern_path(format!(".{PACKAGE}"), "crate::proto")
        .out_dir(subdirectory(&out, "grpc")?)
        .compile_fds(own)?;
    fs::write(out.join("messages.rs"), messages::debug_and_drop(&api)? + &methods::list(&api)?)?;
    fs::write(out.join("json.rs"), messages::json(&api, CUSTOM_REPLIES)?)?;
    fs::write(out.join("checks.rs"), checks::generate(&api, CUSTOM_CHECKS)?)?;
    fs::write(out.join("methods.rs"), methods::rest(&api)?)?;
    fs::write(out.join("services.rs"), methods::services(&api, CUSTOM_RPCS)?)?;
    fs::write(out.join("routes.rs"), methods::routes(&api)?)?;
    Ok(())
}

/// Returns the files of the package, sorted, as paths below the root.
fn files() -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(Path::new(ROOT).join(DIRECTORY))?.collect::<Result<Vec<_>, _>>()?;
    let names = entries.iter().map(|entry| Path::new(DIRECTORY).join(entry.file_name()));
    let mut files: Vec<_> =
        names.filter(|path| path.extension().is_some_and(|extension| extension == "proto")).collect();
    files.sort_unstable();
    Ok(files)
}

fn subdirectory(parent: &Path, name: &str) -> std::io::Result<PathBuf> {
    let path = parent.join(name);
    fs::create_dir_all(&path)?;
    Ok(path)
}
