"""Writing at s3://BUCKET/FOLDER: an object is there whole or not at all, and names the SHA-256 of its bytes.

Every call is one attempt. Whether a condition is kept is up to the store: Amazon's does since the end of 2024.
"""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import md5
from typing import Any

from studio.core.errors import CheckpointError, ExportError
from studio.core.stores.s3 import DIGEST, S3Store, judged, status_of
from studio.core.stores.store import ConditionFailedError, TryAgainError

_LOGIN = "botocore finds no credentials that may write there: see `aws configure`, AWS_PROFILE"


class S3Target(S3Store):
    """A folder of a bucket to write into. Every call raises TryAgainError, ConditionFailedError or ExportError."""

    def put(self, name: str, data: bytes, digest: str, *, new: bool = False, instead_of: str = "") -> str:
        """Put an object, `new` if there is none, or only `instead_of` that of this tag; returns its tag."""
        condition = {"IfNoneMatch": "*"} if new else {"IfMatch": instead_of} if instead_of else {}
        asked = {"Body": data, "ContentMD5": _md5(data), "Metadata": {DIGEST: digest}, **condition}
        return str(self._asked("put_object", name, **asked)["ETag"])

    def begin_upload(self, name: str, digest: str) -> str:
        """An upload in parts, which is not seen before it is finished; returns its name."""
        return str(self._asked("create_multipart_upload", name, Metadata={DIGEST: digest})["UploadId"])

    def put_part(self, name: str, upload: str, number: int, data: bytes) -> str:
        """Put a part of an upload, numbered from 1; returns its tag."""
        asked = {"UploadId": upload, "PartNumber": number, "Body": data, "ContentMD5": _md5(data)}
        return str(self._asked("upload_part", name, **asked)["ETag"])

    def finish_upload(self, name: str, upload: str, tags: Sequence[str], *, new: bool = False) -> None:
        """Let the object appear, `new` if there is none; raises ConditionFailedError when the upload is gone."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(tags, 1)]
        asked = {"UploadId": upload, "MultipartUpload": {"Parts": parts}, **({"IfNoneMatch": "*"} if new else {})}
        self._asked("complete_multipart_upload", name, **asked)

    def uploads(self) -> list[tuple[str, str]]:
        """The uploads below this folder that were not finished: (name, upload)."""
        told = self._asked("list_multipart_uploads", "", Prefix=self._prefix)
        return [(one["Key"].removeprefix(self._prefix), one["UploadId"]) for one in told.get("Uploads", [])]

    def abandon_upload(self, name: str, upload: str) -> None:
        """Forget the parts of an upload; raises ConditionFailedError when it is gone."""
        self._asked("abort_multipart_upload", name, UploadId=upload)

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        self._asked("delete_object", name)

    def _asked(self, method: str, name: str, **asked: Any) -> Any:
        key = {"Key": self._prefix + name} if name else {}
        try:
            return self._raw(method, **key, **asked)
        except Exception as error:
            raise _refusal(error, self._shown(name) if name else self.url) from None


def _md5(data: bytes) -> str:
    """What lets the store notice that bytes were damaged on the way."""
    return b64encode(md5(data, usedforsecurity=False).digest()).decode()


def _refusal(error: Exception, shown: str) -> Exception:
    status, response = status_of(error), getattr(error, "response", None) or {}
    if status == 412 or response.get("Error", {}).get("Code") in ("NoSuchUpload", "NoSuchKey"):
        return ConditionFailedError(shown)
    if status == 409:
        return TryAgainError("HTTP 409: another request writes the same file")
    if status in (401, 403):
        return ExportError(f"the store refuses to take it (HTTP {status})", file=shown, hint=_LOGIN)
    if status == 404:
        return ExportError("there is no such bucket", file=shown, hint="make it first, or check the spelling")
    if status == 501:
        what = "the store can not do what keeps two writers apart (HTTP 501)"
        return ExportError(what, file=shown, hint="write a folder, and copy that")
    found = judged(error, shown)
    if isinstance(found, CheckpointError):
        return ExportError(found.what, file=shown, hint="" if status else found.hint)
    return found
