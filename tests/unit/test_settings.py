"""Settings: every problem at once, no secret shown, nothing silently ignored."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import settings
from bridge.errors import SettingsError, UsageError
from bridge.settings import Settings, load, shown, unknown_variables, without_password


def test_nothing_set_gives_the_documented_defaults() -> None:
    loaded = load()
    assert loaded == Settings()
    assert loaded.redis_url == "redis://127.0.0.1:6379/0"
    assert (loaded.namespace, loaded.partitions, loaded.group) == ("nbcmd", 16, "default")
    assert loaded.all_callback_paths == ("/v1.0.0/messageReceiver/cmd", "/v1.0.0/messageReceiver")


def test_values_are_read_in_their_types(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "PARTITIONS": " 4 ",
        "GRACE_S": "2.5",
        "TOKENS": "one, two",
        "ALLOWED_NETWORKS": "192.0.2.0/24,2001:db8::/32",
        "TLS_CERT": "~/cert.pem",
        "TLS_KEY": "/key.pem",
        "REDIS_URL": "redis+sentinel://a:26379,b:26379/main/0",
    }.items():
        monkeypatch.setenv(f"NB_BRIDGE_{name}", value)
    loaded = load()
    assert loaded.partitions == 4
    assert loaded.grace_s == 2.5
    assert loaded.tokens == ("one", "two")
    assert loaded.allowed_networks == (
        ipaddress.ip_network("192.0.2.0/24"),
        ipaddress.ip_network("2001:db8::/32"),
    )
    assert loaded.tls_cert == Path.home() / "cert.pem"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PARTITIONS", "0"),
        ("PARTITIONS", "many"),
        ("PORT", "65536"),
        ("NAMESPACE", "a b"),
        ("GROUP", "{x}"),
        ("REDIS_URL", "http://127.0.0.1"),
        ("REDIS_URL", "redis://127.0.0.1:notaport"),
        ("REDIS_URL", "unix://"),
        ("LATE", "sometimes"),
        ("LOG_LEVEL", "loud"),
        ("ALLOWED_NETWORKS", "192.0.2.1/24"),
        ("CALLBACK_PATHS", "no-slash"),
        ("CALLBACK_PATHS", "/a?b=c"),
        ("CALLBACK_PATHS", "/a/{b}c"),
        ("CALLBACK_PATHS", "/a/{}"),
        ("CALLBACK_PATHS", "/{a}/{a}"),
        ("CALLBACK_PATHS", "/{a b}"),
        ("KEEP_HEADERS", "X-A, not a header"),
        ("KEEP_HEADERS", "X-A,"),
        ("HEALTH_PATH", "health"),
        ("HEALTH_PATH", "/{a}"),
        ("HEALTH_PATH", "/v1.0.0/messageReceiver"),
        ("HEALTH_PATH", "//v1.0.0/messageReceiver/cmd/"),
        ("BASIC_CREDENTIALS", "no-colon"),
        ("TOKENS", "a,,b"),
        ("GRACE_S", "nan"),
        ("BACKOFF_BASE_S", "inf"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"NB_BRIDGE_{name}", value)
    with pytest.raises(SettingsError, match=f"NB_BRIDGE_{name} "):
        load()


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"PORT": "x", "GROUP": "a b", "LATE": "no", "PARTITIONS": "tcp://10.0.0.1:80"}
    for name, value in wrong.items():
        monkeypatch.setenv(f"NB_BRIDGE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert len(caught.value.problems) == len(wrong)
    for name in wrong:
        assert f"NB_BRIDGE_{name} " in str(caught.value)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"TLS_CERT": "/c.pem"}, "TLS_KEY"),
        ({"TLS_KEY": "/k.pem"}, "TLS_CERT"),
        ({"TLS_CLIENT_CA": "/ca.pem"}, "TLS_CERT"),
        ({"PROXY_PROTOCOL": "on"}, "TRUSTED_PROXIES"),
        ({"CALLBACK_PATHS": "/iot/{tenant}", "HEALTH_PATH": "/iot/health"}, "HEALTH_PATH"),
        ({"BACKOFF_BASE_S": "10", "BACKOFF_MAX_S": "5"}, "BACKOFF_MAX_S"),
    ],
)
def test_contradictions_are_told(
    values: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"NB_BRIDGE_{name}", value)
    with pytest.raises(SettingsError, match=f"NB_BRIDGE_{told}"):
        load()


def test_what_kubernetes_injects_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NB_BRIDGE_PORT", "tcp://10.0.0.1:8080")
    with pytest.raises(SettingsError, match="enableServiceLinks"):
        load()


def test_a_secret_may_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tokens").write_text("hush-1,hush-2\n")
    monkeypatch.setenv("NB_BRIDGE_TOKENS_FILE", str(tmp_path / "tokens"))
    assert load().tokens == ("hush-1", "hush-2")


def test_a_file_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_TOKENS_FILE", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match="NB_BRIDGE_TOKENS_FILE"):
        load()


@pytest.mark.parametrize("value", ["hush", "hush:hush"])
@pytest.mark.parametrize("name", ["TOKENS", "BASIC_CREDENTIALS", "SECRET_HEADERS"])
def test_no_error_and_no_repr_shows_a_secret(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_PORT", "x")
    monkeypatch.setenv(f"NB_BRIDGE_{name}", value)
    with pytest.raises(SettingsError) as caught:
        load()
    assert "hush" not in str(caught.value)
    monkeypatch.delenv("NB_BRIDGE_PORT")
    if ":" in value or name == "TOKENS":
        assert "hush" not in repr(load())


@pytest.mark.parametrize(
    "url",
    [
        "tcp://:hush@redis.example:6379",
        "redis://:12/hush@redis.example/0",
        "redis+sentinel://:12/hush@redis.example/mymaster",
        "redis+cluster://:12#hush@redis.example",
    ],
)
def test_no_error_shows_the_password_of_a_redis_url(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_REDIS_URL", url)
    with pytest.raises(SettingsError, match=r"^NB_BRIDGE_REDIS_URL ") as caught:
        load()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:123456xxx#@redis.example:6379/0", "# in it: write # as %23"),
        ("redis://:12/hush@redis.example/0", "/ in it: write / as %2F"),
        ("redis://u:hush?x@redis.example/0", "? in it: write ? as %3F"),
        ("redis://u:hu#s/h@redis.example/0", "write / as %2F and # as %23"),
        ("redis://u:hu[sh@redis.example/0", "write [ as %5B"),
        ("unix://u:hu#sh@/run/redis.sock", "write # as %23"),
    ],
)
def test_a_character_that_a_password_may_not_have_is_named(
    url: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_REDIS_URL", url)
    with pytest.raises(SettingsError, match=re.escape(told)) as caught:
        load()
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:p%23@redis.example:6379/0",
        "redis://u:p@ss@redis.example:6379/0",
        "redis+sentinel://a:1,b:2/main?sentinel_password=a@b",
        "redis+sentinel://u:p@a:1,[::1]:2/main?sentinel_password=a/b@c",
        "rediss://h?ssl_ca_certs=/etc/a@b/ca.pem",
        "unix:///run/a@b/redis.sock?db=1",
        "unix://u:p@/run/redis.sock",
    ],
)
def test_an_at_sign_elsewhere_is_no_sign_of_a_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NB_BRIDGE_REDIS_URL", url)
    assert load().redis_url == url


def test_unknown_variables_are_warned_of_with_the_nearest_name() -> None:
    environ = {
        "NB_BRIDGE_REDIS_ULR": "",
        "NB_BRIDGE_XYZZY": "",
        "NB_BRIDGE_TOKENS_FILE": "",
        "NB_BRIDGE_SERVICE_HOST": "",
        "NB_BRIDGE_PORT_8080_TCP_ADDR": "",
        "PATH": "",
    }
    assert unknown_variables(environ) == [
        "NB_BRIDGE_REDIS_ULR is not a setting; did you mean NB_BRIDGE_REDIS_URL?",
        "NB_BRIDGE_XYZZY is not a setting",
    ]


def test_shown_tells_value_default_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "group").write_text("audit")
    environ = {
        "NB_BRIDGE_PARTITIONS": "4",
        "NB_BRIDGE_GROUP_FILE": str(tmp_path / "group"),
        "NB_BRIDGE_TOKENS": "hush",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    rows = {row.name: row for row in shown(load(), environ)}
    assert rows.keys() == {spec.name for spec in dataclasses.fields(Settings)}
    partitions, group = rows["partitions"], rows["group"]
    assert (partitions.value, partitions.default, partitions.source) == (4, 16, "environment")
    assert (group.value, group.source) == ("audit", "file")
    assert rows["namespace"].source == "default"
    assert "hush" not in str(rows["tokens"])


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://user:hush@redis.example:6380/1", "rediss://***@redis.example:6380/1"),
        ("redis://:hu@sh@a/0", "redis://***@a/0"),
        ("redis://a/0?password=hush", "redis://a/0"),
        ("redis+sentinel://:hu/sh@a/primary", "redis+sentinel://***"),
        ("redis+sentinel://:hu?sh@a/primary", "redis+sentinel://***"),
        ("redis+cluster://:hu#sh@a", "redis+cluster://***"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, safe: str) -> None:
    assert without_password(url) == safe


def test_state_goes_where_systemd_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/nb-bridge:/other")
    assert load().spool_path == Path("/var/lib/nb-bridge/spool")
    monkeypatch.delenv("STATE_DIRECTORY")
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert settings.default_state_dir() == Path("/state/nb-bridge")


# What the environment can hold: no zeros, and bytes that are not UTF-8 as lone surrogates.
raw_values = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
likely_values = st.sampled_from(
    [
        "1", "0", "-1", "1e999", "nan", "inf", "²", "٣", " 4 ", ",", "a,b", "a:b,", "/a,/b", "/",
        "~", "~nobody-has-this-name/x", "tcp://10.0.0.1:80", "::1/128", "1.2.3.4/33", "json",
        "redis://", "redis://[", "redis://a:b", "redis+cluster://a:²", "unix://x",
    ]
)  # fmt: skip
names = st.sampled_from([spec.name.upper() for spec in dataclasses.fields(Settings)])


@given(st.dictionaries(names, raw_values | likely_values, max_size=4))
@example({"SPOOL_DIR": "~nobody-has-this-name/spool"})
@example({"RECEIVER_FILE": "/nowhere"})
@example({"TOKENS_FILE": "/"})
def test_whatever_is_set_is_settings_or_a_settings_error(environ: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(f"NB_BRIDGE_{name}", value)
        try:
            loaded = load()
        except SettingsError:
            return
    assert isinstance(loaded, Settings)


def test_bodies_are_no_longer_than_the_spool_can_keep(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert settings.load().max_body_bytes == 2**20
    monkeypatch.setenv("NB_BRIDGE_SPOOL_MAX_BYTES", str(2**20))
    assert settings.load().max_body_bytes == 2**19
    monkeypatch.setenv("NB_BRIDGE_MAX_BODY_BYTES", str(2**19 + 1))
    with pytest.raises(SettingsError, match="SPOOL_MAX_BYTES must be at least twice"):
        settings.load()


ACCESS = ("TOKENS", "BASIC_CREDENTIALS", "SECRET_HEADERS", "ALLOWED_NETWORKS")


@pytest.mark.parametrize("name", ACCESS)
@pytest.mark.parametrize("text", ["", "\n", "  "])
def test_access_that_is_set_but_empty_is_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"NB_BRIDGE_{name}", text)
    with pytest.raises(SettingsError, match=f"NB_BRIDGE_{name} is set, but empty"):
        load()
    monkeypatch.delenv(f"NB_BRIDGE_{name}")
    (tmp_path / "file").write_text(text)
    monkeypatch.setenv(f"NB_BRIDGE_{name}_FILE", str(tmp_path / "file"))
    with pytest.raises(SettingsError, match=f"NB_BRIDGE_{name} is set, but empty"):
        load()


@pytest.mark.parametrize("name", ["BASIC_CREDENTIALS", "SECRET_HEADERS"])
@pytest.mark.parametrize("text", ["X-Key:", ":secret", ":", "a:b,c:", "a:b\n c: "])
def test_a_name_or_a_secret_that_is_empty_is_refused(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"NB_BRIDGE_{name}", text)
    with pytest.raises(SettingsError, match="has an empty name or secret"):
        load()


def test_lines_and_commas_both_separate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("aaa\nbbb, ccc\n\nddd\n")
    monkeypatch.setenv("NB_BRIDGE_TOKENS_FILE", str(tmp_path / "tokens"))
    monkeypatch.setenv("NB_BRIDGE_ALLOWED_NETWORKS", "192.0.2.0/24\n::ffff:198.51.100.0/120")
    assert load().tokens == ("aaa", "bbb", "ccc", "ddd")
    assert [str(network) for network in load().allowed_networks] == [
        "192.0.2.0/24",
        "198.51.100.0/24",
    ]


def test_a_file_that_is_not_text_is_told_with_its_setting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_bytes(b"\xff\xfe")
    monkeypatch.setenv("NB_BRIDGE_TOKENS_FILE", str(tmp_path / "tokens"))
    with pytest.raises(SettingsError, match=r"NB_BRIDGE_TOKENS_FILE .*tokens is not UTF-8"):
        load()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody_knows() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody_knows)
    for name in ("XDG_STATE_HOME", "STATE_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="set NB_BRIDGE_SPOOL_DIR"):
        _ = Settings().spool_path
