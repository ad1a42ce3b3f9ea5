//! A proxy that wants a password.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use base64::{Engine, engine::general_purpose::STANDARD};

/// Who may use it, and the password.
pub const LOGIN: &str = "ann:pr0xy";

/// A proxy for everything that is at `upstream`, whatever it is called, for those who say [`LOGIN`].
pub struct Proxy {
    pub host: String,
    pub heads: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn start(upstream: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let heads = Arc::new(Mutex::new(Vec::new()));
        let log = heads.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (log, upstream) = (log.clone(), upstream.clone());
                thread::spawn(move || serve(client, &upstream, &log));
            }
        });
        Self { host, heads }
    }

    /// The first lines of what was asked.
    pub fn asked(&self) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        heads
            .iter()
            .map(|head| head.lines().next().unwrap().to_owned())
            .collect()
    }
}

fn serve(mut client: TcpStream, upstream: &str, log: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // A connection may be made and never used.
        if client.read(&mut byte)? == 0 {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let password = STANDARD.encode(LOGIN);
    let welcome = text.lines().any(|line| {
        let value = line
            .split_once(": ")
            .filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
        value.is_some_and(|(_, value)| value == format!("Basic {password}"))
    });
    let connect = text.starts_with("CONNECT ");
    log.lock().unwrap().push(text);
    if !welcome {
        return client.write_all(
            b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let mut server = TcpStream::connect(upstream)?;
    if connect {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else {
        // Servers take absolute addresses, too.
        server.write_all(&head)?;
    }
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let answers = thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Write);
    });
    let _ = io::copy(&mut client, &mut server);
    let _ = server.shutdown(std::net::Shutdown::Write);
    answers.join().unwrap();
    Ok(())
}
