"""Configurations: round trips between their forms, and messages for invalid ones."""

import string
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from study import parts
from study.config import SEED_LIMIT, TrialConfig, flattened, nested, read_yaml, yaml_text
from study.errors import StudyError

NAMES = st.text(string.ascii_letters + string.digits + "_-. ", min_size=1, max_size=8)
TEXT = st.text(string.printable.translate({ord(c): None for c in "\r\x0b\x0c?"}), max_size=12)
"""Without question marks: ruamel.yaml 0.19 writes "?0" unquoted into a flow list, where it means a key."""
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT
    | st.sampled_from(["1e-3", "yes", "no", "null", "~", "0x10", "1_000", "2024-01-01", "a: b", "- a", "é", "{", ""])
)
VALUES = SCALARS | st.lists(SCALARS, max_size=4)
TREES = st.recursive(
    st.dictionaries(NAMES, VALUES, max_size=4),
    lambda children: st.dictionaries(NAMES, VALUES | children, max_size=4),
    max_leaves=12,
)


@st.composite
def configurations(draw) -> dict:
    """Plain data of configurations that can be trained."""
    rate = st.floats(1e-12, 1e6)
    optimizer = draw(
        st.sampled_from(
            [
                {"name": "sgd", "lr": draw(rate), "momentum": draw(st.floats(0, 0.99))},
                {"name": "sam", "lr": draw(rate), "rho": draw(rate)},
                {"name": "gnp", "lr": draw(rate), "lambda": draw(rate), "r": draw(st.just(0) | rate)},
                {"name": "sgd"},
            ]
        )
    )
    interventions = draw(
        st.sampled_from([{}, {"l2_init": {}}, {"l2_init": {"strength": draw(rate)}, "shrink_and_perturb": {}}])
    )
    return {
        "tasks": {
            "name": draw(st.sampled_from(["class_pairs", "permuted_pixels"])),
            "count": draw(st.none() | st.integers(1, 45)),
        },
        "model": {"name": "mlp", "widths": draw(st.lists(st.integers(1, 1000), max_size=3))},
        "optimizer": optimizer,
        "interventions": interventions,
        "training": {"batch_size": draw(st.integers(1, 10**6))},
        "seeds": draw(st.lists(st.integers(0, SEED_LIMIT - 1), min_size=1, max_size=5, unique=True)),
    }


# --- round trips -----------------------------------------------------------------------------------------------------


@given(TREES)
def test_nested_is_the_inverse_of_flattened(tree):
    assert nested(flattened(tree)) == tree


@given(configurations(), st.booleans())
def test_a_configuration_survives_its_flat_form(plain, completed):
    config = TrialConfig.from_plain(plain)
    config = parts.complete(config) if completed else config
    assert all("/" in name for name in config.flat())
    assert TrialConfig.from_flat(config.flat() | {"seeds": list(config.seeds)}) == config


@given(configurations(), st.booleans())
def test_a_configuration_survives_yaml(plain, completed):
    config = TrialConfig.from_plain(plain)
    config = parts.complete(config) if completed else config
    assert TrialConfig.from_plain(parsed(yaml_text(config.plain()))) == config


@given(configurations())
def test_completing_twice_changes_nothing_more(plain):
    once = parts.complete(TrialConfig.from_plain(plain))
    assert parts.complete(once) == once
    assert {"optimizer/lr", "optimizer/momentum", "tasks/validation_fraction", "model/widths"} <= once.flat().keys()


def parsed(text: str):
    """The content of a YAML file with this text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.yaml"
        path.write_text(text, encoding="utf-8")
        return read_yaml(path)


@given(st.dictionaries(NAMES, VALUES | TREES, min_size=1, max_size=4))
def test_any_plain_data_survives_yaml(tree):
    again = parsed(yaml_text(tree))
    assert again == tree
    assert list(map(repr, flattened(again).values())) == list(map(repr, flattened(tree).values())), "types and order"


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("1E5", 100000.0), ("1.5e+2", 150.0), ("0.001", 0.001), ("no", "no"), ("on", "on"), ("10", 10)],
)
def test_yaml_numbers_are_those_of_yaml_1_2(text, value):
    read = parsed(f"value: {text}\n")["value"]
    assert read == value
    assert type(read) is type(value)


def test_a_learning_rate_of_1e_3_in_a_file_is_a_number():
    config = TrialConfig.from_plain(parsed("optimizer: {name: sgd, lr: 1e-3}\n"))
    assert parts.complete(config).flat()["optimizer/lr"] == 0.001


def test_the_keys_of_a_written_file_stand_in_the_order_of_the_configuration():
    probed = TrialConfig.from_flat({"probes/boundaries": [1], "operations/fresh_weights": {}})
    keys = [line.split(":")[0] for line in yaml_text(probed.plain()).splitlines() if not line.startswith(" ")]
    assert keys == list(TrialConfig.model_fields)


def test_the_seeds_are_no_part_of_the_flat_form():
    assert not [name for name in TrialConfig(seeds=(1, 2)).flat() if "seed" in name]


# --- refusals --------------------------------------------------------------------------------------------------------


def refusal(plain: object) -> str:
    """The message of the StudyError for a configuration, one sentence."""
    with pytest.raises(StudyError) as error:
        parts.complete(TrialConfig.from_plain(plain))
    message = str(error.value)
    assert message.endswith("."), message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("plain", "unknown", "nearest"),
    [
        ({"optimiser": {"name": "sgd"}}, "optimiser", "optimizer"),
        ({"training": {"batchsize": 3}}, "training/batchsize", "training/batch_size"),
        ({"optimizer": {"name": "sam", "rh": 0.1}}, "optimizer/rh", "rho"),
        ({"optimizer": {"name": "gnp", "lamda": 0.1}}, "optimizer/lamda", "lambda"),
        ({"optimizer": {"name": "smam"}}, "smam", "sam"),
        ({"tasks": {"name": "class_pair"}}, "class_pair", "class_pairs"),
        ({"tasks": {"name": "class_pairs", "coun": 3}}, "tasks/coun", "count"),
        ({"model": {"name": "mlp", "width": [3]}}, "model/width", "widths"),
        ({"data": {"name": "mnist5"}}, "mnist5", "mnist5k"),
        ({"interventions": {"l2init": {}}}, "l2init", "l2_init"),
        ({"interventions": {"l2_init": {"strenght": 1.0}}}, "interventions/l2_init/strenght", "strength"),
    ],
)
def test_an_unknown_word_is_refused_and_the_nearest_is_named(plain, unknown, nearest):
    message = refusal(plain)
    assert repr(unknown) in message
    assert f"did you mean {nearest!r}?" in message


def test_the_settings_of_one_optimizer_are_unknown_to_another():
    assert "'sgd' has no setting 'optimizer/rho'" in refusal({"optimizer": {"name": "sgd", "rho": 0.1}})


def test_the_name_of_a_field_in_python_is_no_setting():
    assert "no setting 'optimizer/penalty'" in refusal({"optimizer": {"name": "gnp", "penalty": 0.1}})


@pytest.mark.parametrize(
    ("flat", "name"),
    [
        ({"training/batch_size": "16"}, "training/batch_size='16'"),
        ({"training/batch_size": True}, "training/batch_size=True"),
        ({"training/batch_size": 16.0}, "training/batch_size=16.0"),
        ({"training/batch_size": 0}, "training/batch_size=0"),
        ({"training/passes": None}, "training/passes=None"),
        ({"training/device": "tpu"}, "training/device='tpu'"),
        ({"optimizer/name": "sgd", "optimizer/lr": "0.1"}, "optimizer/lr='0.1'"),
        ({"optimizer/name": "sgd", "optimizer/lr": True}, "optimizer/lr=True"),
        ({"optimizer/name": "sgd", "optimizer/lr": None}, "optimizer/lr=None"),
        ({"optimizer/name": "sgd", "optimizer/lr": float("nan")}, "optimizer/lr=nan"),
        ({"optimizer/name": "sgd", "optimizer/lr": float("inf")}, "optimizer/lr=inf"),
        ({"optimizer/name": "sgd", "optimizer/lr": [0.1]}, "optimizer/lr=[0.1]"),
        ({"optimizer/name": 3}, "optimizer/name=3"),
        ({"model/name": "mlp", "model/widths": 5}, "model/widths=5"),
        ({"model/name": "mlp", "model/widths": [5, 0]}, "model/widths/1=0"),
        ({"model/name": "mlp", "model/widths": ["5"]}, "model/widths/0='5'"),
        ({"tasks/name": "class_pairs", "tasks/count": True}, "tasks/count=True"),
        ({"seeds": 5}, "seeds=5"),
        ({"seeds": []}, "seeds=()"),
        ({"seeds": [0, True]}, "seeds/1=True"),
        ({"seeds": [0, -1]}, "seeds/1=-1"),
        ({"seeds": [SEED_LIMIT]}, f"seeds/0={SEED_LIMIT}"),
        ({"interventions/l2_init": 3}, "interventions/l2_init=3"),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused_under_its_name(flat, name):
    assert f"{name} is not possible" in refusal(nested(flat))


def test_a_whole_number_may_stand_for_a_real_one():
    config = parts.complete(TrialConfig.from_flat({"optimizer/name": "sgd", "optimizer/lr": 1}))
    assert config.flat()["optimizer/lr"] == 1.0


@pytest.mark.parametrize("plain", [None, 3, "sgd", ["optimizer"]])
def test_what_is_no_mapping_is_refused(plain):
    assert "must be a mapping" in refusal(plain)


@pytest.mark.parametrize("section", ["data", "tasks", "model", "optimizer"])
def test_a_section_without_a_name_means_its_default_part(section):
    assert getattr(TrialConfig.from_plain({section: {}}), section) == getattr(TrialConfig(), section)


def test_settings_without_a_name_are_those_of_the_default_part():
    assert TrialConfig.from_flat({"tasks/count": 3}).tasks.settings == {"count": 3}


def test_duplicate_seeds_are_refused():
    assert "seeds must all be different, not [3, 1, 3]" in refusal({"seeds": [3, 1, 3]})


@pytest.mark.parametrize(
    "flat",
    [
        {"optimizer": "sgd", "optimizer/lr": 0.1},
        {"optimizer/lr": 0.1, "optimizer": "sgd"},
        {"optimizer/lr/x": 0.1, "optimizer/lr": 0.1},
    ],
)
def test_a_name_cannot_be_a_setting_and_a_group_of_settings(flat):
    with pytest.raises(StudyError, match="cannot be set"):
        nested(flat)


def test_nesting_does_not_write_into_what_it_is_given():
    group = {"name": "sgd"}
    assert nested({"optimizer": group, "optimizer/lr": 0.1}) == {"optimizer": {"name": "sgd", "lr": 0.1}}
    assert group == {"name": "sgd"}


def test_a_configuration_cannot_be_changed():
    config = TrialConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.seeds = (1,)
    with pytest.raises(ValueError, match="frozen"):
        config.optimizer.name = "sam"


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:pathlib.Path.touch", "!!python/object/new:pathlib.Path.touch", "!!python/name:os.system"],
)
def test_an_unsafe_yaml_tag_is_refused_and_executes_nothing(tag, tmp_path):
    trap = tmp_path / "executed"
    path = tmp_path / "config.yaml"
    path.write_text(f"optimizer: {tag} [!!python/object/apply:pathlib.Path ['{trap}']]\n", encoding="utf-8")
    with pytest.raises(StudyError, match="is not plain YAML"):
        read_yaml(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1, 2", "is not plain YAML"),
        (b"a: 1\na: 2\n", "is not plain YAML"),
        (b"a: \xff\xfe\n", "it is not UTF-8 text"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_its_name(content, words, tmp_path):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StudyError) as error:
        read_yaml(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
