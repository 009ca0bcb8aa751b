"""A list of patches lies in S3 under the digest of its text, and nowhere else."""

from __future__ import annotations

import hashlib

import pytest

from patchwave.aws import lists
from patchwave.aws.gateway import Gateway
from patchwave.campaign import errors
from tests.gateway.conftest import CELL, Wire, session_with_keys

TEXT = "patches:\n- id: kernel.x86_64\n  title: kernel.x86_64:0:6.1.115-126.197.amzn2023\n"
KEY = f"patchwave-lists/{hashlib.sha256(TEXT.encode()).hexdigest()}.yaml"


def test_a_list_is_laid_down_in_one_call_under_the_digest_of_its_text(wire: Wire) -> None:
    """The same list has the same address whoever lays it down, and another one never replaces it."""
    request = {"Bucket": "acme-lists", "Key": KEY, "Body": TEXT.encode(), "ContentType": "application/yaml; charset=utf-8"}
    wire.expects("s3", "put_object", {}, request)
    assert wire.gateway.lay_down(CELL, "acme-lists", TEXT) == f"s3://acme-lists/{KEY}"
    assert dict(wire.gateway.calls) == {"s3:PutObject": 1}


def test_baselines_are_laid_down_beside_the_lists_as_json(wire: Wire) -> None:
    """The policies allow hosts and executor that folder and no other."""
    key = KEY.replace(".yaml", ".json")
    request = {"Bucket": "acme-lists", "Key": key, "Body": TEXT.encode(), "ContentType": "application/json; charset=utf-8"}
    wire.expects("s3", "put_object", {}, request)
    assert wire.gateway.lay_down_override(CELL, "acme-lists", TEXT) == f"s3://acme-lists/{key}"


def test_the_longest_address_fits_into_a_patch_report() -> None:
    """AWS keeps 256 characters of it."""
    assert len(lists.address("b" * 63, TEXT)) <= lists.LONGEST_ADDRESS


@pytest.mark.parametrize("bucket", ["", "ab", "Acme", "acme/lists", "-acme", "a" * 64, "arn:aws:s3:::acme"])
def test_what_is_no_bucket_is_refused_before_the_call(wire: Wire, bucket: str) -> None:
    """The connection's extra is typed by people."""
    with pytest.raises(errors.InvalidRequest, match="is no S3 bucket; allowed are"):
        wire.gateway.lay_down(CELL, bucket, TEXT)


def test_a_bucket_that_may_not_be_written_is_access_denied(wire: Wire) -> None:
    """Then nothing is installed."""
    wire.refuses("s3", "put_object", "AccessDenied", status=403)
    with pytest.raises(errors.AccessDenied):
        wire.gateway.lay_down(CELL, "acme-lists", TEXT)


def test_a_bucket_that_does_not_exist_is_an_invalid_request(wire: Wire) -> None:
    """It is no better a minute later."""
    wire.refuses("s3", "put_object", "NoSuchBucket", status=404)
    with pytest.raises(errors.InvalidRequest, match="NoSuchBucket"):
        wire.gateway.lay_down(CELL, "acme-lists", TEXT)


def test_the_bucket_is_named_in_the_path_and_not_in_front_of_the_host() -> None:
    """``acme-lists.awsim`` is nobody, and a simulator's or a proxy's host may have any name."""
    client = Gateway(session_with_keys, endpoint_url="http://awsim:5005").client(CELL, "s3", repeats=True)
    url = client.generate_presigned_url("put_object", Params={"Bucket": "acme-lists", "Key": KEY})
    assert url.startswith(f"http://awsim:5005/acme-lists/{KEY}?")
