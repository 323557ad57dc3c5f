//! Generates the client from the protos. `protox` compiles them, so `protoc` is not needed.

const SERVICES: [&str; 5] = ["certificate", "csr", "notification", "order", "tag"];
const PACKAGE: &str = "huaweicloud.scm.v1";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-env-changed=PROTO");
    let proto = std::env::var("PROTO")?;
    println!("cargo::rerun-if-changed={proto}");
    let services = SERVICES.map(|name| format!("huaweicloud/scm/v1/{name}_service.proto"));
    let mut files = protox::compile(services, [proto])?;
    files.file.retain(|file| file.package() == PACKAGE); // the others only have annotations
    tonic_prost_build::configure().build_server(false).compile_fds(files)?;
    Ok(())
}
