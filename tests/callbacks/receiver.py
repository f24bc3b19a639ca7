"""A receiver of notices that checks `sign` by itself and misbehaves on request.

Usage: receiver.py PORT KEY LOG FAULTS. FAULTS is a JSON list of {"fault", "stream"?, "event"?,
"times"}: the first entry that fits a request and is not used up decides. Each request is one line
of JSON in LOG, written before it is answered. Prints `ready PORT`.
"""

import hashlib
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, KEY, LOG, FAULTS = int(sys.argv[1]), sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
LOCK = threading.Lock()
FOR_EVER = threading.Event()


def fault_of(body):
    for entry in FAULTS:
        fits = all(
            name not in entry or entry[name] == body.get(member)
            for name, member in (("stream", "stream_id"), ("event", "event_type"))
        )
        if fits and entry["times"] > 0:
            entry["times"] -= 1
            return entry["fault"]
    return "none"


def is_signed(body):
    if "t" not in body and "sign" not in body:
        return None
    made = hashlib.md5((KEY + str(body["t"])).encode()).hexdigest()
    return made == body["sign"] and 0 <= body["t"] - time.time() <= 601


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        body = json.loads(raw)
        with LOCK:
            fault = fault_of(body)
            seen = {
                "path": self.path,
                "type": self.headers["Content-Type"],
                "fault": fault,
                "signed": is_signed(body),
                "body": body,
            }
            with open(LOG, "a", encoding="utf-8") as log:
                log.write(json.dumps(seen) + "\n")
        if fault == "hang":
            FOR_EVER.wait()
        if fault == "reset":
            self.close_connection = True
            return
        status = 200 if fault == "none" else int(fault)
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "/elsewhere")
        answer = b"" if status == 204 else b'{"code":0}'
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


ThreadingHTTPServer.daemon_threads = True
server = ThreadingHTTPServer(("127.0.0.1", PORT), Receiver)
print("ready", server.server_address[1], flush=True)
server.serve_forever()
