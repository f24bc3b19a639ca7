"""An S3 server for tests: a store behind a gate that checks every signature with botocore, keeps a
log of requests, and makes faults when told to. The store is moto, in this process, or the one at
EDGEREC_S3_STORE (http://HOST:PORT), which knows the same key, checks the signatures too, and whose
bucket is emptied.

Usage: s3_server.py PORT ACCESS_KEY SECRET_KEY BUCKET [CERTIFICATE KEY]. Prints {"ready": port} when it listens.
Control: POST /__control with {"op": "fault", "kind": K, "method": M, "part": N, "times": T},
{"op": "clear"}, {"op": "abort"} (all uploads), {"op": "uploads"} (open uploads), {"op": "log"}; GET /__object/KEY
gives the stored bytes without a signature. Kinds of faults: busy, error-in-200, flip, opaque-etag,
drop-answer, forbidden (403 without a text)."""

import datetime
import hmac
import http.client
import io
import json
import logging
import os
import socket
import sys
import threading
from urllib.parse import parse_qsl, quote, unquote

from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.session import get_session
from werkzeug.serving import make_server

PORT, ACCESS_KEY, SECRET_KEY, BUCKET = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
SCHEME = "https" if len(sys.argv) > 5 else "http"
LOCK = threading.Lock()
FAULTS = []
LOG = []


def note(request):
    """Notes a request, always before its answer goes out."""
    with LOCK:
        LOG.append(request)


def error(code, message):
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


def signature_error(method, uri, host):
    """None if the request is signed as botocore would sign it, and is not too old."""
    path, _, query = uri.partition("?")
    params = dict(parse_qsl(query, keep_blank_values=True))
    given = params.get("X-Amz-Signature", "")
    stamp = params.get("X-Amz-Date", "")
    if not given or params.get("X-Amz-SignedHeaders") != "host":
        return "AccessDenied"
    if params["X-Amz-Credential"].split("/")[0] != ACCESS_KEY:
        return "InvalidAccessKeyId"
    when = datetime.datetime.strptime(stamp + "+0000", "%Y%m%dT%H%M%SZ%z")
    age = (datetime.datetime.now(datetime.timezone.utc) - when).total_seconds()
    if not -900 <= age <= int(params["X-Amz-Expires"]):
        return "RequestTimeTooSkewed"
    rest = "&".join(p for p in query.split("&") if not p.startswith("X-Amz-Signature="))
    region = params["X-Amz-Credential"].split("/")[2]
    auth = S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY), "s3", region)
    request = AWSRequest(method, f"{SCHEME}://{host}{path}?{rest}", headers={"host": host})
    request.context["timestamp"] = stamp
    wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    return None if hmac.compare_digest(wanted, given) else "SignatureDoesNotMatch"


def take_fault(method, part, kind_of):
    with LOCK:
        for fault in FAULTS:
            if fault["method"] != method or fault.get("part", part) != part:
                continue
            if fault.get("on", kind_of) != kind_of:
                continue
            fault["times"] -= 1
            if fault["times"] <= 0:
                FAULTS.remove(fault)
            return fault["kind"]
    return None


class Moto:
    """In this process, empty."""

    def __init__(self):
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
        from moto.s3.models import s3_backends
        from werkzeug.test import Client
        self.app = DomainDispatcherApplication(create_backend_app)
        self.inner = Client(self.app)
        self.backend = s3_backends["123456789012"]["aws"]
        made = self.inner.put(f"/{BUCKET}")
        assert made.status_code == 200, made.status

    def ask(self, environ, body):
        upload = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True)).get("uploadId")
        if upload and upload not in self.backend.get_bucket(BUCKET).multiparts:
            # As S3 does it; moto itself fails with 500 here.
            return "404 Not Found", [], error("NoSuchUpload", "no such upload")
        environ["wsgi.input"] = io.BytesIO(body)
        got = {}

        def keep(status, headers, _=None):
            got["status"], got["headers"] = status, list(headers)

        content = b"".join(self.app(environ, keep))
        return got["status"], got["headers"], content

    def uploads(self):
        text = self.inner.get(f"/{BUCKET}?uploads").get_data(as_text=True)
        keys = [k.split("</Key>")[0] for k in text.split("<Key>")[1:]]
        ids = [i.split("</UploadId>")[0] for i in text.split("<UploadId>")[1:]]
        return list(zip(keys, ids))

    def abort(self, key, upload):
        self.inner.delete(f"/{BUCKET}/{quote(key)}?uploadId={quote(upload)}")

    def object(self, key):
        found = self.backend.get_object(BUCKET, key)
        return found.value if found else None


class Store:
    """Another program; requests go to it as they came."""

    def __init__(self, address):
        self.address = address.removeprefix("http://")
        self.client = get_session().create_client(
            "s3", "us-east-1", endpoint_url=address, aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY, config=Config(s3={"addressing_style": "path"}))
        try:
            self.client.create_bucket(Bucket=BUCKET)
        except ClientError as known:
            assert "BucketAlready" in str(known), known
        for key, upload in self.uploads():
            self.abort(key, upload)
        for found in self.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for one in found.get("Contents", []):
                self.client.delete_object(Bucket=BUCKET, Key=one["Key"])

    def ask(self, environ, body):
        link = http.client.HTTPConnection(self.address, timeout=60)
        own = {"CONTENT_TYPE": "Content-Type", "HTTP_HOST": "Host", "HTTP_RANGE": "Range"}
        headers = {own.get(name, name[5:].replace("_", "-")): value for name, value in environ.items()
                   if name in own or name.startswith(("HTTP_CONTENT_", "HTTP_X_AMZ_", "HTTP_IF_"))}
        link.request(environ["REQUEST_METHOD"], environ["RAW_URI"], body, headers)
        got = link.getresponse()
        of_link = ("connection", "transfer-encoding", "keep-alive")
        told = [(name, value) for name, value in got.getheaders() if name.lower() not in of_link]
        return f"{got.status} {got.reason}", told, got.read()

    def uploads(self):
        found = self.client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        return [(one["Key"], one["UploadId"]) for one in found]

    def abort(self, key, upload):
        self.client.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)

    def object(self, key):
        try:
            return self.client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey:
            return None


def control(environ):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    order = json.loads(environ["wsgi.input"].read(length))
    if order["op"] == "fault":
        with LOCK:
            FAULTS.append(order)
    elif order["op"] == "clear":
        with LOCK:
            FAULTS.clear()
    elif order["op"] == "abort":
        for key, upload in STORE.uploads():
            STORE.abort(key, upload)
    elif order["op"] == "log":
        with LOCK:
            return json.dumps(LOG).encode()
    elif order["op"] == "uploads":
        return json.dumps(STORE.uploads()).encode()
    return b"{}"


def gate(environ, start_response):
    method, uri = environ["REQUEST_METHOD"], environ["RAW_URI"]
    path = uri.partition("?")[0]
    if path == "/__control":
        answer = control(environ)
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]
    if path.startswith("/__object/"):
        found = STORE.object(unquote(path.removeprefix("/__object/")))
        start_response("404 Not Found" if found is None else "200 OK",
                       [("Content-Length", str(len(found or b"")))])
        return [found or b""]
    params = dict(parse_qsl(environ["QUERY_STRING"], keep_blank_values=True))
    part = params.get("partNumber")
    kind_of = "part" if part else "complete" if "uploadId" in params else \
        "create" if "uploads" in params else "object"
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)

    def answer(status, headers, content):
        key = path.removeprefix(f"/{BUCKET}/")
        note({"method": method, "key": key, "on": kind_of, "part": part, "bytes": len(body),
              "declared": environ.get("CONTENT_LENGTH"), "status": int(status.split()[0])})
        start_response(status, headers)
        return [content]

    if len(body) < length:
        return answer("400 Bad Request", [], error("IncompleteBody", "the body broke off"))
    wrong = signature_error(method, uri, environ["HTTP_HOST"])
    if wrong:
        return answer("403 Forbidden", [], error(wrong, "not signed as it should be"))
    fault = take_fault(method, part, kind_of)
    if fault == "busy":
        return answer("503 Slow Down", [], error("SlowDown", "please slow down"))
    if fault == "forbidden":
        return answer("403 Forbidden", [], b"")
    if fault == "error-in-200":
        return answer("200 OK", [], error("InternalError", "we failed"))
    if fault == "flip" and body:
        middle = len(body) // 2
        body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
    status, headers, content = STORE.ask(environ, body)
    if fault == "opaque-etag":
        headers = [(k, v) for k, v in headers if k.lower() != "etag"]
        headers.append(("ETag", '"00112233445566778899aabbccddeeff"'))
    if fault == "drop-answer":
        note({"method": method, "key": path, "on": kind_of, "part": part, "bytes": len(body),
              "status": 0})
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("200 OK", [])
        return [b""]
    return answer(status, headers, content)


logging.getLogger("werkzeug").setLevel(logging.ERROR)
STORE = Store(os.environ["EDGEREC_S3_STORE"]) if os.environ.get("EDGEREC_S3_STORE") else Moto()
tls = tuple(sys.argv[5:7]) or None
server = make_server("127.0.0.1", PORT, gate, threaded=True, ssl_context=tls)
print(json.dumps({"ready": server.server_port}), flush=True)
server.serve_forever()
