//! A relay between a box and its broker: passes everything on, refuses everybody, or swallows the
//! broker's acknowledgements.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What the relay does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Everything passes.
    Pass,
    /// The broker's PUBACK packets do not.
    SwallowAcks,
    /// Who comes is sent away, and who is there too.
    Refuse,
}

/// Types of packets, as the first four bits have them.
const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
/// The bits of a PUBLISH that say how it is delivered.
const QOS: u8 = 0b110;

/// A relay on a port of its own. Its threads end with their connections.
pub struct MqttRelay {
    addr: SocketAddr,
    desk: Arc<Mutex<Desk>>,
}

struct Desk {
    mood: Mood,
    swallowed: usize,
    most_on_their_way: usize,
    clients: Vec<TcpStream>,
}

impl MqttRelay {
    /// Relays to a broker.
    pub fn start(broker: SocketAddr) -> MqttRelay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let desk =
            Desk { mood: Mood::Pass, swallowed: 0, most_on_their_way: 0, clients: Vec::new() };
        let desk = Arc::new(Mutex::new(desk));
        let shared = Arc::clone(&desk);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // Under the lock, so that nobody slips in while the mood changes.
                let mut desk = shared.lock().expect("no panic inside");
                let server = TcpStream::connect(broker);
                let (Ok(server), true) = (server, desk.mood != Mood::Refuse) else { continue };
                desk.clients.push(client.try_clone().expect("a socket"));
                relay(client, server, &shared);
            }
        });
        MqttRelay { addr, desk }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it does from now on.
    pub fn set(&self, mood: Mood) {
        let mut desk = self.desk.lock().expect("no panic inside");
        desk.mood = mood;
        desk.most_on_their_way = 0;
        if mood == Mood::Refuse {
            for client in desk.clients.drain(..) {
                // It may be gone already.
                let _ = client.shutdown(Shutdown::Both);
            }
        }
    }

    /// How many messages of a box were unacknowledged at the same time, since the mood changed.
    pub fn most_on_their_way(&self) -> usize {
        self.desk.lock().expect("no panic inside").most_on_their_way
    }

    /// How many acknowledgements it has swallowed.
    pub fn swallowed(&self) -> usize {
        self.desk.lock().expect("no panic inside").swallowed
    }
}

/// Copies both ways until one side closes.
fn relay(client: TcpStream, server: TcpStream, desk: &Arc<Mutex<Desk>>) {
    let (mut from, mut to) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    // Messages of the box for which it has no acknowledgement.
    let on_their_way = Arc::new(AtomicUsize::new(0));
    let (counted, at_the_desk) = (Arc::clone(&on_their_way), Arc::clone(desk));
    std::thread::spawn(move || {
        while let Some(packet) = packet(&mut from) {
            if packet[0] >> 4 == PUBLISH && packet[0] & QOS != 0 {
                let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
                let mut desk = at_the_desk.lock().expect("no panic inside");
                desk.most_on_their_way = desk.most_on_their_way.max(now);
            }
            if to.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    let desk = Arc::clone(desk);
    std::thread::spawn(move || {
        let (mut server, mut client) = (server, client);
        while let Some(packet) = packet(&mut server) {
            {
                let mut desk = desk.lock().expect("no panic inside");
                if packet[0] >> 4 == PUBACK {
                    if desk.mood == Mood::SwallowAcks {
                        desk.swallowed += 1;
                        continue;
                    }
                    on_their_way.fetch_sub(1, Ordering::SeqCst);
                }
            }
            if client.write_all(&packet).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
}

/// The next packet, whole; `None`: the connection ends.
fn packet(from: &mut TcpStream) -> Option<Vec<u8>> {
    let mut packet = vec![0; 1];
    from.read_exact(&mut packet).ok()?;
    let mut length = 0;
    for digit in 0..4 {
        let mut byte = [0];
        from.read_exact(&mut byte).ok()?;
        packet.push(byte[0]);
        length |= usize::from(byte[0] & 0x7f) << (7 * digit);
        if byte[0] & 0x80 == 0 {
            break;
        }
    }
    let head = packet.len();
    packet.resize(head + length, 0);
    from.read_exact(&mut packet[head..]).ok()?;
    Some(packet)
}
