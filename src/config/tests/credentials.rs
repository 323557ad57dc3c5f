//! Where a project's key comes from, and what is wrong with it.

use super::*;

const AGENCY: (&str, &str) = ("SCM_GATEWAY__UPSTREAM__METADATA_ENDPOINT", "http://169.254.169.254");

/// The only project's id, where its key comes from, and that key's AK.
fn only(config: &Config) -> (String, &'static str, String) {
    let project = config.projects.default_project();
    let source = match project.key_source {
        KeySource::Fixed => "variables",
        KeySource::Files(_) => "files",
        KeySource::Profile(_) => "profile",
        KeySource::Agency => "agency",
    };
    let key = project.credentials.as_ref().map(|key| key.access_key.clone()).unwrap_or_default();
    (project.id.clone(), source, key)
}

#[test]
fn a_key_is_looked_for_in_the_variables_then_the_profile_then_at_the_agency() {
    let dir = Dir::new();
    let named = dir.file("profile", "[basic]\nak = AK-named\nsk = SK\nproject_id = named\n");
    let home = dir.0.path().to_str().expect("UTF-8").to_owned();
    fs::create_dir(dir.0.path().join(".huaweicloud")).expect("a directory");
    dir.file(".huaweicloud/credentials", "[basic]\nak = AK-home\nsk = SK\nsecurity_token = ST\nproject_id = home\n");
    let (ak, sk) = (("HUAWEICLOUD_SDK_AK", "AK-env"), ("HUAWEICLOUD_SDK_SK", "SK"));
    let id = ("HUAWEICLOUD_SDK_PROJECT_ID", "env");
    let (file, home) = (("HUAWEICLOUD_SDK_CREDENTIALS_FILE", named.as_str()), ("HOME", home.as_str()));
    let table = [
        (vec![ak, sk, id, file, home, AGENCY], ("env", "variables", "AK-env")),
        (vec![id, file, home, AGENCY], ("env", "profile", "AK-named")),
        (vec![file, home], ("named", "profile", "AK-named")),
        (vec![home, AGENCY], ("home", "profile", "AK-home")),
        (vec![home, id], ("env", "profile", "AK-home")),
        (vec![id, ("HOME", "/nowhere"), AGENCY], ("env", "agency", "")),
        (vec![id, ("HOME", ""), AGENCY], ("env", "agency", "")),
    ];
    for (set, (id, source, key)) in table {
        let config = load(None, &variables(&set)).unwrap_or_else(|problems| panic!("{set:?}: {problems}"));
        assert_eq!(only(&config), (id.to_owned(), source, key.to_owned()), "{set:?}");
        assert!(config.warnings.is_empty());
    }
}

#[test]
fn half_a_key_in_the_variables_is_a_slip_and_no_reason_to_look_elsewhere() {
    let dir = Dir::new();
    let profile = dir.file("profile", "[basic]\nak = AK\nsk = SK\nproject_id = p\n");
    let set = [("HUAWEICLOUD_SDK_SK", "SK"), ("HUAWEICLOUD_SDK_CREDENTIALS_FILE", &profile), AGENCY];
    let problems = problems("", &variables(&set));
    assert!(problems[0].starts_with("HUAWEICLOUD_SDK_AK: is not set; "), "{problems:?}");
}

#[test]
fn a_bad_profile_is_named_and_nothing_of_it_shown() {
    let dir = Dir::new();
    let good = format!("[basic]\nak = AK\nsk = {MARKER}\n");
    let table = [
        ("", "is no profile to use: it has no section [basic]"),
        ("[basic]\nak = s3cr3t\n", "is no profile to use: [basic] has no `sk`"),
        ("[basic]\nak = s3cr3t\nsk = s3cr3t s3cr3t\n", {
            "is no profile to use: `sk` must hold printable ASCII only, without blanks"
        }),
    ];
    for (text, message) in table {
        let path = dir.file("profile", text);
        let found = problems("", &variables(&[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", &path)]));
        assert_eq!(found, [format!("HUAWEICLOUD_SDK_CREDENTIALS_FILE: {path} {message}")]);
        fs::remove_file(path).expect("it was there");
    }
    let of = |path: &str| problems("", &variables(&[("HUAWEICLOUD_SDK_CREDENTIALS_FILE", path)])).concat();
    assert_eq!(
        of("/nowhere"),
        "HUAWEICLOUD_SDK_CREDENTIALS_FILE: /nowhere cannot be read: No such file or directory (os error 2)"
    );
    assert!(!of(MARKER).contains(MARKER), "the secret where the name of its file belongs");
    assert!(of(&dir.file("latin1", b"[basic]\nak = \xe9")).ends_with("latin1 is not UTF-8"));
    assert!(of(&dir.file("large", vec![b'#'; 64 * 1024 + 1])).ends_with("large is larger than 64 KiB"));
    let without =
        "HUAWEICLOUD_SDK_PROJECT_ID: is not set; set it, or list the projects and their files under [[projects]]";
    assert_eq!(of(&dir.file("without", &good)), without);
    let path = dir.file("id", format!("{good}project_id = {MARKER} {MARKER}\n"));
    let expected = "HUAWEICLOUD_SDK_CREDENTIALS_FILE: `project_id`: expects 1 to 64 letters, digits, `_` and `-`";
    assert_eq!(of(&path), expected);
}

#[test]
fn a_profile_readable_by_everyone_is_a_warning() {
    let dir = Dir::new();
    fs::create_dir(dir.0.path().join(".huaweicloud")).expect("a directory");
    let text = format!("[basic]\nak = AK\nsk = {MARKER}\nproject_id = p\n");
    let path = dir.file_with_mode(".huaweicloud/credentials", text, 0o644);
    let config = load(None, &variables(&[("HOME", dir.0.path().to_str().expect("UTF-8"))])).expect("a configuration");
    let expected =
        format!("~/.huaweicloud/credentials: {path} is open to everyone on this machine; run `chmod o-rw {path}`");
    assert_eq!(config.warnings, [expected]);
    assert!(!format!("{config:?}").contains(MARKER));
}

#[test]
fn a_project_without_files_uses_the_agency_once_that_is_switched_on() {
    let dir = Dir::new();
    let text = format!("default_project = \"a\"\n{}[[projects]]\nid = \"b\"\n", dir.project("a"));
    let config = good(&text, &variables(&[AGENCY]));
    let project = |id: &str| config.projects.get(id).expect("the project");
    assert!(matches!(project("a").key_source, KeySource::Files(_)) && project("a").credentials.is_some());
    assert!(matches!(project("b").key_source, KeySource::Agency) && project("b").credentials.is_none());
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
fn a_secret_file_without_its_secret_is_a_problem() {
    let dir = Dir::new();
    let (empty, blank) = (dir.file("empty", "\n"), dir.file("blank", "  \n"));
    let (large, directory) =
        (dir.file("large", [b'k'; 64 * 1024 + 1]), dir.0.path().to_str().expect("UTF-8").to_owned());
    let table = [
        (&empty, "is empty"),
        (&blank, "is blank"),
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
fn a_secret_file_readable_by_everyone_is_a_warning() {
    let dir = Dir::new();
    let open = dir.file_with_mode("open", "key", 0o644);
    let config = good(&format!("{}security_token_file = {open:?}", dir.project("p")), &Environment::new());
    let message = format!("{open} is open to everyone on this machine; run `chmod o-rw {open}`");
    assert_eq!(config.warnings, [format!("projects[0].security_token_file: {message}")]);
}
