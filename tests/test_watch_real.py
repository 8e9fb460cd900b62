"""The command with the real detector and landmark network, in processes of its own; skipped without their files."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gazepose.priors.model_files import find
from gazepose.watch.tables import read_faces, read_looks


@pytest.fixture(autouse=True)
def model_files() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("LiteRT is not installed: pip install 'gazepose[watch]'")
    for name in ("yunet", "face_landmarker"):
        try:
            find(name)
        except (FileNotFoundError, ValueError) as error:
            pytest.skip(str(error))


def test_the_faces_of_a_rendered_world_are_found_followed_and_scored(tiny_world: Path, tmp_path: Path):
    facts = json.loads((tiny_world / "world.json").read_text())["val"]
    videos = sorted((tiny_world / "videos").glob("*val*.mp4"))
    ran = subprocess.run([sys.executable, "-m", "gazepose", "watch", *map(str, videos), "--out", str(tmp_path / "out"),
                          "--no_video", "--to", "vtt"], capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr and "WARN" not in ran.stderr and "INFO" not in ran.stderr
    table = read_faces(tmp_path / "out" / "faces.csv")
    assert table["video"].nunique() == len(videos) == facts["clips"]
    assert 0.7 * facts["faces"] < len(table) < 1.1 * facts["faces"]
    # each shot has people of its own, so a track that goes on over a cut would make fewer people
    assert 0.6 * facts["tracks"] < table.groupby("video")["person"].nunique().sum() < 1.3 * facts["tracks"]
    known = table[table["codable"] == 1]
    assert len(known) and known["looking"].between(0, 1).all() and table[table["codable"] == 0]["looking"].isna().all()
    assert (read_looks(tmp_path / "out" / "looks.csv")["end"] > 0).all()
    assert {path.name for path in (tmp_path / "out").glob("*.vtt")} == {f"{path.stem}.vtt" for path in videos}
