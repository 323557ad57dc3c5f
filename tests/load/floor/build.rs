//! Generates the messages, the client and the service from the product's proto, for the RPCs that the rig calls. The
//! floors implement one of them.

const PROTO: &str = "../../../proto";
const PACKAGE: &str = "huaweicloud.scm.v1";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut files = protox::compile(["huaweicloud/scm/v1/certificate_service.proto"], [PROTO])?;
    files.file.retain(|file| file.package() == PACKAGE);
    for service in files.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| ["ListCertificates", "SaveInfo", "WatchCertificate"].contains(&method.name()));
    }
    let unset = "#[serde(skip_serializing_if = \"Option::is_none\")]";
    let mut builder = tonic_prost_build::configure()
        .generate_default_stubs(true)
        .message_attribute("CertificateInfo", "#[derive(serde::Serialize)]")
        .message_attribute("SaveInfoResponse", "#[derive(serde::Deserialize)]")
        .field_attribute("CertificateInfo.sans", "#[serde(serialize_with = \"joined\")]");
    for field in ["company_unit", "contact_name", "contact_phone", "contact_email"] {
        builder = builder.field_attribute(format!("CertificateInfo.{field}"), unset);
    }
    builder.compile_fds(files)?;
    Ok(())
}
