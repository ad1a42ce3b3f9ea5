//! What the image's own container tools must read so that they find the relay, and only that: a drop-in for
//! `registries.conf.d` (containers-registries.conf(5)) and a `policy.json` (containers-policy.json(5)).

use serde_json::json;

use super::Place;
use crate::image::oci::{Image, Reference};

/// A drop-in that maps the image's own name to the relay at `place`. Tools read the files of
/// `registries.conf.d` in the order of their names, and the last one to speak of a name wins: call it `zz-…`.
pub fn registries_conf(reference: &Reference, place: &Place) -> String {
    let (name, location) = (reference.name(), place.location());
    // The parts of a name need no escapes in TOML: its grammar has letters, digits and `.:/_-` only.
    format!(
        "# The image that installs itself is served by its installer, under its own name.\n\
         unqualified-search-registries = []\n\
         \n\
         [[registry]]\n\
         prefix = \"{name}\"\n\
         location = \"{location}\"\n\
         insecure = true\n\
         blocked = false\n"
    )
}

/// A policy that accepts exactly `image`, by digest, from a registry, and rejects everything else.
pub fn policy_json(image: &Image) -> String {
    let policy = json!({
        "default": [{ "type": "reject" }],
        "transports": {
            "docker": { image.name_by_digest(): [{ "type": "insecureAcceptAnything" }] },
        },
    });
    format!("{policy:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::relay::tests::image;

    #[test]
    fn the_texts_are_these() {
        let image = image(&[]);
        let place = Place::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        assert_eq!(
            registries_conf(&image.reference, &place),
            r#"# The image that installs itself is served by its installer, under its own name.
unqualified-search-registries = []

[[registry]]
prefix = "registry.example.com/os/x"
location = "LOCATION"
insecure = true
blocked = false
"#
            .replace("LOCATION", &place.location())
        );
        let expected = r#"{
  "default": [
    {
      "type": "reject"
    }
  ],
  "transports": {
    "docker": {
      "registry.example.com/os/x@DIGEST": [
        {
          "type": "insecureAcceptAnything"
        }
      ]
    }
  }
}
"#;
        assert_eq!(
            policy_json(&image),
            expected.replace("DIGEST", image.digest.as_ref())
        );
    }
}
