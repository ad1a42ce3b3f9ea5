//! Images that are pulled, and pulls that are stopped half-way.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use lab::image::{self, Compression, Digest, Entry, Layer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Lab, Ran, landfall, noise, output, stalling_proxy, start_until};

/// Two layers; what's in the lower one can't be made smaller.
pub fn sample() -> image::Image {
    image::Image::new()
        .layer(Layer::new([Entry::file("noise", noise(1, 1 << 20))]))
        .layer(Layer::new([Entry::file("word", "word")]).compressed(Compression::Zstd))
}

/// A lab whose registry has the sample as `1`, and its name.
pub fn lab() -> (Lab, String) {
    let lab = Lab::new();
    lab.layout.add(&sample(), "1").unwrap();
    let name = lab.place("1");
    (lab, name)
}

/// The digest of one of the sample's layers.
pub fn layer(lab: &Lab, index: usize) -> Digest {
    Digest::in_descriptor(&lab.layout.manifest("1").unwrap()["layers"][index]).unwrap()
}

pub fn pull(image: &str, to: &str) -> Ran {
    landfall(["pull", image, "--tls-verify=false", "--to", to])
}

pub fn skopeo_digest(name: &str) -> String {
    output(Command::new("skopeo").args(["inspect", "--format", "{{.Digest}}", name]))
        .trim()
        .into()
}

/// Pulls through a connection that stalls after 400,000 bytes of each answer, until some of the noise is in
/// `partial`; then it is stopped.
pub fn stopped_half_way(lab: &Lab, to: &str, partial: impl Fn() -> Option<PathBuf>) {
    let name = format!("{}/os/test:1", stalling_proxy(&lab.registry, 400_000));
    let arguments = [
        "pull",
        &name,
        "--tls-verify=false",
        "--progress=plain",
        "--to",
        to,
    ];
    let (child, finish) = start_until(&arguments, "to pull");
    let written = || {
        partial()
            .and_then(|path| fs::metadata(path).ok())
            .map_or(0, |file| file.len())
    };
    while written() < 300_000 {
        sleep(Duration::from_millis(5));
    }
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let ran = finish(child);
    assert_eq!(ran.code, Some(3), "{ran:#?}");
    assert!(ran.error().contains("stopped by SIGTERM"), "{ran:#?}");
}
