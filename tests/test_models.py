"""What the models promise beyond the published numbers: unknowns, sharing, sizes, backbones, gradients, files."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from torch import nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim

from gazepose.compat.checkpoints import KINDS, cached_imagenet, load_into, read_published
from gazepose.data.index import PRIORS
from gazepose.models import ModelConfig, Priors, build_model
from gazepose.models.backbone import smoothed
from gazepose.models.queries import HeadPoseQueries, LandmarkQueries, eye_centred
from gazepose.models.transformer import sine_positions

SMALL: dict[str, Any] = {"backbone": "test_resnet", "num_encoder_layers": 1, "num_decoder_layers": 1, "dmodel": 64,
                         "dim_feedforward": 64}
BOTH: dict[str, Any] = {"prior_head": True, "prior_landmark": True}
NAN = math.nan
pytestmark = pytest.mark.usefixtures("one_thread")


def small(seed: int = 0, **options: Any) -> Any:
    torch.manual_seed(seed)
    return build_model(ModelConfig(**(SMALL | options))).eval()


def batch(count: int = 2, size: int = 64, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor, Priors]:
    """Neighbouring windows of one pool, as the loader deals them, with known priors."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(count + 6, 3, size, size, generator=generator)
    window = torch.arange(count)[:, None] + torch.arange(7)
    head_pose = 120 * torch.rand(count, 3, generator=generator) - 60
    return frames, window, Priors(head_pose, torch.rand(count, 5, 3, generator=generator))


def unknown(count: int = 2) -> Priors:
    return Priors(*(torch.full((count, *shape), NAN) for _, shape in PRIORS.values()))


def test_the_priors_of_a_model_are_those_of_the_index():
    assert Priors._fields == tuple(PRIORS)
    assert [tuple(prior.shape) for prior in batch(2)[2]] == [(2, *shape) for _, shape in PRIORS.values()]


def test_head_pose_keeps_its_sign_and_its_unknown_has_a_row_of_its_own():
    queries = HeadPoseQueries(8, split=1.0)
    rows = queries.rows(torch.tensor([[-99.0, -0.5, 0.5], [99.0, 150.0, -150.0], [NAN, 98.9, 0.0]]))
    assert rows.tolist() == [[0, 98, 99], [198, 198, 0], [199, 197, 99]]
    assert len(queries.yaw.weight) == 200


def test_unsigned_pose_drops_the_sign_and_nothing_else():
    queries = HeadPoseQueries(8, split=3.0, unsigned=True)
    assert queries.rows(torch.tensor([[-7.0, 7.0, 95.0], [NAN, 90.0, 0.0]])).tolist() == [[2, 2, 30], [31, 30, 0]]


def test_every_landmark_cell_has_its_own_row():
    queries = LandmarkQueries(8, dsplit=0.1, csplit=0.1)
    grid = torch.arange(-20, 21) / 10 + 0.01
    x, y = torch.meshgrid(grid, grid, indexing="ij")
    relative = torch.stack([x.flatten(), y.flatten(), torch.ones(1681)], -1).view(-1, 1, 3).expand(-1, 5, -1)
    cell, confidence = queries.rows(relative)
    assert sorted(cell[:, 0].tolist()) == list(range(1681))
    assert confidence.unique().tolist() == [10]


def test_unknown_landmarks_have_rows_of_their_own():
    queries = LandmarkQueries(8, dsplit=0.1, csplit=0.1)
    landmarks = torch.full((1, 5, 3), 0.5)
    landmarks[0, 3] = NAN
    cell, confidence = queries.rows(eye_centred(landmarks))
    assert cell.tolist() == [[840, 840, 840, 1681, 840]] and confidence.tolist() == [[5, 5, 5, 11, 5]]
    assert len(queries.cell.weight) == 1682 and len(queries.confidence.weight) == 12


def test_without_an_eye_no_landmark_has_a_place():
    landmarks = torch.full((1, 5, 3), 0.5)
    landmarks[0, 1, :2] = NAN
    assert eye_centred(landmarks)[..., :2].isnan().all()


@pytest.mark.parametrize("behaviour", ["intended", "published"])
@pytest.mark.parametrize(("option", "name"), [("prior_head", "head_pose"), ("prior_landmark", "landmarks")])
def test_a_prior_that_is_off_is_not_seen_and_one_that_is_on_is(behaviour, option, name):
    frames, window, priors = batch()
    for on in (False, True):
        model = small(behaviour=behaviour, **BOTH | {option: on})
        with torch.no_grad():
            before = model(frames, window, priors).logits
            for other in (getattr(priors, name) * 0.5, getattr(unknown(), name)):
                changed = model(frames, window, priors._replace(**{name: other})).logits
                assert changed.isfinite().all()
                assert torch.equal(before, changed) != on


def test_unknown_priors_differ_from_the_values_they_were_once_mistaken_for():
    model = small(**BOTH)
    frames, window, _ = batch()
    mistaken = Priors(torch.full((2, 3), 90.0), torch.zeros(2, 5, 3))
    with torch.no_grad():
        assert not torch.allclose(model(frames, window, unknown()).logits, model(frames, window, mistaken).logits)
        published = small(behaviour="published", **BOTH)
        assert torch.equal(published(frames, window, unknown()).logits, published(frames, window, mistaken).logits)


@pytest.mark.parametrize("name", ["GazePose", "GazeLSTM", "BaselineLSTM"])
def test_sharing_frames_changes_nothing_but_time(name):
    model = small(model=name, gaze_head=True, **BOTH)
    frames, window, priors = batch(3)
    with torch.no_grad():
        shared = model(frames, window, priors)
        unshared = model(frames[window].flatten(0, 1), torch.arange(21).view(3, 7), priors)
    torch.testing.assert_close(shared, unshared, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["GazePose", "GazeLSTM"])
def test_a_batch_of_one_is_a_batch(name):
    model = small(model=name, **BOTH)
    frames, window, priors = batch(2)
    with torch.no_grad():
        both, one = model(frames, window, priors), model(frames, window[:1], Priors(*(prior[:1] for prior in priors)))
    assert one.logits.shape == (1, 2) and one.gaze is None
    torch.testing.assert_close(one.logits, both.logits[:1], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("output_stride", "side"), [(32, 2), (16, 4), (8, 8)])
def test_the_map_may_have_any_size(output_stride, side):
    model = small(backbone="resnet18", output_stride=output_stride)
    with torch.no_grad():
        assert model.frames(batch()[0])[0].shape[1:] == (512, side, side)
        assert model(*batch()).logits.isfinite().all()


def test_a_low_pass_smooths_crops_before_the_backbone():
    crops = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(0))
    smooth = smoothed(crops, 0.05)
    expected = gaussian_filter(crops.numpy(), (0, 0, 2, 3), truncate=6)              # 0.05 of each side
    np.testing.assert_allclose(smooth[..., 12:-12, 18:-18], expected[..., 12:-12, 18:-18], atol=1e-5)
    torch.testing.assert_close(smoothed(torch.ones(1, 3, 9, 9), 0.2), torch.ones(1, 3, 9, 9))     # also at borders
    assert smoothed(crops.bfloat16(), 0.05).dtype == torch.bfloat16
    for name in ("GazePose", "GazeLSTM", "FaceGaze"):
        model, plain = small(model=name, low_pass=0.05), small(model=name)
        plain.load_state_dict(model.state_dict())
        frames, *rest = batch()
        with torch.no_grad():
            torch.testing.assert_close(model(frames, *rest).logits, plain(smoothed(frames, 0.05), *rest).logits)
            assert not torch.allclose(model(frames, *rest).logits, plain(frames, *rest).logits)


def test_positions_tell_every_cell_of_a_map_from_every_other():
    code = sine_positions(4, 6, 64, torch.zeros(1))
    assert code.shape == (24, 64) and torch.cdist(code, code).add(torch.eye(24)).min() > 0.1
    rows, columns = code[::6, :32], code[:6, 32:]  # of the first column, of the first row
    torch.testing.assert_close(code.view(4, 6, 64), torch.cat([
        rows[:, None].expand(-1, 6, -1), columns[None].expand(4, -1, -1)], -1))


@pytest.mark.parametrize(("backbone", "width", "size"), [
    ("resnet34", 512, 64), ("convnext_atto", 320, 64), ("mobilenetv3_small_050", 288, 64),
    ("mambaout_femto", 288, 64)])  # the last gives maps with channels behind
def test_any_backbone_with_a_map_will_do_and_all_of_it_is_trained(backbone, width, size):
    model = small(backbone=backbone, **BOTH).train()
    prediction = model(*batch(size=size))
    prediction.logits.sum().backward()
    assert model.frames.width == width
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("options", "message"), [
    ({"backbone": "vit_tiny_patch16_224"}, r"vit_tiny_patch16_224 gives \[1, 197, 192\], not a feature map"),
    ({"backbone": "resnet81"}, "timm has no 'resnet81' -> use resnet18"),
    ({"backbone": "mobilenetv3_small_050", "output_stride": 8}, "mobilenetv3_small_050 cannot do output_stride 8"),
    ({"model": "GazePos"}, "model: 'GazePos' is unknown -> give one of GazePose, GazeLSTM, BaselineLSTM"),
    ({"low_pass": 2.0}, "low_pass: 2.0 is out of range -> give 0 to 0.2"),
    ({"output_stride": 7}, "output_stride: 7 is unknown -> give one of 8, 16, 32"),
    ({"split": 0}, "split: 0 is out of range"),
    ({"dmodel": 100}, "dmodel: 100 cannot be divided by 4 and by 8 heads"),
])
def test_what_cannot_be_built_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(ModelConfig(**options))


def test_gaze_stays_within_its_angles():
    model = small(model="GazeLSTM", gaze_head=True)
    model.gaze_head.weight.data *= 1000
    with torch.no_grad():
        yaw, pitch, spread = model(*batch(6)).gaze.unbind(1)
    assert yaw.abs().max() <= math.pi + 1e-6 and pitch.abs().max() <= math.pi / 2 + 1e-6
    assert (spread >= 0).all() and (spread <= math.pi + 1e-6).all()


@pytest.mark.parametrize("behaviour", ["intended", "published"])
@pytest.mark.parametrize(("name", "priors"), [("GazePose", True), ("GazePose", False), ("GazeLSTM", False),
                                              ("BaselineLSTM", False)])
def test_every_parameter_that_trains_gets_a_gradient(behaviour, name, priors):
    model = small(model=name, behaviour=behaviour, gaze_head=True, prior_head=priors, prior_landmark=priors).train()
    prediction = model(*batch())
    (prediction.logits.sum() + prediction.gaze.sum()).backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    fixed = [n for n, p in model.named_parameters() if not p.requires_grad]
    assert fixed == (["landmark_queries.cell.weight", "landmark_queries.confidence.weight"]
                     if priors and behaviour == "published" else [])


def test_only_the_published_start_leaves_no_norm_at_zero():
    for behaviour, start in (("published", 1.0), ("intended", 0.0)):
        assert (small(backbone="resnet18", behaviour=behaviour).frames.backbone.layer4[1].bn2.weight == start).all()


@pytest.mark.parametrize("behaviour", ["intended", "published"])
def test_distributed_training_needs_no_search_for_unused_parameters(behaviour, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(small(behaviour=behaviour, **BOTH).train())
        for _ in range(2):  # the second step fails if the first left a parameter out
            model(*batch()).logits.sum().backward()
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_trains_and_nearly_agrees(dtype):
    model = small(gaze_head=True, **BOTH)
    exact = model(*batch())
    with torch.autocast("cpu", dtype=dtype):
        prediction = model(*batch())
    assert (prediction.logits - exact.logits).abs().max() < 3e-2
    (prediction.logits.float().sum() + prediction.gaze.float().sum()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_channels_last_changes_nothing_but_time():
    model = small(**BOTH)
    frames, *rest = batch()
    with torch.no_grad():
        before = model(frames, *rest).logits
        after = copy.deepcopy(model).to(memory_format=torch.channels_last)(
            frames.to(memory_format=torch.channels_last), *rest).logits
    torch.testing.assert_close(before, after, rtol=0, atol=1e-5)


@pytest.mark.drill
def test_compiles_once_for_any_number_of_frames_and_windows():
    model, graphs = small(**BOTH), CompileCounter()  # one break in the graph: dynamo leaves nn.LSTM to cuDNN
    compiled = torch.compile(model, backend=graphs)
    with torch.no_grad():
        for count in (2, 3, 5, 4, 7):                # the second size makes the shapes symbols
            torch.testing.assert_close(compiled(*batch(count)).logits, model(*batch(count)).logits)
    assert graphs.frame_count <= 4
    torch._dynamo.reset()


def test_exports_for_any_number_of_frames_and_windows():
    model = small(gaze_head=True, prior_landmark=True, reader=True, window_reader=True)
    any_number = {0: Dim.DYNAMIC}
    program = torch.export.export(model, batch(2), dynamic_shapes=(any_number, any_number, Priors(*[any_number] * 2)))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*batch(5)), model(*batch(5)))


def published_file(path, kind: str, model: nn.Module, prefix: str = "", **extra: torch.Tensor):
    """A checkpoint as the published code would write it, with random weights."""
    state = dict(extra)
    for name, value in model.state_dict().items():
        if kind == "Gaze360" and name.startswith("last_layer"):
            continue
        theirs, ours = next((pair for pair in KINDS[kind] if name.startswith(pair[1])), ("", ""))
        state[prefix + theirs + name[len(ours):]] = value
    torch.save({"state_dict": state, "epoch": 7, "mAP": np.float64(0.7)}, path)
    return path


@pytest.mark.parametrize(("kind", "options"), [
    ("GazePose", SMALL | BOTH | {"backbone": "resnet18", "split": 3.0, "dsplit": 0.2, "csplit": 0.25}),
    ("GazePose", SMALL | {"backbone": "resnet18", "prior_landmark": True, "num_encoder_layers": 2}),
    ("GazePose's GazeLSTM", {"model": "GazeLSTM"}),
    ("Ego4D's GazeLSTM or BaselineLSTM", {"model": "BaselineLSTM"}),
    ("Gaze360", {"model": "GazeLSTM", "gaze_head": True}),
])
def test_a_published_file_tells_what_it_is(kind, options, tmp_path):
    config = ModelConfig(behaviour="published", **options)
    model = build_model(config)
    published = read_published(published_file(tmp_path / "w.pth", kind, model, prefix="module."))
    assert (published.kind, published.config, published.left) == (kind, config, [])
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in published.state.items())
    assert len(published.taken) == len(published.state)


def test_what_is_not_taken_from_a_published_file_is_named(tmp_path):
    model = small(backbone="resnet18", model="GazeLSTM")
    file = published_file(tmp_path / "w.pth", "GazePose's GazeLSTM", model, body=torch.zeros(3))
    assert read_published(file).left == ["body"]


def test_gazepose_starts_from_gaze360(tmp_path):
    gaze360 = small(backbone="resnet18", model="GazeLSTM", gaze_head=True)
    published = read_published(published_file(tmp_path / "g.pth.tar", "Gaze360", gaze360))
    model = small(seed=1, backbone="resnet18", gaze_head=True, **BOTH)
    taken, left = load_into(model, published.state)
    assert len(taken) == 140 and left == ["gaze_head.weight", "gaze_head.bias"]  # the bias would fit, alone
    assert torch.equal(model.frames.to_vector[0].weight, gaze360.frames.to_vector[0].weight)


def test_a_model_starts_from_another_of_ours_with_another_head():
    taken, left = load_into(small(model="BaselineLSTM"), small(model="GazeLSTM", gaze_head=True).state_dict())
    assert left == ["last_layer.weight", "last_layer.bias", "gaze_head.weight", "gaze_head.bias"]
    assert all(name.startswith(("frames.", "lstm.")) for name in taken)
    with pytest.raises(ValueError, match="none of its 1 entries .* fits GazeLSTM"):
        load_into(small(model="GazeLSTM"), {"fc.weight": torch.zeros(2, 2)})


def test_imagenet_weights_are_taken_from_the_cache_and_never_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert cached_imagenet("resnet18") is None and cached_imagenet("convnext_tiny") is None
    repository = tmp_path / "models--timm--resnet18.tv_in1k"
    folder = repository / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    weights = timm.create_model("resnet18", pretrained=False).state_dict()
    save_file(weights, folder / "model.safetensors")
    model = small(model="GazeLSTM", backbone="resnet18")
    taken, left = load_into(model, cached_imagenet("resnet18")[0])
    assert set(left) == {"frames.backbone.fc.weight", "frames.backbone.fc.bias"} and len(taken) == len(weights) - 2
    assert torch.equal(model.frames.backbone.conv1.weight, weights["conv1.weight"])


def test_a_file_that_fits_nothing_names_the_closest_and_what_differs(tmp_path):
    file = published_file(tmp_path / "w.pth", "GazePose's GazeLSTM", small(backbone="resnet18", model="GazeLSTM"))
    state = torch.load(file, weights_only=False)["state_dict"]
    state["head.weight"], state["lstm.bias_ih_l0"] = state.pop("last_layer.weight"), torch.zeros(5)
    torch.save(state, file)
    with pytest.raises(ValueError, match=r"w\.pth: fits no published model; closest is GazePose's GazeLSTM, but "
                                         r"missing last_layer\.weight; not known head\.weight; "
                                         r"of another shape lstm\.bias_ih_l0"):
        read_published(file)


def test_a_file_without_tensors_or_that_is_not_there_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="empty.pth: no state_dict of tensors inside"):
        read_published(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match="gone.pth: no such checkpoint"):
        read_published(tmp_path / "gone.pth")


def test_a_single_face_is_read_without_its_neighbours_and_priors():
    model = small(model="FaceGaze")
    frames, window, priors = batch()
    first = model(frames, window, priors)
    alone = model(frames, window[:, 3:4].expand(-1, 7), unknown())
    torch.testing.assert_close(first.logits, alone.logits)
    assert first.gaze.shape == (2, 3)


def test_gazepose_starts_on_the_backbone_of_single_faces():
    taken, left = load_into(small(), small(seed=1, model="FaceGaze").state_dict())
    assert any(name.startswith("frames.backbone.") for name in taken)
    assert {name.split(".")[0] for name in left} == {"reader", "gaze_head", "label_layer"}


@pytest.mark.parametrize(("size", "trained"), [(32, False), (64, True)])
def test_a_single_frame_of_a_single_cell_is_trained_on_the_running_statistics(size, trained):
    model = build_model(ModelConfig(model="FaceGaze", backbone="resnet18", output_stride=32)).train()
    before = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    frames, window = torch.rand(1, 3, size, size), torch.zeros(1, 7, dtype=torch.int64)
    logits, _ = model(frames, window, unknown(1))
    logits.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters() if parameter.grad is not None)
    assert model.frames.backbone.training and model.frames.backbone.bn1.training
    moved = [not torch.equal(value, before[name]) for name, value in model.named_buffers() if name in before]
    assert all(moved) if trained else not any(moved)


def test_a_frozen_backbone_keeps_its_statistics():
    model = small()
    model.frames.backbone.requires_grad_(False)
    before = {key: value.clone() for key, value in model.frames.backbone.state_dict().items()}
    model.train()
    model(*batch()).logits.sum().backward()
    for key, value in model.frames.backbone.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    assert model.training and model.lstm.weight_ih_l0.grad is not None
