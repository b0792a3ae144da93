"""Passwords and tokens in addresses are used and nowhere shown."""

import pytest

from study import redaction
from study.errors import first_line
from study.redaction import completed, has_secrets, is_ambiguous, kept, redacted, without_secrets

PW = "s3cr3t-Marker"

WITH_SECRETS = {
    f"http://user:{PW}@host:5000": "http://host:5000",
    f"https://user:{PW}@host/prefix/": "https://host/prefix/",
    f"https://{PW}@host": "https://host",
    f"https://:{PW}@host": "https://host",
    f"http://user:{PW}@[::1]:5000": "http://[::1]:5000",
    f"http://user:{PW}%40%2F@host": "http://host",
    f"http://user:p@{PW}@host": "http://host",
    f"http://user:p/{PW}@host": "http://host",
    f"http://user:p?{PW}@host": "http://host",
    f"http://user:p#{PW}@host": "http://host",
    f"http://user:{PW}": "http://user",
    f"http://user:{PW}@host:{PW}": "http://host",
    f"HTTP://user:{PW}@host": "HTTP://host",
    f"http://host:5000?token={PW}": "http://host:5000",
    f"http://host:5000/a?x=1&access_token={PW}&y=2": "http://host:5000/a?x=1&y=2",
    f"http://host/#token={PW}": "http://host/",
    f"postgresql://study:{PW}@db:5432/mlflow": "postgresql://study@db:5432/mlflow",
    f"postgresql+psycopg2://study:{PW}@db/mlflow": "postgresql+psycopg2://study@db/mlflow",
    f"postgresql://db/mlflow?user=study&password={PW}": "postgresql://db/mlflow?user=study",
    f"postgresql:///mlflow?host=/run&password={PW}": "postgresql:///mlflow?host=/run",
    f"postgresql://study@db/mlflow?sslkey=client.key&sslpassword={PW}": "postgresql://study@db/mlflow?sslkey=client.key",
    f"mysql+pymysql://study:{PW}@db/mlflow?charset=utf8": "mysql+pymysql://study@db/mlflow?charset=utf8",
    f"mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BUID%3Du%3BPWD%3D{PW}": "mssql+pyodbc:///",
    f"sqlite+pysqlcipher://:{PW}@/a.db?cipher=x": "sqlite+pysqlcipher:///a.db?cipher=x",
    f"s3://KEY:{PW}@bucket/prefix": "s3://bucket/prefix",
    f"s3://bucket/prefix?region=eu&secret_key={PW}": "s3://bucket/prefix?region=eu",
    f"gs://bucket/x?access_token={PW}&retry_limit=3": "gs://bucket/x?retry_limit=3",
    f"ray://user:{PW}@head:10001": "ray://head:10001",
}

WITHOUT = [
    "sqlite:///mlflow.db",
    "sqlite:////srv/me@work/a b/mlflow.db",
    "sqlite:////x/what?token=1&password=2/mlflow.db",
    "http://localhost:5000",
    "https://host/prefix@v2/",
    "http://[::1]:5000/",
    "http://[::1",
    "postgresql+psycopg2://study@127.0.0.1:5432/mlflow",
    "postgresql:///mlflow",
    "s3://bucket/prefix@2?endpoint_override=http://minio:9000",
    "study-results/mlflow.db",
    "auto",
    "",
]


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    """Nothing is remembered from one test to the next."""
    for name, empty in (("_given", {}), ("_recorded", {}), ("_secrets", set())):
        monkeypatch.setattr(redaction, name, empty)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.mark.parametrize("address", WITH_SECRETS)
def test_secrets_are_taken_out_of_an_address(address):
    assert without_secrets(address) == without_secrets(WITH_SECRETS[address]) == WITH_SECRETS[address]
    assert has_secrets(address)


@pytest.mark.parametrize("address", WITHOUT)
def test_an_address_without_secrets_stays_as_it_is(address):
    assert without_secrets(address) == address
    assert not is_ambiguous(address)
    assert redacted(f"MLflow at {address} refuses: no.") == f"MLflow at {address} refuses: no."


@pytest.mark.parametrize("address", WITH_SECRETS)
@pytest.mark.parametrize(
    "frame", ["{}", "MLflow at {} refuses: no.", "{!r} is no store.", "see ({}), or `{}`.", '{{"uri": "{}"}}']
)
def test_no_secret_of_an_address_is_in_a_text(address, frame):
    text = redacted(frame.format(address, address))
    assert PW not in text
    assert WITH_SECRETS[address].rstrip("/") in text


def test_text_around_an_address_stays():
    assert redacted(f"('http://u:{PW}@h:1', it's 'x')") == "('http://h:1', it's 'x')"
    assert redacted(f"at http://u:{PW}@h, then mail me@work") == "at http://h, then mail me@work"


@pytest.mark.parametrize("address", WITH_SECRETS)
def test_a_secret_is_remembered_for_connecting_alone(address):
    clean = kept(address)
    assert clean == WITH_SECRETS[address]
    assert completed(clean) == address
    assert PW not in first_line(ValueError(f"API request to {address}/api failed"))


@pytest.mark.parametrize("address", [f"http://u:{PW}@h", "http://u:s3cr3t%2DMarker@h", f"http://h?token={PW}"])
def test_a_remembered_secret_is_hidden_outside_of_addresses_too(address):
    kept(address)
    assert redacted(f"password authentication failed ({PW})") == "password authentication failed (***)"


def test_words_that_only_contain_a_short_secret_stay():
    kept("http://u:sgd@h")
    kept("http://u:data@h")
    assert redacted("sgd on dataset, data") == "sgd on dataset, ***"


def test_what_the_user_gives_goes_before_the_environment_and_that_before_a_log(monkeypatch):
    address = "postgresql://study@db/mlflow"
    assert completed(address) == address
    kept("postgresql://study:first@db/mlflow", recorded=True)
    kept("postgresql://study:later@db/mlflow", recorded=True)
    assert completed(address) == "postgresql://study:later@db/mlflow"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://study:env@db/mlflow")
    assert completed(address) == "postgresql://study:env@db/mlflow"
    assert completed("postgresql://study@other/mlflow") == "postgresql://study@other/mlflow"
    kept("postgresql://study:now@db/mlflow")
    kept("postgresql://study:later@db/mlflow", recorded=True)
    assert completed(address) == "postgresql://study:now@db/mlflow"


@pytest.mark.parametrize("password", ["p@w", "p/w", "p?w", "p#w", "p@/w"])
def test_a_password_that_must_be_quoted_is_noticed(password):
    assert is_ambiguous(f"http://user:{password}@host")
    assert not is_ambiguous("http://user:p%40w@host/prefix")
