//! A server of HTTP/1.1 that does exactly what a test says, faults included.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Path and query.
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    pub proxy_authorization: Option<String>,
    pub body: String,
    /// How many requests for the same path came before.
    pub nth: usize,
}

/// An answer, and where it goes wrong.
#[derive(Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// What `Content-Length` says, where it isn't the truth.
    pub announced: Option<usize>,
    /// The connection breaks after so many bytes of the body.
    pub cut: Option<usize>,
    /// Nothing comes after so many bytes of the body, and the connection stays.
    pub stall: Option<usize>,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            body: body.into(),
            ..Self::default()
        }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

pub struct Server {
    /// `127.0.0.1:PORT`.
    pub host: String,
    seen: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (seen.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, log.clone(), answer.clone()));
            }
        });
        Self { host, seen, task }
    }

    /// Ends it; from here on connections are refused.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }

    /// The requests for paths that contain `part`.
    pub fn seen(&self, part: &str) -> Vec<Request> {
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|request| request.path.contains(part))
            .cloned()
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    seen: Arc<Mutex<Vec<Request>>>,
    answer: Arc<impl Fn(&Request) -> Reply>,
) {
    let Some(mut request) = read(&mut stream).await else {
        return;
    };
    {
        let mut seen = seen.lock().unwrap();
        request.nth = seen.iter().filter(|other| other.path == request.path).count();
        seen.push(request.clone());
    }
    let _ = write(&mut stream, answer(&request)).await;
}

async fn read(stream: &mut TcpStream) -> Option<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        // A TLS handshake is answered as servers of plain HTTP do.
        if bytes[0] == 0x16 {
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
                .await
                .ok()?;
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ').map(String::from);
    let mut request = Request {
        path: words.nth(1)?,
        ..Request::default()
    };
    let mut length = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.into()),
            "authorization" => request.authorization = Some(value.into()),
            "proxy-authorization" => request.proxy_authorization = Some(value.into()),
            "content-length" => length = value.parse().unwrap(),
            _ => {}
        }
    }
    while bytes.len() < head_end + length {
        stream.read_buf(&mut bytes).await.ok()?;
    }
    request.body = String::from_utf8(bytes[head_end..].to_vec()).unwrap();
    Some(request)
}

async fn write(stream: &mut TcpStream, reply: Reply) -> std::io::Result<()> {
    let length = reply.announced.unwrap_or(reply.body.len());
    let mut head = format!(
        "HTTP/1.1 {} X\r\nconnection: close\r\ncontent-length: {length}\r\n",
        reply.status
    );
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await?;
    let end = reply.cut.or(reply.stall).unwrap_or(reply.body.len());
    stream.write_all(&reply.body[..end]).await?;
    stream.flush().await?;
    if reply.stall.is_some() {
        std::future::pending::<()>().await;
    }
    Ok(())
}
