//! Stacks of layers, through overlayfs and merged.

use super::*;
use crate::image::overlay::OverlayMount;

/// What the notation calls `opaque`, where it is an attribute like others.
const OPAQUE: &str = " {trusted.overlay.opaque=y}";

/// What stacks of layers look like: through overlayfs itself, and merged. Both must be the same.
#[test]
fn stacks_and_what_they_look_like() {
    let base = "dir d 0700 1:1 @5 {user.a=1}\nfile d/a \"1\"\ndir d/s\nfile d/s/x\nfile f \"f\"\nsymlink l -> d\nhard h = f";
    for (what, stack, expected) in [
        (
            "nothing on top",
            vec![base],
            "dir d 0700 1:1 @5 {user.a=1}\nfile d/a \"1\"\ndir d/s\nfile d/s/x\nfile f \"f\"\nhard h = f\nsymlink l -> d",
        ),
        ("whiteout", vec!["file a\nfile b", "whiteout a"], "file b"),
        (
            "whiteout, and again",
            vec!["file a \"1\"", "whiteout a", "file a \"2\""],
            "file a \"2\"",
        ),
        (
            "whiteout of nothing",
            vec!["file a", "whiteout b\nwhiteout c/d\nopaque e"],
            "file a",
        ),
        (
            "whiteout in a directory of its own",
            vec!["file a", "dir d\nwhiteout d/x\nfile d/y"],
            "file a\ndir d\nfile d/y",
        ),
        (
            "whiteout of one of two names",
            vec!["file a \"1\"\nhard b = a", "whiteout a"],
            "file b \"1\"",
        ),
        (
            "whiteout of a directory",
            vec![base, "whiteout d\nwhiteout h"],
            "file f \"f\"\nsymlink l -> d",
        ),
        (
            "whiteout of a directory, then the same again",
            vec![
                "dir d\nfile d/a\ndir d/s\nfile d/s/x",
                "whiteout d\ndir d\nfile d/b\nfile d/s/y",
            ],
            "dir d\nfile d/b\ndir d/s\nfile d/s/y",
        ),
        (
            "opaque",
            vec![
                "dir d\nfile d/a\ndir d/s\nfile d/s/x",
                "dir d @9\nopaque d\nfile d/b\nfile d/s/y",
            ],
            "dir d @9\nfile d/b\ndir d/s\nfile d/s/y",
        ),
        (
            "opaque keeps the directory's looks",
            vec!["dir d 0700 @5\nfile d/a", "opaque d"],
            "dir d 0700 @5",
        ),
        (
            "opaque root",
            vec![
                "dir . 0700\nfile a\ndir d\nfile d/x",
                "opaque .\nfile b",
                "file c",
            ],
            "dir . 0700\nfile b\nfile c",
        ),
        (
            "whiteout in an opaque directory",
            vec![
                "dir d\nfile d/a\nfile d/b",
                "dir d\nopaque d\nwhiteout d/a\nfile d/c",
            ],
            "dir d\nfile d/c",
        ),
        (
            "directory over file",
            vec!["file a", "dir a\nfile a/b"],
            "dir a\nfile a/b",
        ),
        (
            "file over directory",
            vec!["dir a\nfile a/b", "file a \"1\""],
            "file a \"1\"",
        ),
        (
            "file over directory over file",
            vec!["dir a\nfile a/b", "file a", "dir a\nfile a/c"],
            "dir a\nfile a/c",
        ),
        (
            "directory over link",
            vec!["dir d\nfile d/x\nsymlink a -> d", "dir a\nfile a/y"],
            "dir a\nfile a/y\ndir d\nfile d/x",
        ),
        (
            "link over directory",
            vec!["dir a\nfile a/x", "symlink a -> b"],
            "symlink a -> b",
        ),
        (
            "directory over directory",
            vec![
                "dir a 0700 1:1 @5 {user.a=1}\nfile a/x @1",
                "dir a 0750 2:2 @6 {user.b=2}\nfile a/y",
            ],
            "dir a 0750 2:2 @6 {user.b=2}\nfile a/x @1\nfile a/y",
        ),
        (
            "a missing parent looks like the one below",
            vec![
                "dir . @4\ndir a 0700 1:1 @5 {user.a=1}\ndir a/b 0711 @6",
                "file c",
                "file a/b/x",
            ],
            "dir . @4\ndir a 0700 1:1 @5 {user.a=1}\ndir a/b 0711 @6\nfile a/b/x\nfile c",
        ),
        (
            "a missing parent below a whiteout is new",
            vec!["dir a 0700\ndir a/b 0700", "whiteout a\nfile a/b/x"],
            "dir a\ndir a/b\nfile a/b/x",
        ),
        (
            "a missing parent above an opaque one",
            vec![
                "dir a 0700\ndir a/b 0700\nfile a/b/z",
                "dir a/b 0711\nopaque a/b\nfile a/b/x",
                "file a/b/y",
            ],
            "dir a 0700\ndir a/b 0711\nfile a/b/x\nfile a/b/y",
        ),
        (
            "a whiteout through two layers",
            vec!["dir a\nfile a/x", "dir a\nfile a/y", "whiteout a/x"],
            "dir a\nfile a/y",
        ),
        (
            "attributes of overlayfs in an image",
            vec![
                "dir a {trusted.overlay.opaque=y}\nfile a/x",
                "dir a {trusted.overlay.opaque=y}\nfile a/y {trusted.overlay.whiteout=}",
            ],
            "dir a {trusted.overlay.opaque=y}\nfile a/x\nfile a/y {trusted.overlay.whiteout=}",
        ),
        (
            "attributes of overlayfs of a file with two names",
            vec![
                "file a {trusted.overlay.k=1} {trusted.overlay.overlay.k=2}\nhard b = a\ndir d\nhard d/c = a",
            ],
            "file a {trusted.overlay.k=1} {trusted.overlay.overlay.k=2}\nhard b = a\ndir d\nhard d/c = a",
        ),
        (
            "attributes of overlayfs that the layer above doesn't have",
            vec![
                "dir a {trusted.overlay.k=1} {user.k=1}\nfile a/x",
                "dir a\nfile a/y",
            ],
            "dir a\nfile a/x\nfile a/y",
        ),
        (
            "attributes of overlayfs where users mount it",
            vec![
                "dir a {user.overlay.opaque=y}\nfile a/x",
                "dir a {user.overlay.opaque=y}\nfile a/y {user.overlay.whiteout=}",
            ],
            "dir a {user.overlay.opaque=y}\nfile a/x\nfile a/y {user.overlay.whiteout=}",
        ),
        (
            "through a link of a layer below: as in podman's overlays, a directory takes its place",
            vec![
                "dir usr/lib\nfile usr/lib/x\nsymlink lib -> usr/lib",
                "file lib/y",
            ],
            "dir lib\nfile lib/y\ndir usr\ndir usr/lib\nfile usr/lib/x",
        ),
        (
            "whiteouts through a link or a file of a layer below",
            vec![
                "dir d\nfile d/x\nsymlink l -> d\nfile f",
                "whiteout l/x\nwhiteout f/x\nopaque l",
            ],
            "dir d\nfile d/x\nfile f\nsymlink l -> d",
        ),
    ] {
        let place = Place::new();
        let expected = lines(expected);
        let unpack = |place: &Place| -> Vec<UnpackedLayer> {
            let layers: Vec<_> = stack
                .iter()
                .enumerate()
                .map(|(index, text)| unpack_archive(archive(text), index, place).unwrap())
                .collect();
            settle(&layers, &|| true).unwrap();
            layers
        };
        let layers = unpack(&place);
        assert_eq!(
            through_overlayfs(&layers, &place),
            shown_by_overlayfs(&expected),
            "{what}, through overlayfs"
        );
        let merged = place.path("merged");
        fs::create_dir(&merged).unwrap();
        let error = merge(unpack(&Place::new()), &merged, &|| false).unwrap_err();
        assert!(format!("{error:#}").ends_with("it was stopped"), "{error:#}");
        merge(layers, &merged, &|| true).unwrap();
        // Not opaque and the like any more: overlayfs's form is gone.
        assert_eq!(
            list(&merged),
            expected.replace(OPAQUE, " opaque"),
            "{what}, merged"
        );
    }
}

/// What overlayfs can show of a tree: kernels before 6.7 have no way to store attributes that are called like
/// its own, and say that there are none.
pub fn shown_by_overlayfs(listed: &str) -> String {
    const OWN: &str = " {trusted.overlay.";
    let marked = listed.replace(" opaque", OPAQUE);
    if kernel::is_since(&kernel::release().unwrap(), (6, 7)) {
        return marked;
    }
    let mut parts = marked.split(OWN);
    let first = parts.next().unwrap_or_default().to_string();
    parts.fold(first, |shown, part| {
        shown + part.split_once('}').map_or("", |(_, rest)| rest)
    })
}

/// What the product's own mount shows of settled layers.
pub fn through_overlayfs(layers: &[UnpackedLayer], place: &Place) -> String {
    let overlay = OverlayMount::new(&place.path(""), layers, &[]).unwrap();
    // A child of another test's may hold a directory of it, until it is another program: it is left to be
    // detached.
    list(overlay.root()).replace(" opaque", OPAQUE)
}
