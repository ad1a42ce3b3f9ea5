//! What a config drive's secrets leave behind in memory: nothing. Another process handles one, and this one
//! looks through that one's memory. Needs root.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use landfall::Options;
use landfall::commands::config_drives;
use landfall::config_drive;
use landfall::progress::Progress;
use support::disk::{run, text};
use tempfile::TempDir;

const PLACE: &str = "LANDFALL_TEST_PLACE";
const KEEP: &str = "LANDFALL_TEST_KEEP";
const DONE: &str = "config drive handled";

/// Not a test: the other process. Handles the config drive at `PLACE` in every way, says so and waits for its
/// end.
#[test]
#[ignore = "called by the tests here"]
fn handle() {
    let place = std::env::var(PLACE).unwrap();
    let place = Path::new(&place);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let read = || {
        let read = runtime.block_on(config_drive::read(
            place,
            &Options::default(),
            &Progress::silent(),
        ));
        read.unwrap_or_else(|error| panic!("{error:#}"))
    };
    let drive = read();
    let kept = std::env::var(KEEP).is_ok().then(read);
    drive.files().unwrap();
    let fat = drive.for_sectors(4096).unwrap_or_else(|error| panic!("{error}"));
    fat.files().unwrap();
    drop(fat);
    if place.is_file() {
        config_drives::show(place, true, false, &mut std::io::sink()).unwrap();
    }
    println!("{DONE}");
    thread::park();
    drop(kept);
}

/// The other process, ended with this value.
struct Other(Child);

impl Other {
    /// Starts it with `input` as its standard input, and waits until the config drive is handled.
    fn start(place: &str, input: &[u8], keep: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--ignored", "--exact", "handle", "--nocapture"])
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if keep {
            command.env(KEEP, "");
        }
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let mut said = String::new();
        let mut stdout = child.stdout.take().unwrap();
        let mut byte = [0];
        while !said.contains(DONE) {
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "{place}: {said}");
            said.push(char::from(byte[0]));
        }
        Self(child)
    }

    /// How often `needle` is in the memory that it can write.
    fn copies_of(&self, needle: &[u8]) -> usize {
        let directory = Path::new("/proc").join(self.0.id().to_string());
        let memory = fs::File::open(directory.join("mem")).unwrap();
        let maps = fs::read_to_string(directory.join("maps")).unwrap();
        let writable = maps.lines().filter(|line| line.contains(" rw"));
        let copies_in = |line: &str| {
            let (start, rest) = line.split_once('-').unwrap();
            let (end, _) = rest.split_once(' ').unwrap();
            let [start, end] = [start, end].map(|number| u64::from_str_radix(number, 16).unwrap());
            let mut bytes = vec![0; (end - start) as usize];
            let read = memory.read_exact_at(&mut bytes, start);
            read.unwrap_or_else(|error| panic!("{line}: {error}"));
            bytes
                .windows(needle.len())
                .filter(|found| *found == needle)
                .count()
        };
        writable.map(copies_in).sum()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Letters and digits that look like chance.
fn secret() -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let digit = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(DIGITS[(state % 62) as usize])
    };
    (0..40_000).map(digit).collect()
}

/// Serves one file, twice.
fn serve(body: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().take(2) {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    format!("http://{address}/config-drive")
}

/// A directory with the same config drive in every form.
fn forms(secret: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let json = serde_json::json!({
        "meta_data": {"admin_pass": secret},
        "user_data": format!("#cloud-config\n{secret}\n"),
        "vendor_data": {"secret": [format!("\"{secret}\"")]},
    });
    fs::write(path("json"), json.to_string()).unwrap();
    for (name, sector_size) in [("iso", "512"), ("fat", "4096")] {
        let (json, image) = (path("json"), path(name));
        let arguments = [text(&json), "-o", text(&image), "--sector-size", sector_size];
        let built = support::landfall([&["config-drive", "build"], &arguments[..]].concat());
        assert_eq!(built.code, Some(0), "{built:#?}");
    }
    let script = "cd \"$0\" && gzip -c iso >gzip && base64 iso >base64 && base64 gzip >base64-gzip && \
                  mkdir -p tree/openstack/latest && cp json tree/openstack/latest/meta_data.json";
    run("sh", &["-c", script, text(directory.path())]);
    directory
}

#[test]
fn nothing_secret_stays_in_memory() {
    let secret = secret();
    // From the middle: what is in all forms of it.
    let piece = &secret.as_bytes()[20_000..20_032];
    let directory = forms(&secret);
    let path = |name: &str| directory.path().join(name);
    let kept = Other::start(text(&path("json")), b"", true);
    assert!(
        kept.copies_of(piece) > 0,
        "the look through its memory finds nothing at all"
    );
    drop(kept);
    let mut found = Vec::new();
    let mut look = |name: &str, place: &str, input: &[u8]| {
        let other = Other::start(place, input, false);
        found.push((name.to_string(), other.copies_of(piece)));
        if !input.is_empty() || !Path::new(place).is_file() {
            return;
        }
        // As it was packed.
        let packed = fs::read(place).unwrap();
        let piece = &packed[packed.len() / 3..][..40];
        if matches!(name, "gzip" | "base64" | "base64-gzip") {
            found.push((format!("{name} itself"), other.copies_of(piece)));
        }
    };
    for name in ["json", "iso", "fat", "gzip", "base64", "base64-gzip", "tree"] {
        look(name, text(&path(name)), b"");
    }
    look("standard input", "-", &fs::read(path("json")).unwrap());
    look("URL", &serve(fs::read(path("base64-gzip")).unwrap()), b"");
    assert!(found.iter().all(|(_, copies)| *copies == 0), "{found:#?}");
}
