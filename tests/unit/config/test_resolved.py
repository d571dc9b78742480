"""Loading, overriding, building and writing down configurations."""

from pathlib import Path

import pytest

from reallm.config import Config, load, override_key
from reallm.errors import InputError
from tests.dummies.training import TinyData, TinySystem

ROOT = Path(__file__).parents[3]
TEXT = """
width: 6
train: !PLACEHOLDER
training: !include:part.yaml
    width: !ref <width>
data: !new:tests.dummies.training.TinyData
    size: 3
system: !new:builtins.dict
    first: !ref <training>
    second: !ref <training>
    name: !ref <train>/<width>
"""
DATA = "data: !new:tests.dummies.training.TinyData\n    "
PART = """!new:tests.dummies.training.TinySystem
width: 2
dropout: 0.5
"""


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "part.yaml").write_text(PART)
    (tmp_path / "conf.yaml").write_text(TEXT)
    return tmp_path / "conf.yaml"


def test_overrides_and_references_reach_included_parts_and_instances_are_shared(conf: Path) -> None:
    built = load(conf, ["width=9", "train=here", "data.size=4"]).build()
    system = built["system"]
    assert isinstance(system["first"], TinySystem)
    assert system["first"] is system["second"] is built["training"]
    assert system["first"].head.in_features == 9
    assert system["name"] == "here/9"
    assert isinstance(built["data"], TinyData)
    assert built["data"].size == 4


def test_only_what_is_named_is_built(conf: Path) -> None:
    built = load(conf, ["train=here"]).build("system")
    assert built.keys() == {"system"}
    assert built["system"]["first"] is built["system"]["second"]


def test_what_is_written_down_builds_the_same(conf: Path, tmp_path: Path) -> None:
    config = load(conf, ["train=here", "width=5"])
    config.dump(tmp_path / "config.yaml")
    (tmp_path / "part.yaml").unlink()
    again = Config.read(tmp_path / "config.yaml")
    assert again.difference(config) is None
    assert again.build("system")["system"]["first"].head.in_features == 5


def test_the_first_difference_is_named(conf: Path) -> None:
    one, other = load(conf, ["train=here"]), load(conf, ["train=here", "width=7"])
    assert one.difference(other) == "width is 6, not 7"
    conf.write_text(conf.read_text() + "dev: there\n")
    assert load(conf, ["train=here"]).difference(one) == "dev is there, not absent"


def test_values_can_be_read_without_building(conf: Path) -> None:
    config = load(conf, ["train=here"])
    assert config.value("training", "width") == 6
    assert config.value("training", "depth", default=3) == 3


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["widht=3"], "has no key 'widht' .did you mean 'width'"),
        (["data.siez=3"], "has no key 'data.siez' .did you mean 'size'"),
        (["width.x=3"], "has no key 'width.x'"),
        (["width"], "override 'width' is not of the form key=value"),
        (["width=[1"], "'.1' is not a YAML value"),
        ([], "'train' is a !PLACEHOLDER and must be replaced: give it with"),
    ],
)
def test_wrong_overrides(conf: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(conf, overrides)


def test_problems_stop_the_loading(conf: Path) -> None:
    conf.write_text(conf.read_text().replace("    size: 3", "    siez: 3\nunused: 1"))
    with pytest.raises(InputError, match=r"unused: nothing uses this key \(and 1 more: reallm config check"):
        load(conf, ["train=here"])


def test_what_a_component_refuses_names_the_file(conf: Path) -> None:
    conf.write_text(conf.read_text().replace("!new:tests.dummies.training.TinyData\n    size: 3", "!new:builtins.int [x]\n"))
    with pytest.raises(InputError, match=r"conf\.yaml: invalid literal for int"):
        load(conf, ["train=here"]).build()
    conf.write_text(conf.read_text().replace("[x]", "[[1]]"))
    with pytest.raises(InputError, match=r"conf\.yaml: Invalid argument to class builtins\.int: int\(\) argument must be"):
        load(conf, ["train=here"]).build()
    conf.write_text(conf.read_text().replace("[[1]]", "[x]"))
    conf.write_text(conf.read_text().replace("!new:builtins.int [x]", "!apply:io.open [/nowhere/file]"))
    with pytest.raises(InputError, match="/nowhere/file: no such file, make it first"):
        load(conf, ["train=here"]).build()


def test_a_bug_in_a_constructor_is_not_the_user_s_mistake(tmp_path: Path) -> None:
    (tmp_path / "conf.yaml").write_text("system: !apply:operator.floordiv [1, 0]\n")
    with pytest.raises(ZeroDivisionError):
        load(tmp_path / "conf.yaml").build()


def test_a_key_that_is_not_there_cannot_be_built(conf: Path) -> None:
    with pytest.raises(InputError, match=r"no key 'sistem' .did you mean 'system'"):
        load(conf, ["train=here"]).build("sistem")


def test_files_of_the_toolkit_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(Path("hparams/optim/adamw.yaml")).value("lr") == 0.001
    with pytest.raises(InputError, match=r"did you mean 'hparams/optim/adamw\.yaml'"):
        load(Path("hparams/optim/adam.yaml"))


def test_shared_objects_and_their_attributes_reach_inclusions(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("!new:tests.dummies.training.TinyData\nsize: 7   # batches\n")
    (tmp_path / "part.yaml").write_text(PART.replace("width: 2", "width: 2   # of the layer"))
    (tmp_path / "pair.yaml").write_text("!new:builtins.dict\nfirst: 1\n")
    (tmp_path / "conf.yaml").write_text(
        "data: !include:data.yaml\n    size: 4   # fewer\n"
        "more: !apply:operator.add [!ref <data.size>, 1]   # in brackets\n"
        "training: !include:part.yaml\n    width: !ref <data.size>   # directly\n"
        "system: !include:pair.yaml\n    first: !ref <data>\n    second: !ref <more>\n"
    )
    built = load(tmp_path / "conf.yaml").build()
    assert built["training"].head.in_features == 4
    assert built["system"] == {"first": built["data"], "second": 5}, "one instance, not a copy"


@pytest.mark.parametrize(
    ("change", "overrides", "key"),
    [
        (("size: 3", "size: !ref <strings>\nstrings: 3"), [], "strings"),
        ((f"{DATA}size: 3", f"strings: 3\nall: !ref <strings>\n{DATA}size: !ref <all>"), [], "strings"),
        (("size: 3", "size: !ref <strings> * 2\nstrings: 3"), [], None),
        (("size: 3", "size: !apply:operator.add [1, 2]"), [], None),
        (("size: 3", "size: 3"), [], "data.size"),
        (("size: 3", "size: !ref <width>"), ["data.size=4"], "data.size"),
        (("size: 3", "rows: 2"), [], None),
        ((f"{DATA}size: 3", "data: !include:data.yaml"), [], None),
    ],
)
def test_what_override_calls_a_value(conf: Path, change: tuple[str, str], overrides: list[str], key: str | None) -> None:
    (conf.parent / "data.yaml").write_text("!new:tests.dummies.training.TinyData\nsize: 3\n")
    conf.write_text(TEXT.replace(*change))
    assert override_key(conf, overrides, "data", "size") == key
    if key is not None:
        loaded = load(conf, [*overrides, "train=here", f"{key}=5"])
        assert loaded.value("data", "size") == 5


def test_every_configuration_of_a_recipe_has_a_key_for_the_size_of_its_batches() -> None:
    files = [
        file for file in (ROOT / "egs").rglob("conf/**/*.yaml") if "\ndata: !" in file.read_text() and "max_duration" in file.read_text()
    ]
    assert len(files) > 30
    assert {file.name: override_key(file, [], "data", "max_duration") for file in files} == {file.name: "batch_seconds" for file in files}
