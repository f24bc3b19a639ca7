"""A stand-in for the VOD platform and its object storage, made from the contract: it checks every
signature (TC3 and COS) with code of its own, keeps what it is sent, keeps a log of requests, and
makes faults when told to. The official upload SDK works with it, see `tests/vod_target.rs`.

Usage: fake_vod.py PORT SECRET_ID SECRET_KEY. Prints {"ready": port} when it listens.

One port serves all. Requests to the host `<bucket>.cos.<region>.myqcloud.com` are for object
storage, others for the API. Control: POST /__control with {"op": O}, where O is

    fault      {"kind": K, "on": W, "part": N, "times": T}: the next T requests of that kind
    clear      no more faults
    log        every request so far, in the order of answering
    requests   how many there were
    media      what was committed
    namesakes  {"count": C}: somebody commits so many files of the same name as the last
    set        {"name": value}: skew_s, life_s (of credentials; null: it gives none), repeat ("same"
               or "refused"), chance (of a fault, in percent of requests)
    expire     the credentials that are out there are no longer good
    forget     {"what": "sessions" or "uploads"}
    uploads    the names of the uploads that are open
    marks      {"device": D, "offset": O}: before a request is answered its number is written there,
               as a mark of the kind "vod" (see `power_rig.rs`), and what is kept by then remembered
    rewind     {"to": N}: all is as it was at mark N; 0: as it was when marks began

and GET /__object/PATH gives stored bytes. `on` is an action's name or one of put, create, part,
complete, abort, head, get, uploads, parts. Kinds of faults: 500, busy (503), html (a captive
portal), redirect, cut (the connection breaks in the middle of the body), lost (done, but the
answer does not arrive), error-in-200, flip (a stored bit), no-crc, no-etag."""

import base64
import copy
import ctypes
import hashlib
import hmac
import json
import os
import random
import re
import socket
import sys
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree
from xml.sax.saxutils import escape

SECRET_ID, SECRET_KEY = sys.argv[2], sys.argv[3]
BUCKET, REGION = "box-vod-1250000000", "ap-guangzhou"
COS_HOST = f"{BUCKET}.cos.{REGION}.myqcloud.com"
MEDIA_TYPES = set("flv mp4 aac mp3 m3u8 ts m4a".split())
LZMA = ctypes.CDLL("liblzma.so.5")
LZMA.lzma_crc64.restype = ctypes.c_uint64
LZMA.lzma_crc64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]

LOCK = threading.Lock()
SETTINGS = {"skew_s": 0, "life_s": 7200, "repeat": "same", "chance": 0}
CHANCE = random.Random(7)
FAULTS, LOG, MEDIA = [], [], []
CERTIFICATES, SESSIONS, UPLOADS, OBJECTS = {}, {}, {}, {}
COUNTER = iter(range(1, 1 << 30))
KEPT = {"certificates": CERTIFICATES, "sessions": SESSIONS, "uploads": UPLOADS, "objects": OBJECTS}
# Where marks go, and what was kept at each.
MARKS, HISTORY = {}, []


class Refusal(Exception):
    """An answer that is no success."""

    def __init__(self, code, message="refused", status=400):
        super().__init__(code)
        self.code, self.message, self.status = code, message, status


def now():
    return int(time.time()) + SETTINGS["skew_s"]


def hmac_of(key, text, digest):
    return hmac.new(key, text.encode(), digest)


# The API -------------------------------------------------------------------------------------


def check_tc3(method, path, query, headers, body):
    given = re.fullmatch(
        r"TC3-HMAC-SHA256 Credential=([^/]+)/([^/]+)/vod/tc3_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})", headers.get("authorization", ""))
    if not given:
        raise Refusal("AuthFailure.InvalidAuthorization")
    secret_id, date, signed, signature = given.groups()
    if secret_id != SECRET_ID:
        raise Refusal("AuthFailure.SecretIdNotFound")
    timestamp = headers.get("x-tc-timestamp", "")
    if not timestamp.isdigit() or abs(now() - int(timestamp)) > 300:
        raise Refusal("AuthFailure.SignatureExpire", "the timestamp is too far from our clock")
    names = signed.split(";")
    if time.strftime("%Y-%m-%d", time.gmtime(int(timestamp))) != date or names != sorted(names) \
            or not {"content-type", "host"} <= set(names) or (method, path, query) != ("POST", "/", ""):
        raise Refusal("AuthFailure.SignatureFailure", "date, headers or request")
    block = "".join(f"{name}:{headers[name].strip().lower()}\n" for name in names)
    canonical = "\n".join([method, path, query, block, signed, hashlib.sha256(body).hexdigest()])
    to_sign = "\n".join(["TC3-HMAC-SHA256", timestamp, f"{date}/vod/tc3_request",
                         hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("TC3" + SECRET_KEY).encode()
    for text in (date, "vod", "tc3_request"):
        key = hmac_of(key, text, hashlib.sha256).digest()
    if not hmac.compare_digest(hmac_of(key, to_sign, hashlib.sha256).hexdigest(), signature):
        raise Refusal("AuthFailure.SignatureFailure", "another signature")


def apply_upload(asked):
    kinds = {"MediaType": str, "MediaName": str, "SubAppId": int, "ExpireTime": str, "ClassId": int,
             "Procedure": str, "SourceContext": str, "SessionContext": str, "StorageRegion": str}
    for name, value in asked.items():
        if name not in kinds:
            raise Refusal("UnknownParameter", name)
        if type(value) is not kinds[name]:
            raise Refusal("InvalidParameter", name)
    if asked.get("MediaType") not in MEDIA_TYPES:
        raise Refusal("InvalidParameterValue.MediaType")
    if len(asked.get("SourceContext", "")) > 250:
        raise Refusal("InvalidParameterValue", "SourceContext")
    expires = asked.get("ExpireTime", "9999-12-31T23:59:59Z")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", expires):
        raise Refusal("InvalidParameterValue.ExpireTime")
    number = next(COUNTER)
    file_id = str(3270000000000000000 + number)
    certificate = {"SecretId": f"AKIDTEMP{number}", "SecretKey": f"TEMPSECRET{number}",
                   "Token": f"TEMPTOKEN{number}", "ExpiredTime": now() + (SETTINGS["life_s"] or 0)}
    path = f"/6c0f1c00vodexample/{file_id}/f0.{asked['MediaType']}"
    key = base64.b64encode(f"session {number} of {file_id}".encode()).decode()
    if SETTINGS["life_s"] is None:
        own = {"SecretId": SECRET_ID, "SecretKey": SECRET_KEY, "Token": None, "ExpiredTime": 1 << 40}
        CERTIFICATES[SECRET_ID], certificate = dict(own, folder="/"), None
    else:
        folder = path.rsplit("/", 1)[0] + "/"
        CERTIFICATES[certificate["SecretId"]] = dict(certificate, folder=folder)
    SESSIONS[key] = {"file_id": file_id, "path": path, "asked": asked, "answer": None}
    return {"StorageBucket": BUCKET, "StorageRegion": REGION, "VodSessionKey": key,
            "MediaStoragePath": path, "CoverStoragePath": "", "TempCertificate": certificate}


def segments(manifest):
    if not manifest.startswith(b"#EXTM3U"):
        return []
    lines = [line.strip() for line in manifest.decode().splitlines()]
    maps = re.findall(r'#EXT-X-MAP:URI="([^"]+)"', manifest.decode())
    return maps + [line for line in lines if line and not line.startswith("#")]


def commit_upload(asked):
    session = SESSIONS.get(asked.get("VodSessionKey"))
    if session is None:
        raise Refusal("InvalidParameterValue.VodSessionKey")
    if session["asked"].get("SubAppId") != asked.get("SubAppId"):
        raise Refusal("InvalidParameterValue.SubAppId")
    if session["answer"]:
        if SETTINGS["repeat"] != "same":
            raise Refusal("InvalidParameterValue.VodSessionKey", "it was committed")
        return session["answer"]
    path = session["path"]
    folder = path.rsplit("/", 1)[0]
    wanted = [path]
    if path in OBJECTS and path.endswith(".m3u8"):
        wanted += [f"{folder}/{name}" for name in segments(OBJECTS[path])]
    missing = [name for name in wanted if name not in OBJECTS]
    if missing:
        raise Refusal("ResourceNotFound", f"{missing[0]} is not there")
    url = f"http://1250000000.vod2.example.com{path}"
    session["answer"] = {"FileId": session["file_id"], "MediaUrl": url, "CoverUrl": ""}
    MEDIA.append(dict(session["asked"], FileId=session["file_id"], MediaUrl=url,
                      Objects=wanted, Size=sum(len(OBJECTS[name]) for name in wanted)))
    return session["answer"]


def media_info(media):
    source = {"SourceType": "Upload", "SourceContext": media.get("SourceContext", "")}
    return {"FileId": media["FileId"], "MetaData": None, "BasicInfo": {
        "Name": media.get("MediaName", ""), "MediaUrl": media["MediaUrl"], "SourceInfo": source,
        "ClassId": media.get("ClassId", 0), "ExpireTime": media.get("ExpireTime", ""),
        "Type": media["MediaType"], "Category": "Video", "Status": "Normal"}}


def search_media(asked):
    offset, limit = asked.get("Offset", 0), asked.get("Limit", 10)
    prefixes = asked.get("NamePrefixes", [""])
    if offset + limit > 5000 or len(prefixes) > 10 or any(len(p) > 100 for p in prefixes):
        raise Refusal("InvalidParameterValue")
    found = [media for media in MEDIA if media.get("SubAppId") == asked.get("SubAppId")
             and media.get("MediaName", "").startswith(tuple(prefixes))]
    # What is newest is last in MEDIA.
    if asked.get("Sort", {"Order": "Asc"})["Order"] == "Desc":
        found.reverse()
    return {"TotalCount": min(len(found), 5000),
            "MediaInfoSet": [media_info(media) for media in found[offset:offset + limit]]}


def describe_media_infos(asked):
    known = {media["FileId"]: media for media in MEDIA}
    ids = asked.get("FileIds", [])
    if not 1 <= len(ids) <= 20:
        raise Refusal("InvalidParameterValue.FileIds")
    return {"MediaInfoSet": [media_info(known[i]) for i in ids if i in known],
            "NotExistFileIdSet": [i for i in ids if i not in known]}


def parse_manifest(asked):
    return {"MediaSegmentSet": segments(asked["MediaManifestContent"].encode())}


ACTIONS = {"ApplyUpload": apply_upload, "CommitUpload": commit_upload, "SearchMedia": search_media,
           "DescribeMediaInfos": describe_media_infos, "ParseStreamingManifest": parse_manifest}


# Object storage ------------------------------------------------------------------------------


def plain(text):
    return quote(text, safe="-_.~")


def listed(names, values):
    """The named ones in the form that is signed."""
    return "&".join(f"{name}={plain(values[unquote(name)])}" for name in names)


def check_cos(method, path, params, headers):
    parts = dict(part.partition("=")[::2] for part in headers.get("authorization", "").split("&"))
    certificate = CERTIFICATES.get(parts.get("q-ak"))
    if parts.get("q-sign-algorithm") != "sha1" or not certificate:
        raise Refusal("InvalidAccessKeyId", status=403)
    if headers.get("x-cos-security-token") != certificate["Token"]:
        raise Refusal("InvalidAccessKeyId", "no such token", 403)
    start, end = (int(second) for second in parts["q-key-time"].split(";"))
    if start > now() + 900:
        raise Refusal("RequestTimeTooSkewed", status=403)
    if parts["q-sign-time"] != parts["q-key-time"] or not start <= now() <= end:
        raise Refusal("AccessDenied", "Request has expired", 403)
    header_names = [name for name in parts["q-header-list"].split(";") if name]
    param_names = [name for name in parts["q-url-param-list"].split(";") if name]
    lower = {name.lower(): value for name, value in params.items()}
    wanted = {name for name in headers if name.startswith("x-cos-")} | {"host"}
    wanted |= {"content-length"} if "content-length" in headers else set()
    if not wanted <= set(header_names) or sorted(lower) != [unquote(n) for n in param_names] \
            or header_names != sorted(header_names):
        raise Refusal("SignatureDoesNotMatch", "not all is signed", 403)
    key = hmac_of(certificate["SecretKey"].encode(), parts["q-key-time"], hashlib.sha1).hexdigest()
    text = f"{method.lower()}\n{unquote(path)}\n{listed(param_names, lower)}\n" \
           f"{listed(header_names, headers)}\n"
    to_sign = f"sha1\n{parts['q-key-time']}\n{hashlib.sha1(text.encode()).hexdigest()}\n"
    signature = hmac_of(key.encode(), to_sign, hashlib.sha1).hexdigest()
    if not hmac.compare_digest(signature, parts["q-signature"]):
        raise Refusal("SignatureDoesNotMatch", status=403)
    if certificate["ExpiredTime"] <= now():
        raise Refusal("ExpiredToken", "the token has expired")
    if not path.startswith(certificate["folder"]) and path != "/":
        raise Refusal("AccessDenied", "not your folder", 403)


def crc64(data):
    return str(LZMA.lzma_crc64(data, len(data), 0))


def md5(data):
    return f'"{hashlib.md5(data).hexdigest()}"'


def xml(root, *elements):
    inner = "".join(f"<{tag}>{escape(str(text))}</{tag}>" for tag, text in elements)
    return f'<?xml version="1.0" encoding="UTF-8"?><{root}>{inner}</{root}>'.encode()


def store(path, data, etag):
    OBJECTS[path] = data
    return {"ETag": etag, "x-cos-hash-crc64ecma": crc64(data)}


def upload_of(params, path):
    upload = UPLOADS.get(params["uploadId"])
    if upload is None or upload["path"] != path:
        raise Refusal("NoSuchUpload", "the upload is not there", 404)
    return upload


def complete(params, path, body):
    upload = upload_of(params, path)
    tree = ElementTree.fromstring(body)
    asked = [(int(p.findtext("PartNumber")), p.findtext("ETag").strip('"')) for p in tree.iter("Part")]
    have = {number: hashlib.md5(data).hexdigest() for number, data in upload["parts"].items()}
    if not asked or [number for number, _ in asked] != sorted(number for number, _ in asked):
        raise Refusal("InvalidPartOrder")
    if any(have.get(number) != etag for number, etag in asked):
        raise Refusal("InvalidPart")
    if any(len(upload["parts"][number]) < 1 << 20 for number, _ in asked[:-1]):
        raise Refusal("EntityTooSmall")
    data = b"".join(upload["parts"][number] for number, _ in asked)
    digests = b"".join(bytes.fromhex(etag) for _, etag in asked)
    store(path, data, "")
    upload_etag = f'"{hashlib.md5(digests).hexdigest()}-{len(asked)}"'
    del UPLOADS[params["uploadId"]]
    return 200, {}, xml("CompleteMultipartUploadResult", ("Location", f"http://{COS_HOST}{path}"),
                        ("Bucket", BUCKET), ("Key", path[1:]), ("ETag", upload_etag))


def list_parts(params, path):
    parts = "".join(
        f"<Part><PartNumber>{n}</PartNumber><LastModified>2023-11-14T22:13:20.000Z</LastModified>"
        f"<ETag>{escape(md5(data))}</ETag><Size>{len(data)}</Size></Part>"
        for n, data in sorted(upload_of(params, path)["parts"].items()))
    body = xml("ListPartsResult", ("Bucket", BUCKET), ("Key", path[1:]),
               ("UploadId", params["uploadId"]), ("IsTruncated", "false"))
    return 200, {}, body.replace(b"</ListPartsResult>", f"{parts}</ListPartsResult>".encode())


def list_uploads(params):
    uploads = "".join(
        f"<Upload><Key>{upload['path'][1:]}</Key><UploadId>{name}</UploadId>"
        "<StorageClass>Standard</StorageClass><Initiated>2023-11-14T22:13:20.000Z</Initiated></Upload>"
        for name, upload in UPLOADS.items() if upload["path"][1:].startswith(params.get("prefix", "")))
    body = xml("ListMultipartUploadsResult", ("Bucket", BUCKET), ("IsTruncated", "false"))
    end = b"</ListMultipartUploadsResult>"
    return 200, {}, body.replace(end, uploads.encode() + end)


def on_object(on, path, params, body):
    """What a request to object storage does: status, headers, body."""
    if on == "put":
        return 200, store(path, body, md5(body)), b""
    if on == "create":
        name = f"1700000000EXAMPLE{next(COUNTER):04}"
        UPLOADS[name] = {"path": path, "parts": {}}
        return 200, {}, xml("InitiateMultipartUploadResult", ("Bucket", BUCKET),
                            ("Key", path[1:]), ("UploadId", name))
    if on == "part":
        upload_of(params, path)["parts"][int(params["partNumber"])] = body
        return 200, {"ETag": md5(body), "x-cos-hash-crc64ecma": crc64(body)}, b""
    if on == "complete":
        return complete(params, path, body)
    if on == "abort":
        upload_of(params, path)
        del UPLOADS[params["uploadId"]]
        return 204, {}, b""
    if on == "parts":
        return list_parts(params, path)
    if on == "uploads":
        return list_uploads(params)
    data = OBJECTS.get(path)
    if data is None:
        raise Refusal("NoSuchKey", status=404)
    return 200, {"ETag": md5(data), "x-cos-hash-crc64ecma": crc64(data)}, data


def kind_of(method, params):
    if method == "GET":
        return "uploads" if "uploads" in params else "parts" if "uploadId" in params else "get"
    if method == "PUT":
        return "part" if "partNumber" in params else "put"
    if method == "POST":
        return "create" if "uploads" in params else "complete"
    return {"DELETE": "abort", "HEAD": "head"}[method]


# The server ----------------------------------------------------------------------------------


def take_fault(on, part):
    for fault in FAULTS:
        if fault["on"] == on and fault.get("part") in (None, part):
            fault["times"] -= 1
            if fault["times"] <= 0:
                FAULTS.remove(fault)
            return fault["kind"]
    if CHANCE.random() * 100 < SETTINGS["chance"]:
        # What spoils a body is rarer: nothing can save what it costs.
        own = {"put": ["flip"], "part": ["flip"], "complete": ["error-in-200"]}
        often = ["500", "busy", "html", "redirect", "lost"] * 4
        return CHANCE.choice(often + ["cut"] + own.get(on, []))
    return None


def remember():
    HISTORY.append(copy.deepcopy((KEPT, MEDIA)))


def mark():
    if MARKS:
        block = b"edgemark" + b"vod".ljust(8, b"\0") + len(HISTORY).to_bytes(8, "little")
        remember()
        with open(MARKS["device"], "r+b", buffering=0) as device:
            os.pwrite(device.fileno(), block.ljust(4096, b"\0"), MARKS["offset"])


def rewind(number):
    kept, media = copy.deepcopy(HISTORY[number])
    for name, of in KEPT.items():
        of.clear()
        of.update(kept[name])
    MEDIA[:] = media
    MARKS.clear()
    LOG.clear()


def control(order):
    op = order["op"]
    if op == "fault":
        FAULTS.append(order)
    elif op == "clear":
        FAULTS.clear()
    elif op == "set":
        SETTINGS.update({name: value for name, value in order.items() if name != "op"})
    elif op == "expire":
        for certificate in CERTIFICATES.values():
            certificate["ExpiredTime"] = now() - 1
    elif op == "forget":
        (SESSIONS if order["what"] == "sessions" else UPLOADS).clear()
    elif op == "log":
        return LOG
    elif op == "requests":
        return len(LOG)
    elif op == "media":
        return MEDIA
    elif op == "namesakes":
        for _ in range(order["count"]):
            MEDIA.append(dict(MEDIA[-1], FileId=str(len(MEDIA)), SourceContext="of another"))
    elif op == "uploads":
        return list(UPLOADS)
    elif op == "marks":
        remember()
        MARKS.update({name: order[name] for name in ("device", "offset")})
    elif op == "rewind":
        rewind(order["to"])
    else:
        raise ValueError(op)
    return {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: each answer would wait 40 ms for a delayed acknowledgement.
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def date_time_string(self, timestamp=None):
        return formatdate(now(), usegmt=True)

    def answer(self, status, headers, body, length=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def cut(self):
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def serve(self):
        self.path, _, query = self.path.partition("?")
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length") or 0)
        if self.path == "/__control":
            with LOCK:
                told = control(json.loads(self.rfile.read(length)))
                return self.answer(200, {}, json.dumps(told).encode())
        if self.path.startswith("/__object/"):
            data = OBJECTS.get(self.path.removeprefix("/__object"))
            return self.answer(404 if data is None else 200, {}, data or b"")
        params = dict(parse_qsl(query, keep_blank_values=True))
        stored = headers.get("host", "").split(":")[0] == COS_HOST
        on = kind_of(self.command, params) if stored else headers.get("x-tc-action", "?")
        part = params.get("partNumber")
        with LOCK:
            fault = take_fault(on, part)
        if headers.get("expect"):
            # Who asks is refused before the body comes.
            if fault in ("500", "busy", "html", "redirect"):
                length, self.close_connection = 0, True
            else:
                self.send_response_only(100)
                self.end_headers()
        body = self.rfile.read(length // 2 if fault == "cut" else length)
        seen = {"on": on, "key": self.path, "part": part, "bytes": len(body), "status": 0, "code": "",
                "fault": fault}
        if fault == "cut" or len(body) < length:
            with LOCK:
                LOG.append(seen)
            return self.cut()
        with LOCK:
            act = self.on_storage if stored else self.on_api
            status, more, told = act(on, query, params, headers, body, fault, seen)
            seen["status"] = 0 if fault == "lost" else status
            LOG.append(seen)
            mark()
        if fault == "lost":
            return self.cut()
        return self.answer(status, more, told)

    def general_fault(self, fault):
        if fault == "500":
            return 500, {}, b"oops"
        if fault == "busy":
            return 503, {}, xml("Error", ("Code", "SlowDown"), ("Message", "slow down"))
        if fault == "html":
            return 200, {"Content-Type": "text/html"}, b"<html>please log in</html>"
        if fault == "redirect":
            return 302, {"Location": "http://198.51.100.1/"}, b""
        return None

    def on_api(self, on, query, params, headers, body, fault, seen):
        if known := self.general_fault(fault):
            return known
        try:
            check_tc3(self.command, self.path, query, headers, body)
            if headers.get("x-tc-version") != "2018-07-17":
                raise Refusal("InvalidParameter", "version")
            seen["asked"] = json.loads(body)
            if on not in ACTIONS:
                raise Refusal("InvalidAction")
            told = ACTIONS[on](seen["asked"])
        except Refusal as refusal:
            seen["code"] = refusal.code
            told = {"Error": {"Code": refusal.code, "Message": refusal.message}}
        told = {"Response": dict(told, RequestId=f"00000000-0000-4000-8000-{next(COUNTER):012}")}
        return 200, {"Content-Type": "application/json"}, json.dumps(told).encode()

    def on_storage(self, on, query, params, headers, body, fault, seen):
        base = {"x-cos-request-id": "REQIDEXAMPLE", "Content-Type": "application/xml"}
        if known := self.general_fault(fault):
            return known
        try:
            check_cos(self.command, self.path, params, headers)
            if fault == "error-in-200":
                raise Refusal("InternalError", "we failed", 200)
            if fault == "flip":
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1:]
            status, more, told = on_object(on, self.path, params, body)
            if fault == "no-crc":
                more.pop("x-cos-hash-crc64ecma", None)
            if fault == "no-etag":
                more["ETag"] = '"00112233445566778899aabbccddeeff"'
            return status, dict(base, **more), told
        except Refusal as refusal:
            seen["code"] = refusal.code
            told = xml("Error", ("Code", refusal.code), ("Message", refusal.message),
                       ("Resource", self.path), ("RequestId", "q"), ("TraceId", "t"))
            return refusal.status, base, told

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve


class Server(ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
print(json.dumps({"ready": server.server_port}), flush=True)
server.serve_forever()
