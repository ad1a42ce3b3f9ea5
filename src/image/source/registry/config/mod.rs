//! The files that people already have for podman and skopeo, and what they mean for one image.
//!
//! ```text
//! registries ─ where an image is: its mirrors, its location, whether TLS must be right
//! certs      ─ certs.d: private authorities and client certificates of a host
//! keys       ─ credentials: pull_secret, auth_file (auth.json, config.json, …), helper (docker-credential-*)
//! places     ─ where all these files are
//! ```
//!
//! Each is read as containers/image reads it (containers-registries.conf(5), containers-certs.d(5),
//! containers-auth.json(5)); where we differ, the README says so.

pub mod auth_file;
pub mod certs;
pub mod credentials;
mod helper;
pub mod keys;
pub mod places;
pub mod pull_secret;
pub mod registries;
