//! Generates the client from the proto. `protox` compiles the proto, so `protoc` is not needed.

const FILE: &str = "huaweicloud/scm/v1/certificate_service.proto";
const PACKAGE: &str = "huaweicloud.scm.v1";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=PROTO");
    let proto = std::env::var("PROTO")?;
    println!("cargo::rerun-if-changed={proto}");
    let mut files = protox::compile([FILE], [proto])?;
    files.file.retain(|file| file.package() == PACKAGE); // without google.api, which only has annotations
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
