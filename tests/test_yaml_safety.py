from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cerebro.errors import ConfigError
from cerebro.yaml_safety import check_yaml

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(12)
)


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: {c: 2, d: [1, 2, {e: 1e-3}]}\n",
        "a: 'nan'\nb: nano\nc: .info\n",
        "b: &q {s: 1}\nc:\n  <<: *q\n  t: 2\n",
        "a: {x: 1}\nb: {x: 1}\n",
        "a:\n- x: 1\n  y: 2\n- x: 1\n",
    ],
)
def test_plain_configs_pass(tmp_path, text):
    check_yaml(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "line 5: found more than 100,000 values"),
        ("a: 1\nb: {c: 1, c: 2}\n", "line 2: found the key 'c' for the second time"),
        ("a: 1\n'a': 2\n", "line 2: found the key 'a'"),
        ("a: .nan\n", "the number .nan"),
        ("a: [1, -.Inf]\n", "the number -.Inf"),
        ("a: 1e999\n", "the number 1e999"),
        ("a: nan\n", "the number nan"),
        ("a: !!python/object/apply:os.system [x]\n", "the tag"),
        ("a: !include other.yaml\n", "the tag"),
        ("a: &x [*x]\n", "the alias \\*x inside itself"),
        ("a: *x\n", "without its anchor"),
        ("- 1\n", "no mapping"),
        ("text\n", "no mapping"),
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("a: 1\n---\nb: 2\n", "second document"),
        ("a: " + "[" * 3000, "deeper than 50"),
        ("a: [1\n", "no valid YAML"),
        ("? [1]\n: 2\n", "a key that is no plain text"),
        ("a:\tb:\n\t- c\n", "no valid YAML"),
        ("a: \x00\n", "no valid YAML"),
    ],
)
def test_misleading_configs_are_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as caught:
        check_yaml(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_oversized_and_undecodable_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="not found"):
        check_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is it a config"):
        check_yaml(write(tmp_path, "a: " + "x" * 3_000_000))
    (tmp_path / "config.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        check_yaml(tmp_path / "config.yaml")


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab:,[]{}&*!-?|>'\"% \n.1e<", max_size=60))
def test_any_text_passes_or_gives_a_config_error(tmp_path_factory, text):
    path = write(tmp_path_factory.mktemp("yaml"), text)
    message = ""
    try:
        check_yaml(path)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
