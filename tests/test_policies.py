"""Every rule of a policy changes what it states and nothing else.
"""

import json
import shutil
from dataclasses import field, fields, make_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from making import HEIGHT, WIDTH, number_in, prepared_index, same, write_video

from gazepose.config import InferConfig, parse, parse_train
from gazepose.data.annotations import policy_named
from gazepose.data.clip_files import VERSION, ClipCrops
from gazepose.data.index import Index, digest_of, read_contents
from gazepose.data.prepare import PrepareConfig
from gazepose.data.tracks import POLICIES, Policy
from gazepose.io import write_json

CLEAN, BASELINE = POLICIES["clean"], POLICIES["baseline"]


# Every rule

def rules_root(root: Path) -> Path:
    """Two clips in which every rule of a policy has something to do under `clean`."""
    whole = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}

    def track(name: str, *frames: int, box: dict[str, int] = whole, **facts: Any) -> dict[str, Any]:
        return {"track_id": name, "track": [{**box, "frame": frame} for frame in frames], **facts}

    stripe = {"x": 4 * WIDTH // 8, "y": 32, "width": WIDTH // 8, "height": 64}             # bit 4 of the frame number
    persons = [
        {"person_id": "9", "tracking_paths": [track("first", 2, 3)]},
        {"person_id": "0", "camera_wearer": True, "tracking_paths": [track("wearer", 2, 3)]},
        {"person_id": "1", "tracking_paths": [
            track("plain", 0, 1, 2, 3, 4, 5), track("gap", 1, 20), track("twice", 4, 5, 5, 6),
            track("suspect", 6, 7, suspect=True), track("unmapped", 7, 8, 9, 10, unmapped_frames=[9]),
            track("edge", 8, box={**whole, "x": -40, "width": 200}),
            track("outside", 8, box={**whole, "x": -90, "width": 50}), track("stripe", 16, box=stripe)]}]
    looking = [{"person": "1", "start_frame": 1, "end_frame": 3, "is_at_me": True},
               {"person": "1", "start_frame": 4, "end_frame": 5, "is_at_me": False}]
    clips = [{"clip_uid": "c", "persons": persons, "social_segments_looking": looking},
             {"clip_uid": "empty", "social_segments_looking": [],
              "persons": [persons[1] | {"tracking_paths": []}, {"person_id": "2", "tracking_paths": [track("e", 1)]}]}]
    for folder in ("json", "split"):
        (root / folder).mkdir(parents=True)
    (root / "json" / "av_train.json").write_text(json.dumps({"videos": [{"clips": clips}]}))
    (root / "split" / "train.list").write_text("c\nempty")
    for clip in ("c", "empty"):
        write_video(root / "videos" / f"{clip}.mp4", 30)
    return root


def view_of(index: Index) -> dict[str, tuple]:
    """"track frame" (with a prime where it occurs again) -> label, box, picture or brightness."""
    view: dict[str, tuple] = {}
    for row in range(len(index)):
        name = f"{index.track_name[int(index.track_of(row))]} {index.frame[row]}"
        crop = index.crop(row)
        picture = round(crop.mean() / 16) if name.startswith(("stripe", "outside", "edge")) else number_in(crop)
        view[name + "'" * (name in view)] = (int(index.label[row]), index.box[row].tolist(), picture)
    return view


def fields_changed(before: dict[str, tuple], after: dict[str, tuple]) -> dict[str, tuple]:
    """face -> what differs: None for what was not or is no more there."""
    names = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    return {name: (before.get(name), after.get(name)) for name in names}


WHOLE = [0, 0, WIDTH, HEIGHT]


def gone(*names: str):
    return lambda changed: changed.keys() == set(names) and all(after is None for _, after in changed.values())


def came(*names: str):
    return lambda changed: changed.keys() == set(names) and all(before is None for before, _ in changed.values())


def relabelled(label: int, *names: str):
    return lambda changed: changed.keys() == set(names) and all(
        before[0] == 1 - label and after[0] == label and before[1:] == after[1:] for before, after in changed.values())


EFFECTS: dict[str, tuple[Any, Any]] = {              # rule -> its value, and what exactly it changes
    "drop_frame_zero": (True, gone("plain 0")),
    "drop_outside": (False, lambda changed: changed.keys() == {"outside 8"} and changed["outside 8"][1][2] == 0),
    "negative_corner": ("move", lambda changed: changed.keys() == {"edge 8"}
                        and changed["edge 8"][0][1] == [0, 0, 160, HEIGHT]
                        and changed["edge 8"][1][1] == [0, 0, 200, HEIGHT]),
    "max_gap": (18, came(*(f"gap {n}" for n in range(2, 20)))),
    "keep_repeats": (True, came("twice 5'")),
    "honour_flags": (False, came("suspect 6", "suspect 7", "unmapped 9")),
    "end_inclusive": (True, relabelled(1, "plain 3", "plain 5", "twice 5")),
    "empty_is_negative": (False, gone("e 1")),
    "wearer": ("first", lambda changed: {name: after is not None for name, (_, after) in changed.items()} == {
        "first 2": False, "first 3": False, "wearer 2": True, "wearer 3": True}),
    "first_number": (1, lambda changed: changed.pop("plain 0")[1] is None and changed["plain 4"][0][2] == 4 and all(
        after[:2] == before[:2] and (name.startswith(("stripe", "edge")) or after[2] == before[2] - 1)
        for name, (before, after) in changed.items())),
    "at_me_only": (True, relabelled(0, "plain 4", "twice 4")),
    "box_scale": (3.0, lambda changed: changed["stripe 16"][0][2] >= 14 and 4 <= changed["stripe 16"][1][2] <= 6
                  and changed["stripe 16"][0][1] == changed["stripe 16"][1][1]),
}


@pytest.fixture(scope="module")
def ruled(tmp_path_factory) -> Path:
    return rules_root(tmp_path_factory.mktemp("rules"))


@pytest.mark.parametrize("rule", [rule.name for rule in fields(Policy) if rule.name != "name"])
def test_every_rule_changes_what_it_says_and_nothing_else(ruled, rule):
    assert rule in EFFECTS, f"{rule}: state what it changes"
    value, as_said = EFFECTS[rule]
    flags = [f"--{'' if value else 'no_'}{rule}"] if isinstance(value, bool) else [f"--{rule}", str(value)]
    config, _ = parse_train(flags)
    assert config.prepare.rule == (f"{rule}={value}",)
    index = prepared_index(ruled, rules={rule: value})
    assert index.folder.parent.name == f"clean+{rule}={value}-64"
    assert index.facts["rules"] == {**prepared_index(ruled).facts["rules"], rule: value}
    changed = fields_changed(view_of(prepared_index(ruled)), view_of(index))
    assert changed and as_said(changed), changed


def test_a_preset_is_its_rules(ruled):
    both = {rule: value for rule, value in vars(BASELINE).items() if rule != "name"}
    same(prepared_index(ruled, policy="baseline"), prepared_index(ruled, policy="clean", rules=both))


def test_a_rule_that_says_what_the_preset_says_makes_no_other_folder(ruled):
    assert prepared_index(ruled, rules={"max_gap": 15, "wearer": "flag"}).folder == prepared_index(ruled).folder
    assert policy_named("clean", ["box_scale=1.5", "max_gap=None"]).name == "clean+max_gap=None+box_scale=1.5"


def test_a_folder_made_under_other_rules_is_refused(ruled, tmp_path):
    for folder in ("json", "split", "videos"):
        (tmp_path / folder).symlink_to(ruled / folder)
    prepared_index(tmp_path)
    (tmp_path / "prepared" / "clean-64").rename(tmp_path / "prepared" / "clean+max_gap=20-64")
    with pytest.raises(ValueError, match=r"with policy clean, wanted clean\+max_gap=20, max_gap 15, wanted 20 -> "):
        prepared_index(tmp_path, rules={"max_gap": 20})


def rewritten(folder: Path, **rules: Any) -> None:
    """The prepared folder as a version with other rules wrote it; None: it had no such rule."""
    contents = read_contents(folder)
    stated = {**contents["facts"]["rules"], **rules}
    contents["facts"]["rules"] = {name: value for name, value in stated.items() if value is not None}
    write_json(folder / "index.json", {**contents, "sha256": digest_of(contents)}, indent=None)


def test_a_new_rule_at_its_default_keeps_prepared_folders(ruled, tmp_path):
    for folder in ("json", "split", "videos"):
        (tmp_path / folder).symlink_to(ruled / folder)
    folder = prepared_index(tmp_path).folder
    rewritten(folder, at_me_only=None, box_scale=None)
    assert prepared_index(tmp_path).folder == folder
    rewritten(folder, box_scale=2.0, wearer="first")
    with pytest.raises(ValueError, match=r"with box_scale 2.0, wanted 1.0, wearer first, wanted flag -> delete the"):
        prepared_index(tmp_path)
    rewritten(folder, box_scale=1.0, wearer="flag", unknown=3)
    with pytest.raises(ValueError, match=r"was made with unknown 3, wanted None -> delete the folder"):
        prepared_index(tmp_path)
    shutil.rmtree(folder)
    assert prepared_index(tmp_path).folder == folder


def test_a_new_rule_at_its_default_keeps_the_crops_of_clips(tmp_path):
    def key(policy: Policy) -> str:
        return ClipCrops("c", tmp_path, tmp_path / "c", 0, policy, 64, "decord").key()
    rules = policy_named("clean", ["max_gap=30", "box_scale=1.5"])
    assert key(rules) == sha256(repr((VERSION, 64, rules)).encode()).hexdigest()       # as in versions before
    assert key(POLICIES["clean"]) == "4ec2bebb38159e9a1275f9a3c51a6c8a395e11fe422bad9c318e55d80f9ec016"
    later = make_dataclass("Policy", [("mirror", bool, field(default=False))], bases=(Policy,), frozen=True,
                           kw_only=True)
    assert key(later(**vars(rules))) == key(rules) != key(later(**vars(rules), mirror=True))


@pytest.mark.parametrize(("flags", "message"), [
    (["--max_gap", "-1"], "max_gap -1 -> give 0 or more"), (["--box_scale", "0"], "box_scale 0.0 -> give 0.1 to 10"),
    (["--first_number", "2"], "--rule first_number=2 -> give 0 or 1"),
    (["--wearer", "last"], "--rule wearer=last -> give first or flag"),
    (["--rule", "max_gpa=3"], "no rule 'max_gpa' -> the rules are drop_frame_zero,"),
    (["--rule", "max_gap=few"], "--rule max_gap=few -> give a whole number or None"),
    (["--rule", "drop_outside=maybe"], "-> give True or False"), (["--max_gap"], "--rule max_gap=")])
def test_an_impossible_rule_is_refused_at_once(flags, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_train(flags)
    assert message in " ".join(capsys.readouterr().err.split()) + str(ended.value)


def test_inference_takes_the_checkpoints_rules_unless_a_flag_is_given():
    trained = PrepareConfig(policy="clean", rule=("max_gap=30",), crops_from="faces", max_bad_fraction=0.05)

    def preparation(*flags: str) -> PrepareConfig:
        return parse(InferConfig, list(flags)).preparation(trained)

    assert preparation() == trained
    assert preparation("--end_inclusive").rules.name == "clean+max_gap=30+end_inclusive=True"
    assert preparation("--max_gap", "None").rules.name == "clean+max_gap=None"
    assert preparation("--policy", "baseline", "--no_end_inclusive").rules.name == "baseline+end_inclusive=False"
    assert preparation("--data", "elsewhere").crops_from is None
    assert preparation("--data", "elsewhere", "--crops_from", "images").crops_from == "images"
    assert preparation("--max_bad_fraction", "0").max_bad_fraction == 0
