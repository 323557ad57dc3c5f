//! Tests of `[[projects]]` and `default_project`.

use super::*;

#[test]
fn several_projects_need_a_default() {
    let dir = Dir::new();
    let two = format!("{}{}", dir.project("a"), dir.project("b"));
    let missing = "default_project: is missing; with more than one project it names one of their ids";
    assert_eq!(problem(&two), missing);
    assert_eq!(
        problem(&format!("default_project = \"c\"\n{two}")),
        "default_project: is not the id of a listed project"
    );
    assert_eq!(problem(&format!("default_project = 1\n{two}")), "default_project: expects text, found an integer");
    assert_eq!(
        valid(&format!("default_project = \"b\"\n{two}"), &Environment::new()).projects.default_project().id,
        "b"
    );
    assert_eq!(valid(&dir.project("a"), &Environment::new()).projects.default_project().id, "a");
}

#[test]
fn project_ids_are_valid_and_unique() {
    let dir = Dir::new();
    let twice = format!("default_project = \"a\"\n{}{}", dir.project("a"), dir.project("a"));
    assert_eq!(problem(&twice), "projects[1].id: is the id of projects[0] too");
    let longest = "x".repeat(64);
    valid(&dir.project(&longest), &Environment::new());
    for id in ["", "a b", "a/b", "ä", &format!("{longest}x")] {
        let text = dir.project("p").replace("id = \"p\"", &format!("id = \"{id}\""));
        assert_eq!(problem(&text), "projects[0].id: expects 1 to 64 letters, digits, `_` and `-`");
    }
}

#[test]
fn projects_of_the_wrong_type_are_one_problem() {
    assert_eq!(problem("projects = 1"), "projects: expects [[projects]] tables, found an integer");
    assert_eq!(problem("[projects]\nid = \"a\""), "projects: expects [[projects]] tables, found a table");
    assert_eq!(problem("projects = [\"a\"]"), "projects[0]: expects a table, found a string");
}
