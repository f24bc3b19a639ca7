"""The official upload SDK, pointed at a stand-in: uploads one file or playlist and prints what it
got, or what it raised.

Usage: vod_sdk.py PORT SECRET_ID SECRET_KEY PATH REQUEST, REQUEST being JSON of its fields."""

import json
import sys

import qcloud_vod.vod_upload_client as client_module
from qcloud_cos import CosConfig
from qcloud_vod.model import VodUploadRequest
from tencentcloud.common.profile.client_profile import ClientProfile
from tencentcloud.common.profile.http_profile import HttpProfile
from tencentcloud.vod.v20180717 import vod_client

PORT, SECRET_ID, SECRET_KEY, PATH, REQUEST = sys.argv[1:]


def cos_config(**settings):
    return CosConfig(IP="127.0.0.1", Port=PORT, Scheme="http", **settings)


class ApiClient(vod_client.VodClient):
    def __init__(self, credential, region):
        http = HttpProfile(protocol="http", endpoint=f"127.0.0.1:{PORT}")
        super().__init__(credential, region, ClientProfile(httpProfile=http))


client_module.CosConfig = cos_config
client_module.vod_client.VodClient = ApiClient
request = VodUploadRequest()
for name, value in json.loads(REQUEST).items():
    setattr(request, name, value)
request.MediaFilePath = PATH
try:
    told = client_module.VodUploadClient(SECRET_ID, SECRET_KEY).upload("ap-guangzhou", request)
    print(json.dumps({"FileId": told.FileId, "MediaUrl": told.MediaUrl}))
except Exception as raised:
    print(json.dumps({"raised": str(raised)}))
