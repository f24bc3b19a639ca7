//! A relay between the box and a server: passes a number of bytes on, then stands still until it
//! is opened. A link that dies in the middle of a body.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

/// A relay on a port of its own. Its threads end with their connections.
pub struct Relay {
    port: u16,
    gate: Arc<Gate>,
}

/// How many more bytes may pass towards the server.
struct Gate {
    left: Mutex<u64>,
    opened: Condvar,
}

impl Relay {
    /// Relays to `port`; stands still after `bytes` towards it.
    pub fn start(port: u16, bytes: u64) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let own = listener.local_addr().expect("bound").port();
        let gate = Arc::new(Gate { left: Mutex::new(bytes), opened: Condvar::new() });
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                relay(client, server, &shared);
            }
        });
        Relay { port: own, gate }
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it stands still.
    pub fn is_stopped(&self) -> bool {
        *self.gate.left.lock().expect("no panic inside") == 0
    }

    /// Lets everything pass from now on.
    pub fn open(&self) {
        *self.gate.left.lock().expect("no panic inside") = u64::MAX;
        self.gate.opened.notify_all();
    }
}

impl Gate {
    /// Waits until something may pass; how much of `wanted`.
    fn pass(&self, wanted: usize) -> usize {
        let left = self.left.lock().expect("no panic inside");
        let mut left = self.opened.wait_while(left, |left| *left == 0).expect("no panic inside");
        let passed = usize::try_from(*left).map_or(wanted, |left| left.min(wanted));
        if *left != u64::MAX {
            *left -= passed as u64;
        }
        passed
    }
}

/// Copies both ways until one side closes.
fn relay(client: TcpStream, server: TcpStream, gate: &Arc<Gate>) {
    let (mut from, mut to) = (client.try_clone().expect("a socket"), server.try_clone());
    let gate = Arc::clone(gate);
    std::thread::spawn(move || {
        let to = to.as_mut().expect("a socket");
        let mut buffer = vec![0; 64 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let mut sent = 0;
            while sent < read {
                let passed = gate.pass(read - sent);
                if to.write_all(&buffer[sent..sent + passed]).is_err() {
                    return;
                }
                sent += passed;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        let (mut server, mut client) = (server, client);
        // An end on either side ends this way; the other thread sees it at its next step.
        let _ = std::io::copy(&mut server, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
}
