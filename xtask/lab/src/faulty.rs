//! A proxy in front of a registry that spoils what it passes on, exactly where a test says.
//!
//! It takes one request per connection, fetches the whole answer from the registry, and then does its worst.
//! Everything else reaches the client as the registry said it.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A byte of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The first one.
    First,
    /// One in the middle.
    Middle,
    /// The last one.
    Last,
}

impl At {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::First, Self::Middle, Self::Last];

    fn of(self, length: usize) -> usize {
        match self {
            Self::First => 0,
            Self::Middle => length / 2,
            Self::Last => length.saturating_sub(1),
        }
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is closed without an answer.
    HangUp,
    /// There is no answer, and the connection stays.
    Silence,
    /// The connection is closed before this byte of the body.
    Cut(At),
    /// Nothing comes from this byte of the body on, and the connection stays.
    Stall(At),
    /// The connection is closed after so many bytes of the body.
    Break(usize),
    /// The body comes in small pieces.
    Throttle,
    /// The body comes byte by byte, some fifty a second.
    Drip,
    /// This byte is another one.
    Flip(At),
    /// `Content-Length` says that the body ends before this byte, and so it does.
    Less(At),
    /// `Content-Length` says that there is more than there is.
    More,
    /// The registry isn't asked; this is the answer.
    Answer {
        /// Its status.
        status: u16,
        /// Its headers, besides those of its length.
        headers: &'static [(&'static str, &'static str)],
        /// Its body.
        body: &'static str,
    },
    /// The registry isn't told of `Range`.
    IgnoreRange,
    /// The client is sent to this host, or to the same one where it is empty, with the same path and a
    /// signature that nobody else must see.
    Redirect(String),
    /// The token that came with this request is worth nothing any more, now and later.
    ExpireToken,
}

/// Faults for the requests whose path has `part` in it: the first has the first one, and so on; those that
/// come after the last have none, or all the last one.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What the path has in it.
    pub part: String,
    /// What goes wrong, request by request.
    pub faults: Vec<Fault>,
    /// Whether the last one goes on for ever.
    pub and_so_on: bool,
}

impl Rule {
    /// For the first request alone.
    pub fn once(part: &str, fault: Fault) -> Self {
        Self {
            part: part.into(),
            faults: vec![fault],
            and_so_on: false,
        }
    }

    /// For all requests.
    pub fn always(part: &str, fault: Fault) -> Self {
        Self {
            and_so_on: true,
            ..Self::once(part, fault)
        }
    }

    fn fault(&self, nth: usize) -> &Fault {
        let last = self.faults.last().filter(|_| self.and_so_on);
        self.faults.get(nth).or(last).unwrap_or(&Fault::None)
    }
}

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `GET`, `HEAD` …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// All headers, their names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The proxy. Dropping it ends it.
pub struct Faulty {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    rules: Vec<Rule>,
    state: Mutex<State>,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    seen: Vec<Request>,
    expired: HashSet<String>,
}

impl Faulty {
    /// Stands in front of the registry at `upstream` (`HOST:PORT`).
    pub fn start(upstream: &str, rules: Vec<Rule>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            rules,
            state: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let serving = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if serving.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let serving = serving.clone();
                // A client that hangs up while it is served is a test's business.
                thread::spawn(move || drop(serving.serve(client)));
            }
        });
        Self { port, shared }
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The same place by another name.
    pub fn other_name(&self) -> String {
        format!("localhost:{}", self.port)
    }

    /// The requests whose path has `part` in it.
    pub fn seen(&self, part: &str) -> Vec<Request> {
        let state = self.shared.state.lock().unwrap();
        let found = state.seen.iter().filter(|request| request.path.contains(part));
        found.cloned().collect()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        let Some((mut request, _)) = read_request(&mut client)? else {
            return Ok(());
        };
        let faults = self.note(&request);
        self.replace_expired_token(&mut request);
        if faults.contains(&Fault::IgnoreRange) {
            request.headers.retain(|(name, _)| name != "range");
        }
        for fault in &faults {
            match fault {
                Fault::HangUp => return Ok(()),
                Fault::Silence => return wait_for_hang_up(&mut client),
                Fault::Answer {
                    status,
                    headers,
                    body,
                } => return Reply::new(*status, headers, body).send(&mut client, &Fault::None),
                Fault::Redirect(host) => {
                    let own = request.header("host").unwrap_or_default();
                    let host = if host.is_empty() { own } else { host };
                    let location = format!("http://{host}{}?X-Signature=s1gned", request.path);
                    return Reply::new(307, &[("location", &location)], "").send(&mut client, &Fault::None);
                }
                _ => {}
            }
        }
        let reply = self.ask(&request)?;
        let spoilt = faults
            .iter()
            .find(|fault| **fault != Fault::None && **fault != Fault::IgnoreRange);
        reply.send(&mut client, spoilt.unwrap_or(&Fault::None))
    }

    /// Writes the request down; gives what is to go wrong with it.
    fn note(&self, request: &Request) -> Vec<Fault> {
        let mut state = self.state.lock().unwrap();
        let matching = self.rules.iter().filter(|rule| request.path.contains(&rule.part));
        let faults: Vec<Fault> = matching
            .map(|rule| {
                let before = state.seen.iter().filter(|other| other.path.contains(&rule.part));
                rule.fault(before.count()).clone()
            })
            .collect();
        if let Some(token) = request.header("authorization")
            && faults.contains(&Fault::ExpireToken)
        {
            state.expired.insert(token.into());
        }
        state.seen.push(request.clone());
        faults
    }

    /// The registry itself then says what it says of a token that it can't accept.
    fn replace_expired_token(&self, request: &mut Request) {
        let state = self.state.lock().unwrap();
        for (name, value) in &mut request.headers {
            if name == "authorization" && state.expired.contains(value) {
                *value = "Bearer expired".into();
            }
        }
    }

    /// HTTP/1.0, where a body ends with its connection.
    fn ask(&self, request: &Request) -> io::Result<Reply> {
        let mut server = TcpStream::connect(&self.upstream)?;
        let mut head = format!("{} {} HTTP/1.0\r\n", request.method, request.path);
        for (name, value) in request.headers.iter().filter(|(name, _)| name != "connection") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        server.write_all(format!("{head}\r\n").as_bytes())?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        let end = head_end(&answer).ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&answer[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        Ok(Reply {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            headers: headers(lines),
            body: answer.split_off(end),
        })
    }
}

/// An answer that is still whole.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
        Self {
            status,
            headers: headers.iter().map(owned).collect(),
            body: body.into(),
        }
    }

    fn send(mut self, client: &mut TcpStream, fault: &Fault) -> io::Result<()> {
        let length = self.body.len();
        let (mut announced, mut end) = (length, length);
        match fault {
            Fault::Cut(at) | Fault::Stall(at) => end = at.of(length),
            Fault::Break(count) => end = length.min(*count),
            Fault::Less(at) => (announced, end) = (at.of(length), at.of(length)),
            Fault::More => announced = length + 9,
            Fault::Flip(at) => {
                if let Some(byte) = self.body.get_mut(at.of(length)) {
                    *byte = !*byte;
                }
            }
            _ => {}
        }
        let mut head = format!(
            "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {announced}\r\n",
            self.status
        );
        for (name, value) in &self.headers {
            if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        client.write_all(format!("{head}\r\n").as_bytes())?;
        match fault {
            Fault::Throttle => write_slowly(client, self.body.chunks(length.div_ceil(64).max(1)), 1)?,
            Fault::Drip => write_slowly(client, self.body.chunks(1), 20)?,
            _ => client.write_all(&self.body[..end])?,
        }
        if matches!(fault, Fault::Stall(_)) {
            return wait_for_hang_up(client);
        }
        Ok(())
    }
}

/// Reads a request and its body; `None` where it is none of HTTP.
pub fn read_request(client: &mut TcpStream) -> io::Result<Option<(Request, Vec<u8>)>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    let end = loop {
        if let Some(end) = head_end(&bytes) {
            break end;
        }
        let count = client.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..count]);
        if count == 0 {
            return Ok(None);
        }
        // A TLS handshake is answered as servers of plain HTTP do.
        if bytes[0] == 0x16 {
            client.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")?;
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(String::from);
    let request = Request {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        headers: headers(lines),
    };
    let length = request
        .header("content-length")
        .and_then(|text| text.parse().ok());
    let mut body = bytes.split_off(end);
    let missing = length.unwrap_or(0u64).saturating_sub(body.len() as u64);
    client.take(missing).read_to_end(&mut body)?;
    Ok(Some((request, body)))
}

fn write_slowly<'a>(
    client: &mut TcpStream,
    pieces: impl Iterator<Item = &'a [u8]>,
    pause_ms: u64,
) -> io::Result<()> {
    for piece in pieces {
        client.write_all(piece)?;
        thread::sleep(Duration::from_millis(pause_ms));
    }
    Ok(())
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    end.map(|end| end + 4)
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
        .collect()
}

fn wait_for_hang_up(client: &mut TcpStream) -> io::Result<()> {
    io::copy(client, &mut io::sink()).map(drop)
}
