"""A client of an S3-like service that reads its credentials itself, as SDKs do: s3_client.py URL put|get FILE."""
import configparser
import datetime
import hashlib
import hmac
import os
import sys
import urllib.request

url, what, name = sys.argv[1:4]
profile = configparser.ConfigParser()
profile.read(os.path.expanduser("~/.aws/credentials"))
key, secret = (profile["default"]["aws_" + k] for k in ("access_key_id", "secret_access_key"))
data = open(name, "rb").read() if what == "put" else b""
now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
host, path, payload = url.split("//")[1], "/bucket/" + name, hashlib.sha256(data).hexdigest()
method = what.upper()
signed = f"host:{host}\nx-amz-content-sha256:{payload}\nx-amz-date:{now}\n"
names = "host;x-amz-content-sha256;x-amz-date"
canonical = hashlib.sha256(f"{method}\n{path}\n\n{signed}\n{names}\n{payload}".encode()).hexdigest()
scope = f"{now[:8]}/us-east-1/s3/aws4_request"
signing = ("AWS4" + secret).encode()
for part in (now[:8], "us-east-1", "s3", "aws4_request"):
    signing = hmac.digest(signing, part.encode(), "sha256")
signature = hmac.digest(signing, f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{canonical}".encode(), "sha256").hex()
request = urllib.request.Request(url + path, data or None, method=method)
request.add_header("x-amz-date", now)
request.add_header("x-amz-content-sha256", payload)
request.add_header(
    "Authorization", f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
)
sys.stdout.buffer.write(urllib.request.urlopen(request).read())
