//! What the image's own container tools must read so that they find the relay, and only that: a drop-in for
//! `registries.conf.d` (containers-registries.conf(5)) and a `policy.json` (containers-policy.json(5)).

use std::net::SocketAddr;

use serde_json::json;

use crate::image::oci::{Image, Reference};

/// A drop-in that maps the image's own name to the relay at `address`. Tools read the files of
/// `registries.conf.d` in the order of their names, and the last one to speak of a name wins: call it `zz-…`.
pub fn registries_conf(reference: &Reference, address: SocketAddr) -> String {
    let (name, repository) = (reference.name(), reference.repository());
    // The parts of a name need no escapes in TOML: its grammar has letters, digits and `.:/_-` only.
    format!(
        "# The image that installs itself is served by its installer, under its own name.\n\
         unqualified-search-registries = []\n\
         \n\
         [[registry]]\n\
         prefix = \"{name}\"\n\
         location = \"{address}/{repository}\"\n\
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
        let address = "127.0.0.1:4711".parse().unwrap();
        assert_eq!(
            registries_conf(&image.reference, address),
            r#"# The image that installs itself is served by its installer, under its own name.
unqualified-search-registries = []

[[registry]]
prefix = "registry.example.com/os/x"
location = "127.0.0.1:4711/os/x"
insecure = true
blocked = false
"#
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
