//! The variables that replace the system's trust roots, as OpenSSL names them.
//!
//! The TLS client reads them itself. What it cannot load it only logs, and then trusts no server.

use std::path::Path;

use rustls_native_certs::{CertificateResult, ErrorKind, load_certs_from_paths};

use super::{Environment, reader::Report};

const FILE: &str = "SSL_CERT_FILE";
const DIRECTORIES: &str = "SSL_CERT_DIR";

/// Reports a variable that names no certificate: a problem if no trust root is left, otherwise a warning.
pub(super) fn check(environment: &Environment, has_ca_file: bool, report: &mut Report) {
    let file = environment.get(FILE).map(|path| (FILE, load(path, |path| load_certs_from_paths(Some(path), None))));
    // The client ignores empty entries, and without any entry the variable.
    let directories = environment.get(DIRECTORIES).into_iter().flat_map(|paths| paths.split(':'));
    let directories = directories.filter(|path| !path.is_empty());
    let directories = directories.map(|path| (DIRECTORIES, load(path, |path| load_certs_from_paths(None, Some(path)))));
    let loaded: Vec<_> = file.into_iter().chain(directories).collect();
    let has_roots = has_ca_file || loaded.iter().any(|(_, outcome)| outcome.is_ok());
    for (variable, outcome) in loaded {
        match outcome {
            Ok(()) => {}
            Err(problem) if has_roots => report.warning(variable, &problem),
            Err(problem) => report.problem(variable, problem),
        }
    }
}

/// Returns what is wrong with a path that should hold certificates.
fn load(path: &str, load: impl FnOnce(&Path) -> CertificateResult) -> Result<(), String> {
    if path.is_empty() {
        return Err("is empty, so there are no trust roots; unset it to use the system's".to_owned());
    }
    let result = load(Path::new(path));
    if !result.certs.is_empty() {
        return Ok(());
    }
    let why = match result.errors.first().map(|error| &error.kind) {
        Some(ErrorKind::Io { inner, .. }) => format!("cannot be read: {inner}"),
        _ => "holds no certificate in PEM".to_owned(),
    };
    Err(format!("{path} {why}; correct it, or unset the variable to use the system's trust roots"))
}

#[cfg(test)]
mod tests {
    use super::{DIRECTORIES, Environment, FILE, Report, check};

    /// Returns the problems and the warnings.
    fn checked(variables: &[(&str, &str)], has_ca_file: bool) -> (Vec<String>, Vec<String>) {
        let environment: Environment =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut report = Report::default();
        check(&environment, has_ca_file, &mut report);
        (report.problems.iter().map(ToString::to_string).collect(), report.warnings)
    }

    #[test]
    fn variables_that_name_no_certificate_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let certificate = rcgen::generate_simple_self_signed(["a.b".to_owned()]).unwrap().cert.pem();
        for name in ["good", "empty", "bad"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        std::fs::write(path("good/ca.pem"), certificate).unwrap();
        std::fs::write(path("bad/ca.pem"), "no certificate").unwrap();
        let (good, bad) = (path("good/ca.pem"), path("bad/ca.pem"));
        let (good_directory, empty_directory) = (path("good"), path("empty"));
        let both = format!("{good_directory}:/nowhere");
        for (variables, beginning, is_problem) in [
            (&[][..], None, false),
            (&[(FILE, good.as_str())], None, false),
            (&[(DIRECTORIES, good_directory.as_str())], None, false),
            (&[(DIRECTORIES, "")], None, false),
            (&[(FILE, "")], Some("SSL_CERT_FILE: is empty, so".to_owned()), true),
            (&[(FILE, "/nowhere")], Some("SSL_CERT_FILE: /nowhere cannot be read: No such file".to_owned()), true),
            (&[(FILE, bad.as_str())], Some(format!("SSL_CERT_FILE: {bad} holds no certificate")), true),
            (&[(FILE, good_directory.as_str())], Some(format!("SSL_CERT_FILE: {good_directory} ")), true),
            (&[(DIRECTORIES, "/nowhere")], Some("SSL_CERT_DIR: /nowhere cannot be read: No such".to_owned()), true),
            (
                &[(DIRECTORIES, empty_directory.as_str())],
                Some(format!("SSL_CERT_DIR: {empty_directory} holds no certificate")),
                true,
            ),
            (&[(DIRECTORIES, both.as_str())], Some("SSL_CERT_DIR: /nowhere cannot be read".to_owned()), false),
            (&[(FILE, ""), (DIRECTORIES, good_directory.as_str())], Some("SSL_CERT_FILE: is empty".to_owned()), false),
            (&[(FILE, good.as_str()), (DIRECTORIES, "/nowhere")], Some("SSL_CERT_DIR: /nowhere".to_owned()), false),
        ] {
            for has_ca_file in [false, true] {
                let (problems, warnings) = checked(variables, has_ca_file);
                let (expected, others) =
                    if is_problem && !has_ca_file { (problems, warnings) } else { (warnings, problems) };
                assert_eq!(others, [""; 0], "{variables:?}");
                assert_eq!(expected.len(), usize::from(beginning.is_some()), "{variables:?}: {expected:?}");
                let found = expected.first().map(String::as_str).unwrap_or_default();
                assert!(found.starts_with(beginning.as_deref().unwrap_or_default()), "{found}");
            }
        }
    }
}
