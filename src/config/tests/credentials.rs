//! Tests of the sources of a project's credentials.

use super::*;

const AGENCY: (&str, &str) = ("SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT", "http://169.254.169.254");

/// Returns the id of the only project, the source of its credentials, and the AK.
fn only(config: &Config) -> (String, &'static str, String) {
    let project = config.projects.default_project();
    let source = project.credentials_source.name();
    let key = project.credentials.as_ref().map(|key| key.access_key.clone()).unwrap_or_default();
    (project.id.clone(), source, key)
}

#[test]
fn sources_are_variables_then_profile_then_agency() {
    let dir = Dir::new();
    let named = dir.file("profile", "[basic]\nak = AK-named\nsk = SK\nproject_id = named\n");
    let home = dir.0.path().to_str().expect("UTF-8").to_owned();
    fs::create_dir(dir.0.path().join(".huaweicloud")).expect("the directory is created");
    dir.file(".huaweicloud/credentials", "[basic]\nak = AK-home\nsk = SK\nsecurity_token = ST\nproject_id = home\n");
    let ak = ("HUAWEICLOUD_SDK_AK", "AK-env");
    let sk = ("HUAWEICLOUD_SDK_SK", "SK");
    let id = ("HUAWEICLOUD_SDK_PROJECT_ID", "env");
    let file = ("HUAWEICLOUD_SDK_CREDENTIALS_FILE", named.as_str());
    let home = ("HOME", home.as_str());
    let keys = "HUAWEICLOUD_SDK_AK and HUAWEICLOUD_SDK_SK";
    let table = [
        (vec![ak, sk, id], ("env", "environment", "AK-env"), None),
        (
            vec![ak, sk, id, file, home, AGENCY],
            ("env", "environment", "AK-env"),
            Some((keys, { "HUAWEICLOUD_SDK_CREDENTIALS_FILE, upstream.metadata_endpoint" })),
        ),
        (vec![ak, sk, id, home], ("env", "environment", "AK-env"), Some((keys, "~/.huaweicloud/credentials"))),
        (vec![id, file, home, AGENCY], ("env", "profile", "AK-named"), {
            Some(("HUAWEICLOUD_SDK_CREDENTIALS_FILE", "upstream.metadata_endpoint"))
        }),
        (vec![file, home], ("named", "profile", "AK-named"), None),
        (vec![home, AGENCY], ("home", "profile", "AK-home"), {
            Some(("~/.huaweicloud/credentials", "upstream.metadata_endpoint"))
        }),
        (vec![home, id], ("env", "profile", "AK-home"), None),
        (vec![id, ("HOME", "/nowhere"), AGENCY], ("env", "ecs_agency", ""), None),
        (vec![id, ("HOME", ""), AGENCY], ("env", "ecs_agency", ""), None),
    ];
    for (set, (id, source, key), ignored) in table {
        let config = load(None, &variables(&set)).unwrap_or_else(|problems| panic!("{set:?}: {problems}"));
        assert_eq!(only(&config), (id.to_owned(), source, key.to_owned()), "{set:?}");
        let warning = ignored.map(|(used, ignored)| {
            format!("{used}: is the source of the credentials; other sources are set and ignored: {ignored}")
        });
        assert_eq!(config.warnings, Vec::from_iter(warning), "{set:?}");
    }
}

#[test]
fn a_single_variable_does_not_select_another_source() {
    let dir = Dir::new();
    let profile = dir.file("profile", "[basic]\nak = AK\nsk = SK\nproject_id = p\n");
    let set = [("HUAWEICLOUD_SDK_SK", "SK"), ("HUAWEICLOUD_SDK_CREDENTIALS_FILE", &profile), AGENCY];
    let problems = problems("", &variables(&set));
    assert!(problems[0].starts_with("HUAWEICLOUD_SDK_AK: is not set; "), "{problems:?}");
}

#[test]
fn invalid_profiles_are_named_without_content() {
    let dir = Dir::new();
    let credentials = format!("[basic]\nak = AK\nsk = {MARKER}\n");
    let table = [
        ("", "is not a usable profile: it has no section [basic]"),
        ("[basic]\nak = s3cr3t\n", "is not a usable profile: [basic] has no `sk`"),
        ("[basic]\nak = s3cr3t\nsk = s3cr3t s3cr3t\n", {
            "is not a usable profile: `sk` must hold printable ASCII only, without whitespace"
        }),
    ];
    for (text, message) in table {
        let path = dir.file("profile", text);
        let actual = problems("", &variables(&[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", &path)]));
        assert_eq!(actual, [format!("HUAWEICLOUD_SDK_CREDENTIALS_FILE: {path} {message}")]);
        fs::remove_file(path).expect("the file exists");
    }
    let of = |path: &str| problems("", &variables(&[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", path)])).concat();
    assert_eq!(
        of("/nowhere"),
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE: /nowhere cannot be read: No such file or directory (os error 2)"
    );
    assert!(!of(MARKER).contains(MARKER), "the secret instead of the path of its file");
    assert!(of(&dir.file("latin1", b"[basic]\nak = \xe9")).ends_with("latin1 is not UTF-8"));
    assert!(of(&dir.file("large", vec![b'#'; 64 * 1024 + 1])).ends_with("large is larger than 64 KiB"));
    let without =
        "HUAWEICLOUD_SDK_PROJECT_ID: is not set; set it, or list the projects and their files under [[projects]]";
    assert_eq!(of(&dir.file("without", &credentials)), without);
    let path = dir.file("id", format!("{credentials}project_id = {MARKER} {MARKER}\n"));
    let expected = "HUAWEICLOUD_SDK_CREDENTIALS_FILE: `project_id`: expects 1 to 64 letters, digits, `_` and `-`";
    assert_eq!(of(&path), expected);
}

#[test]
fn a_world_readable_profile_is_a_warning() {
    let dir = Dir::new();
    fs::create_dir(dir.0.path().join(".huaweicloud")).expect("the directory is created");
    let text = format!("[basic]\nak = AK\nsk = {MARKER}\nproject_id = p\n");
    let path = dir.file_with_mode(".huaweicloud/credentials", text, 0o644);
    let config =
        load(None, &variables(&[("HOME", dir.0.path().to_str().expect("UTF-8"))])).expect("the configuration is valid");
    let expected =
        format!("~/.huaweicloud/credentials: {path} is open to everyone on this machine; run `chmod o-rw {path}`");
    assert_eq!(config.warnings, [expected]);
    assert!(!format!("{config:?}").contains(MARKER));
}

#[test]
fn a_project_without_files_uses_the_enabled_agency() {
    let dir = Dir::new();
    let text = format!("default_project = \"a\"\n{}[[projects]]\nid = \"b\"\n", dir.project("a"));
    let config = valid(&text, &variables(&[AGENCY]));
    let project = |id: &str| config.projects.get(id).expect("the project exists");
    assert!(
        matches!(project("a").credentials_source, CredentialsSource::Files(_)) && project("a").credentials.is_some()
    );
    assert!(
        matches!(project("b").credentials_source, CredentialsSource::Temporary(_))
            && project("b").credentials.is_none()
    );
    let missing = ["projects[1].ak_file: is missing; it is the file with the access key id (AK)", {
        "projects[1].sk_file: is missing; it is the file with the secret access key (SK)"
    }];
    assert_eq!(problems(&text, &Environment::new()), missing);
    let half = format!("{text}sk_file = \"{}\"\n", dir.file("sk", "SK"));
    assert_eq!(problems(&half, &variables(&[AGENCY])), missing[..1]);
    let bad = problems(&text, &variables(&[(AGENCY.0, "http://192.0.2.1")]));
    assert_eq!(
        bad,
        ["SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT: expects a URL such as \"http://169.254.169.254\": http:// and a \
          link-local or loopback address"]
    );
}

#[test]
fn invalid_secret_files_are_rejected() {
    let dir = Dir::new();
    let empty = dir.file("empty", "\n");
    let whitespace = dir.file("whitespace", "  \n");
    let large = dir.file("large", [b'k'; 64 * 1024 + 1]);
    let directory = dir.0.path().to_str().expect("UTF-8").to_owned();
    let table = [
        (&empty, "is empty"),
        (&whitespace, "is only whitespace"),
        (&large, "is larger than 64 KiB"),
        (&directory, "is not a regular file"),
        (&"/dev/null".to_owned(), "is not a regular file"),
        (&"/nowhere".to_owned(), "cannot be read: No such file or directory (os error 2)"),
    ];
    for (path, message) in table {
        let text = format!("{}security_token_file = {path:?}", dir.project("p"));
        assert_eq!(problem(&text), format!("projects[0].security_token_file: {path} {message}"));
    }
}

#[test]
fn a_world_readable_secret_file_is_a_warning() {
    let dir = Dir::new();
    let open = dir.file_with_mode("open", "key", 0o644);
    let config = valid(&format!("{}security_token_file = {open:?}", dir.project("p")), &Environment::new());
    let message = format!("{open} is open to everyone on this machine; run `chmod o-rw {open}`");
    assert_eq!(config.warnings, [format!("projects[0].security_token_file: {message}")]);
}
