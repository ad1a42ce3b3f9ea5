//! Which places an image has, by what is configured.

use super::*;
use crate::image::source::registry::config::places::Places;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The places of `name`, as a person would write them down; `!` is for an insecure one.
fn places(conf: &RegistriesConf, name: &str, mirrors: &[&str]) -> Vec<String> {
    let reference: Reference = name.parse().unwrap();
    let mirrors: Vec<String> = mirrors.iter().map(|mirror| mirror.to_string()).collect();
    match conf.locations(&reference, &mirrors) {
        Ok(locations) => locations
            .iter()
            .map(|place| format!("{}{}", if place.insecure { "!" } else { "" }, place.reference))
            .collect(),
        Err(error) => vec![format!("{error:#}")],
    }
}

fn conf(text: &str) -> RegistriesConf {
    parse(text, Path::new("registries.conf")).unwrap()
}

#[test]
fn the_manuals_example() {
    let conf = conf(
        r#"
        unqualified-search-registries = ["example.com"]
        [[registry]]
        prefix = "example.com/foo"
        insecure = false
        blocked = false
        location = "internal.example.com/bar"
        [[registry.mirror]]
        location = "mirror-0.local/mirror-for-foo/"
        [[registry.mirror]]
        location = "mirror-1.local/mirrors/foo"
        insecure = true
        [[registry]]
        location = "registry.com"
        [[registry.mirror]]
        location = "mirror.registry.com"
        [aliases]
        "image" = "registry.com/image"
        "#,
    );
    for (name, expected) in [
        (
            "example.com/foo/image:1",
            vec![
                "mirror-0.local/mirror-for-foo/image:1",
                "!mirror-1.local/mirrors/foo/image:1",
                "internal.example.com/bar/image:1",
            ],
        ),
        (
            "registry.com/image:1",
            vec!["mirror.registry.com/image:1", "registry.com/image:1"],
        ),
        ("example.com/other:1", vec!["example.com/other:1"]),
        ("example.com/foobar:1", vec!["example.com/foobar:1"]),
    ] {
        assert_eq!(places(&conf, name, &[]), expected, "{name}");
    }
    assert_eq!(
        places(
            &conf,
            "registry.com/a/image:1",
            &["near.lab:5000", "near.lab:5001/cache"]
        ),
        [
            "near.lab:5000/a/image:1",
            "near.lab:5001/cache/a/image:1",
            "mirror.registry.com/a/image:1",
            "registry.com/a/image:1"
        ]
    );
}

#[test]
fn the_longest_prefix_wins() {
    let conf = conf(
        r#"
        [[registry]]
        prefix = "a.com"
        location = "host.lab"
        [[registry]]
        prefix = "a.com/ns"
        location = "space.lab/x"
        [[registry]]
        prefix = "a.com/ns/web"
        location = "repo.lab/y"
        [[registry]]
        prefix = "a.com/ns/web:1"
        location = "tag.lab/z:2"
        [[registry]]
        prefix = "*.com"
        location = "any.lab"
        [[registry]]
        prefix = "*.b.com"
        insecure = true
        [[registry]]
        prefix = "a.com/ns"
        location = "space.lab/second"
        "#,
    );
    let pinned = format!("a.com/ns/web:1@{DIGEST}");
    let by_digest = format!("repo.lab/y@{DIGEST}");
    for (name, expected) in [
        ("a.com/x", "host.lab/x:latest"),
        ("a.com/nsx:1", "host.lab/nsx:1"),
        ("a.com/ns/db:1", "space.lab/x/db:1"),
        ("a.com/ns/web:2", "repo.lab/y:2"),
        ("a.com/ns/web:1", "tag.lab/z:2"),
        (&pinned, &by_digest),
        // A port isn't part of a host; so it is with the others, too.
        ("a.com:5000/x:1", "host.lab:5000/x:1"),
        ("c.com/x:1", "any.lab/x:1"),
        ("c.com:5000/x:1", "any.lab:5000/x:1"),
        ("d.c.b.com:5000/x:1", "!d.c.b.com:5000/x:1"),
        ("b.com/x:1", "any.lab/x:1"),
        ("z.org/a.com/x:1", "z.org/a.com/x:1"),
        ("z.com.org/x:1", "z.com.org/x:1"),
    ] {
        assert_eq!(places(&conf, name, &[]), [expected], "{name}");
    }
}

#[test]
fn mirrors_may_be_for_tags_or_digests_alone() {
    let conf = conf(
        r#"
        [[registry]]
        location = "a.com"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "m1.lab"
        [[registry]]
        location = "b.com"
        [[registry.mirror]]
        location = "digest.lab"
        pull-from-mirror = "digest-only"
        [[registry.mirror]]
        location = "tag.lab"
        pull-from-mirror = "tag-only"
        [[registry.mirror]]
        location = "all.lab"
        pull-from-mirror = "all"
        "#,
    );
    assert_eq!(places(&conf, "a.com/x:1", &[]), ["a.com/x:1"]);
    assert_eq!(
        places(&conf, "b.com/x:1", &[]),
        ["tag.lab/x:1", "all.lab/x:1", "b.com/x:1"]
    );
    for (host, expected) in [
        ("a.com", vec!["m1.lab", "a.com"]),
        ("b.com", vec!["digest.lab", "all.lab", "b.com"]),
    ] {
        let expected: Vec<String> = expected.iter().map(|host| format!("{host}/x@{DIGEST}")).collect();
        for tag in ["", ":1"] {
            let name = format!("{host}/x{tag}@{DIGEST}");
            assert_eq!(places(&conf, &name, &[]), expected, "{name}");
        }
    }
}

#[test]
fn what_is_blocked_is_not_asked() {
    let conf = conf(
        r#"
        [[registry]]
        location = "a.com"
        blocked = true
        [[registry]]
        location = "a.com/free"
        blocked = true
        [[registry.mirror]]
        location = "m.lab"
        [[registry]]
        prefix = "c.com"
        location = "a.com"
        blocked = true
        [[registry]]
        prefix = "d.com"
        location = "real.lab"
        [[registry.mirror]]
        location = "a.com/x"
        "#,
    );
    for (name, expected) in [
        (
            "a.com/x:1",
            "pulling a.com/x:1 is blocked by registries.conf (prefix a.com), and there is no mirror",
        ),
        // Only its mirror is asked.
        ("a.com/free/x:1", "m.lab/x:1"),
        (
            "c.com/x:1",
            "pulling c.com/x:1 is blocked by registries.conf (prefix c.com), and there is no mirror",
        ),
        ("d.com/x:1", "real.lab/x:1"),
    ] {
        assert_eq!(places(&conf, name, &[]), [expected], "{name}");
    }
    assert_eq!(places(&conf, "z.com/x:1", &["a.com/m"]), ["z.com/x:1"]);
}

#[test]
fn what_makes_no_sense_is_said_in_one_line() {
    for (text, expected) in [
        ("[[registry]]\nlocation = ", "line 2: "),
        ("[[registry]]\nlocation = 5", "line 2: invalid type: integer"),
        ("registry = \"x\"", "line 1: "),
        ("[registries.search]\nregistries = ['a.com']", "version 1"),
        ("[registries.block]\nregistries = []", "version 1"),
        ("[[registry]]\ninsecure = true", "neither `location` nor `prefix`"),
        (
            "[[registry]]\nprefix = 'a.com'",
            "\"a.com\": it has no `location`",
        ),
        (
            "[[registry]]\nlocation = 'https://a.com'",
            "\"https://a.com\" is a URL",
        ),
        (
            "[[registry]]\nprefix = '*.a.com/x'\nlocation = 'b.com'",
            "of the form *.example.com",
        ),
        (
            "[[registry]]\nprefix = 'a.*.com'\nlocation = 'b.com'",
            "only be at the beginning",
        ),
        (
            "[[registry]]\nlocation = 'a.com'\npull-from-mirror = 'all'",
            "is for a [[registry.mirror]]",
        ),
        (
            "[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\ninsecure = true",
            "a mirror has no `location`",
        ),
        (
            "[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\nlocation = 'm.com'\npull-from-mirror = 'some'",
            "is \"some\": it can be all, digest-only or tag-only",
        ),
        (
            "[[registry]]\nlocation = 'a.com'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'm.com'\n\
             pull-from-mirror = 'all'",
            "cannot both be set",
        ),
        (
            "[[registry]]\nlocation = 'a.com'\n[[registry]]\nprefix = 'b.com'\nlocation = 'a.com'\nblocked = true",
            "a.com appears several times with conflicting `blocked`",
        ),
    ] {
        let error = format!("{:#}", parse(text, Path::new("x")).unwrap_err());
        assert!(
            error.contains(expected) && !error.contains('\n'),
            "{text}: {error}"
        );
    }
    let conf = conf("[[registry]]\nlocation = 'a.com'\n[[registry.mirror]]\nlocation = 'nodomain'");
    let error = places(&conf, "a.com/x:1", &[]).remove(0);
    assert!(
        error.contains("registries.conf") && error.contains("\"nodomain\" is not the location"),
        "{error}"
    );
}

#[test]
fn drop_ins_replace_tables_in_the_order_of_their_names() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let table = |prefix: &str, location: &str| {
        format!("[[registry]]\nprefix = '{prefix}'\nlocation = '{location}'\n")
    };
    write(
        "etc/containers/registries.conf",
        &[
            "credential-helpers = ['a']\n".into(),
            table("a.com", "main.lab"),
            table("b.com", "main.lab"),
        ]
        .concat(),
    );
    let system = "etc/containers/registries.conf.d";
    write(&format!("{system}/20.conf"), &table("b.com", "twenty.lab"));
    write(&format!("{system}/10.conf"), &table("b.com", "ten.lab"));
    write(&format!("{system}/30.txt"), "no TOML");
    write(&format!("{system}/40.conf/x.conf"), "no TOML");
    write(
        "root/.config/containers/registries.conf.d/00.conf",
        "credential-helpers = ['b', 'c']\n",
    );
    let places_of = Places::new(root.path(), 0, |_| None);
    let load = |chosen| RegistriesConf::load(&places_of.registries_conf(chosen));
    let loaded = load(None).unwrap();
    assert_eq!(places(&loaded, "a.com/x:1", &[]), ["main.lab/x:1"]);
    assert_eq!(places(&loaded, "b.com/x:1", &[]), ["twenty.lab/x:1"]);
    assert_eq!(loaded.credential_helpers, Some(vec!["b".into(), "c".into()]));

    write("other.conf", &table("a.com", "chosen.lab"));
    let chosen = root.path().join("other.conf");
    let loaded = load(Some(&chosen)).unwrap();
    assert_eq!(places(&loaded, "a.com/x:1", &[]), ["chosen.lab/x:1"]);
    let missing = root.path().join("none.conf");
    let error = format!("{:#}", load(Some(&missing)).unwrap_err());
    assert!(
        error.contains("none.conf") && error.contains("No such file"),
        "{error}"
    );
    write(&format!("{system}/50.conf"), "[registries.search]");
    let error = format!("{:#}", load(None).unwrap_err());
    assert!(
        error.contains("50.conf") && error.contains("version 1"),
        "{error}"
    );
}
