use std::fs;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const ACCEPT: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
const REJECT: &str = r#"[{"type":"reject"}]"#;

/// The policy with these scopes of docker, and what it says of `image`: nothing if that is accepted.
fn said(default: &str, docker: &str, image: &str) -> String {
    let text = format!(r#"{{"default":{default},"transports":{{"docker":{{{docker}}}}}}}"#);
    judged(&text, image)
}

fn judged(text: &str, image: &str) -> String {
    let policy = Policy {
        file: "/p.json".into(),
        rules: parse(text.as_bytes()).unwrap(),
    };
    let verdict = policy.check(&image.parse().unwrap(), None);
    verdict
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default()
}

#[test]
fn the_narrowest_scope_counts() {
    let by_digest = format!("reg.lab:5000/os/web@{DIGEST}");
    for scope in [
        "reg.lab:5000/os/web:1",
        "reg.lab:5000/os/web",
        "reg.lab:5000/os",
        "reg.lab:5000",
        "*.lab",
        "",
    ] {
        let docker = format!("{scope:?}:{REJECT}");
        let said = said(ACCEPT, &docker, "reg.lab:5000/os/web:1");
        assert!(
            said.starts_with("/p.json rejects reg.lab:5000/os/web:1 ("),
            "{scope}: {said}"
        );
    }
    for (scope, image) in [
        ("reg.lab:5000/os/web:2", "reg.lab:5000/os/web:1"),
        ("reg.lab:5000/os/web:1", &by_digest),
        ("reg.lab:5000/o", "reg.lab:5000/os/web:1"),
        ("reg.lab", "reg.lab:5000/os/web:1"),
        ("*.reg.lab", "reg.lab:5000/os/web:1"),
        ("*.lab:5000", "reg.lab:5000/os/web:1"),
        ("*", "reg.lab:5000/os/web:1"),
        ("docker.io/web", "docker.io/web:1"),
    ] {
        assert_eq!(said(ACCEPT, &format!("{scope:?}:{REJECT}"), image), "", "{scope}");
    }
    for (scope, image) in [
        ("reg.lab/web:latest", "reg.lab/web"),
        ("reg.lab:5000/os/web@DIGEST", &by_digest),
        // A tag means nothing where there is a digest.
        ("reg.lab/web@DIGEST", &format!("reg.lab/web:1@{DIGEST}")),
        ("docker.io/library/web", "docker.io/web:1"),
        ("*.example.com", "a.b.example.com/web"),
    ] {
        let docker = format!(r#""{}":{ACCEPT}"#, scope.replace("DIGEST", DIGEST));
        assert_eq!(said(REJECT, &docker, image), "", "{scope}");
    }
}

#[test]
fn what_is_said_of_an_image() {
    let signed =
        r#"[{"type":"insecureAcceptAnything"},{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k"}]"#;
    assert_eq!(
        said(ACCEPT, &format!(r#""reg.lab":{signed}"#), "reg.lab/web:1"),
        "/p.json requires a signature for reg.lab/web:1 (signedBy, rule: \"reg.lab\"), but signatures cannot \
         be checked yet: give a policy that accepts this image with --policy"
    );
    assert_eq!(
        said(REJECT, "", "reg.lab/web:1"),
        "/p.json rejects reg.lab/web:1 (rule: default)"
    );
    let whole = format!(r#""":{REJECT}"#);
    assert_eq!(
        said(ACCEPT, &whole, "reg.lab/web:1"),
        "/p.json rejects reg.lab/web:1 (rule: all of docker)"
    );
}

#[test]
fn local_images_have_the_scopes_of_their_paths() {
    let directory = tempfile::tempdir().unwrap();
    let directory = fs::canonicalize(directory.path()).unwrap();
    fs::create_dir(directory.join("os")).unwrap();
    std::os::unix::fs::symlink("os", directory.join("link")).unwrap();
    let directory = directory.to_str().unwrap();
    for (transport, scope, image, accepted) in [
        ("oci", "DIR/os", "oci:DIR/os", true),
        ("oci", "DIR/os", "oci:DIR/link:name", true),
        ("oci", "DIR", "oci:DIR/link/../os:name", true),
        ("oci", "", "oci:DIR/os", true),
        ("oci", "DIR/link", "oci:DIR/link", false),
        ("oci", "DIR", "oci-archive:DIR/os", false),
        ("oci-archive", "DIR", "oci-archive:DIR/os:name", true),
        ("docker-archive", "", "docker-archive:DIR/os", true),
        ("docker", "", "oci:DIR/os", false),
    ] {
        let text = format!(
            r#"{{"default":{REJECT},"transports":{{"{transport}":{{"{}":{ACCEPT}}}}}}}"#,
            scope.replace("DIR", directory)
        );
        let said = judged(&text, &image.replace("DIR", directory));
        assert_eq!(said.is_empty(), accepted, "{transport} {scope} {image}: {said}");
    }
}

#[test]
fn a_typing_error_opens_no_door() {
    let in_docker = |requirements: &str| {
        format!(r#"{{"default":{REJECT},"transports":{{"docker":{{"reg.lab":{requirements}}}}}}}"#)
    };
    let of_scope = |transport: &str, scope: &str| {
        format!(r#"{{"default":{REJECT},"transports":{{"{transport}":{{"{scope}":{ACCEPT}}}}}}}"#)
    };
    for (text, why) in [
        ("{}".into(), "missing field `default`"),
        (format!(r#"{{"default":{REJECT},"x":1}}"#), "unknown field `x`"),
        (
            format!(r#"{{"default":{REJECT},"default":{ACCEPT}}}"#),
            "duplicate field `default`",
        ),
        (r#"{"default":[]}"#.into(), "has no requirement"),
        (format!(r#"{{"default":{REJECT}}} x"#), "trailing characters"),
        (in_docker("[]"), "at docker \"reg.lab\": it has no requirement"),
        (in_docker("null"), "invalid type: null"),
        (in_docker(r#"[{"type":"accept"}]"#), "\"accept\" is unknown"),
        (in_docker(r#"[{"keyType":"GPGKeys"}]"#), "missing field `type`"),
        (
            in_docker(r#"[{"type":"reject","type":"insecureAcceptAnything"}]"#),
            "duplicate field `type`",
        ),
        (
            in_docker(r#"[{"type":"insecureAcceptAnything","unless":1}]"#),
            "unknown key \"unless\"",
        ),
        (
            in_docker(r#"[{"type":"signedBy","keypath":"/k"}]"#),
            "signedBy has an unknown key \"keypath\"",
        ),
        (
            in_docker(r#"[{"type":"signedBy","keyPath":"/k","keyPath":"/l"}]"#),
            "\"keyPath\" appears twice",
        ),
        (
            format!(r#"{{"default":{REJECT},"transports":{{"docker":{{"a":{REJECT},"a":{ACCEPT}}}}}}}"#),
            "\"a\" appears twice",
        ),
        (of_scope("oci", "relative"), "\"relative\" is not a scope of oci"),
        (of_scope("oci", "/"), "\"/\" is not a scope of oci"),
        (
            of_scope("oci-archive", "/a/../b"),
            "is not a scope of oci-archive",
        ),
        (of_scope("oci-archive", "/a/"), "is not a scope of oci-archive"),
        (
            of_scope("docker-archive", "/a"),
            "is not a scope of docker-archive",
        ),
    ] {
        let error = format!("{:#}", parse(text.as_bytes()).unwrap_err());
        assert!(error.contains(why) && !error.contains('\n'), "{text}: {error}");
    }
    // What other tools have scopes for isn't ours to judge.
    assert!(parse(of_scope("atomic", "x").as_bytes()).is_ok());
}

#[test]
fn the_users_policy_replaces_the_machines() {
    let root = tempfile::tempdir().unwrap();
    let places = Places::new(root.path(), 0, |_| None);
    let load = |chosen: Option<&Path>| Policy::load(&places, chosen);
    let file = |chosen| load(chosen).unwrap().map(|policy| policy.file);
    assert_eq!(file(None), None);
    for place in ["etc", "root/.config"] {
        let path = root.path().join(place).join("containers/policy.json");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, format!(r#"{{"default":{ACCEPT}}}"#)).unwrap();
        assert_eq!(file(None), Some(path));
    }
    let chosen = root.path().join("etc/containers/policy.json");
    assert_eq!(file(Some(&chosen)), Some(chosen.clone()));
    let error = load(Some(Path::new("/nonexistent/p.json")))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("policy /nonexistent/p.json does not exist"),
        "{error}"
    );

    fs::write(root.path().join("root/.config/containers/policy.json"), "{").unwrap();
    let error = format!("{:#}", load(None).unwrap_err());
    assert!(
        error.contains("reading the policy ") && error.contains(".config"),
        "{error}"
    );
}
