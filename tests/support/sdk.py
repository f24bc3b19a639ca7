"""Calls the cloud's API through its official SDK, as a program written for the cloud does.

Each line of stdin is a call: a JSON object with `service`, `action`, `parameters`, `endpoint`,
`secret_id`, `secret_key`, `token`, `sign_method`, `req_method`, `unsigned_payload` and `typed`.
Each line of stdout is its answer: `{"response": …}`, or for the SDK's own exception `{"raised":
{"code", "message", "request_id"}}`.

A parameter that the SDK does not know ends the driver, as the SDK would leave it out; with `typed`
false the call goes past the SDK's models, which is how an action or a parameter is sent that the
cloud does not have. An answer that takes longer than TIMEOUT_S is an exception.
"""

import json
import os
import sys
import warnings

from tencentcloud.common import credential
from tencentcloud.common.exception.tencent_cloud_sdk_exception import TencentCloudSDKException
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.live.v20180801 import live_client
from tencentcloud.live.v20180801 import models as live_models
from tencentcloud.vod.v20180717 import models as vod_models
from tencentcloud.vod.v20180717 import vod_client

TIMEOUT_S = 20

SERVICES = {
    "live": (live_client.LiveClient, live_models),
    "vod": (vod_client.VodClient, vod_models),
}


def client_of(call):
    """The client of a service: only its endpoint and scheme are not the cloud's."""
    make, _ = SERVICES[call["service"]]
    http = HttpProfile(
        protocol="http",
        endpoint=call["endpoint"],
        reqMethod=call["req_method"],
        reqTimeout=TIMEOUT_S,
    )
    keys = credential.Credential(call["secret_id"], call["secret_key"], call["token"] or None)
    profile = ClientProfile(signMethod=call["sign_method"], httpProfile=http)
    profile.unsignedPayload = call["unsigned_payload"]
    return make(keys, "", profile)


def answer(call):
    """The members of the answer, with null for those that did not come."""
    client = client_of(call)
    if not call["typed"]:
        return client.call_json(call["action"], call["parameters"])["Response"]
    _, models = SERVICES[call["service"]]
    request = getattr(models, call["action"] + "Request")()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        request.from_json_string(json.dumps(call["parameters"]))
    response = getattr(client, call["action"])(request)
    return json.loads(response.to_json_string())


def main():
    for line in sys.stdin:
        try:
            told = {"response": answer(json.loads(line))}
        except TencentCloudSDKException as error:
            raised = {"code": error.get_code(), "message": error.get_message()}
            told = {"raised": {**raised, "request_id": error.get_request_id()}}
        print(json.dumps(told), flush=True)


# The box is asked itself, whatever proxy this machine has.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "*"
# What the box tells beyond the cloud's members is left out by the SDK, with a warning.
warnings.simplefilter("ignore")
main()
