//! Who pulls: the command lines.

use std::path::Path;

use lab::able_kernel;

use super::tools::Tools;

/// A way to get an image's files into memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// `podman pull`, its storage on the tmpfs.
    Podman,
    /// `skopeo copy` into a layout, then `umoci raw unpack`.
    Umoci,
    /// `crane export | tar x`.
    Crane,
    /// `landfall run`, until the image's own program says that it runs: pulled, settled, mounted, no blobs
    /// kept.
    Run,
    /// `landfall unpack`: pulled, settled, merged into one directory.
    Unpack,
    /// `landfall install`, which keeps the blobs and then refuses an image that has no bootc; its end is part
    /// of the time.
    Install,
}

/// What a run needs.
pub struct Job<'a> {
    /// The image's name.
    pub image: &'a str,
    /// A fresh tmpfs.
    pub place: &'a Path,
    /// The other programs.
    pub tools: &'a Tools,
    /// Landfall's binary.
    pub landfall: &'a Path,
    /// A disk that is free to use.
    pub disk: &'a Path,
}

/// What the image's program prints.
const MARKER: &str = "the image runs";

impl Contender {
    /// All of them; the first is what the others are compared with.
    pub const ALL: [Self; 6] = [
        Self::Podman,
        Self::Umoci,
        Self::Crane,
        Self::Run,
        Self::Unpack,
        Self::Install,
    ];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Podman => "podman pull",
            Self::Umoci => "skopeo + umoci",
            Self::Crane => "crane | tar",
            Self::Run => "landfall run",
            Self::Unpack => "landfall unpack",
            Self::Install => "landfall install",
        }
    }

    /// The line that says that the work is done, if it isn't done at the program's end.
    pub fn marker(self) -> Option<&'static str> {
        (self == Self::Run).then_some(MARKER)
    }

    /// The shell commands.
    pub fn script(self, job: &Job) -> String {
        let (image, landfall, place) = (job.image, job.landfall.display(), job.place.display());
        match self {
            Self::Podman => job.tools.script(
                job.place,
                &format!(
                    "mkdir /mnt/tmp; export TMPDIR=/mnt/tmp PODMAN_IGNORE_CGROUPSV1_WARNING=1
                    exec podman --root /mnt/storage --runroot /mnt/run --storage-driver overlay \
                    --cgroup-manager=cgroupfs --events-backend=none pull --quiet --tls-verify=false {image}"
                ),
            ),
            Self::Umoci => job.tools.script(
                job.place,
                &format!(
                    "mkdir /mnt/tmp; export TMPDIR=/mnt/tmp
                    skopeo --insecure-policy copy --quiet --src-tls-verify=false docker://{image} oci:/mnt/layout:x
                    exec umoci raw unpack --image /mnt/layout:x /mnt/root"
                ),
            ),
            Self::Crane => job.tools.script(
                job.place,
                &format!("mkdir /mnt/root; crane export --insecure {image} - | tar -xC /mnt/root"),
            ),
            Self::Run => format!(
                "exec {landfall} run --tls-verify=false {image} -- /bin/echo \"{MARKER}\""
            ),
            Self::Unpack => {
                format!("exec {landfall} unpack --tls-verify=false {image} --to {place}/root")
            }
            Self::Install => format!(
                "status=0; {able} {landfall} install --tls-verify=false {image} {disk} >&2 || status=$?; [ $status = 3 ]",
                able = able_kernel::shell_prefix(),
                disk = job.disk.display()
            ),
        }
    }
}
