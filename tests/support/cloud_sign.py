"""Signs requests of the cloud API by the contract's own words, with nothing of the box.

Usage: cloud_sign.py tc3 JSON, prints the Authorization header; JSON has id, key, service, time,
method, query, host, content_type and body. cloud_sign.py v1 JSON, prints the query or form; JSON
has key, method, host, path and params, with SignatureMethod among them unless it is HmacSHA1.
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys
import urllib.parse


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


def tc3(ask):
    canonical = "\n".join([
        ask["method"], "/", ask["query"],
        "content-type:" + ask["content_type"], "host:" + ask["host"], "",
        "content-type;host", sha256(ask["body"]),
    ])
    moment = datetime.datetime.fromtimestamp(ask["time"], datetime.timezone.utc)
    date = moment.strftime("%Y-%m-%d")
    scope = f"{date}/{ask['service']}/tc3_request"
    text = "\n".join(["TC3-HMAC-SHA256", str(ask["time"]), scope, sha256(canonical)])
    key = ("TC3" + ask["key"]).encode()
    for part in (date, ask["service"], "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    return (f"TC3-HMAC-SHA256 Credential={ask['id']}/{scope}, "
            f"SignedHeaders=content-type;host, Signature={signature}")


def v1(ask):
    params = dict(ask["params"])
    pairs = "&".join(f"{name}={params[name]}" for name in sorted(params))
    text = f"{ask['method']}{ask['host']}{ask['path']}?{pairs}"
    digest = {"HmacSHA1": hashlib.sha1, "HmacSHA256": hashlib.sha256}
    digest = digest[params.get("SignatureMethod", "HmacSHA1")]
    made = hmac.new(ask["key"].encode(), text.encode(), digest).digest()
    params["Signature"] = base64.b64encode(made).decode()
    return urllib.parse.urlencode(params)


print({"tc3": tc3, "v1": v1}[sys.argv[1]](json.loads(sys.argv[2])))
