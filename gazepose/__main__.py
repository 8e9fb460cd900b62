"""gazepose VERB, or python -m gazepose VERB. The functions are in verbs.py; training and inference are files of their
own."""
# ruff: noqa: E402

import sys

from gazepose.startup import called, end_at_interrupt, without_telemetry

if __name__ == "__main__":
    end_at_interrupt(" ".join(sys.argv[1:2]) or "gazepose")             # before the slow imports

import importlib

from gazepose.errors import readable_errors, usage_error
from gazepose.output import QUIET_HELP, lasting_output, quiet_in_help, take_quiet
from gazepose.processes import command
from gazepose.programs import PROGRAMS, launch, program

VERBS = {
    "train": ("train", "train GazePose or a baseline (also: accelerate launch -m gazepose.train)"),
    "infer": ("infer", "score every face of a split with a trained model"),
    "launch": ("launch", "start train, infer or prepare in several processes"),
    "prepare": ("prepare", "cut the faces of a split out of its videos"),
    "synthetic": ("synthetic", "render an embedded world"),
    "import": ("import_checkpoint", "convert a published checkpoint"),
    "submit": ("submit", "build or check the evaluation server's JSON"),
    "chain": ("chain", "combine the scores of several runs into one submission"),
    "report": ("report", "write pictures and an HTML page of a run, or of several"),
    "sweep": ("sweep", "run an experiment and write a table of its results"),
    "results": ("results", "write the page of all results"),
    "doctor": ("doctor", "list what is wrong with a data set, and what to do"),
    "models": ("models", "get the model files of the face detector and the landmark network"),
    "watch": ("watch", "find the faces in any video, and tell when each looks at the camera"),
    "live": ("live", "tell who looks at a camera now, as JSON lines"),
    "export": ("export", "write the model of a run as ONNX or torch.export files"),
    "push": ("push", "publish a run on the Hugging Face hub, with a model card"),
    "fit_readout": ("fit_readout", "fit the landmark score on an embedded world"),
    "write_start": ("write_start", "write the start weights of the package from a run"),
    "agree": ("agree", "compare two codings of the same videos, such as yours and that of watch"),
    "flags": ("write_flags", "write docs/flags.md, the page of all flags"),
    "completion": ("completion", "print the completion of verbs and flags for bash, zsh or fish"),
    "priors import": ("import_priors", "import head pose, landmarks or quality from files"),
    "priors quality": ("quality", "show the quality of each split"),
    "priors head_pose": ("head_pose", "estimate the head pose with the landmark network, or with Hopenet"),
    "priors landmarks": ("landmarks", "find landmarks with the landmark network"),
    "priors pose_from_landmarks": ("pose_from_landmarks", "fit the head pose to the landmarks"),
}
"""verb -> its function in verbs.py (or as `file_of` says), and what it does"""
OF_THE_PROJECT = ("fit_readout", "write_start", "flags")
CONTINUES = ("prepare", "synthetic", "sweep", "models", "watch", "fit_readout", "priors quality", "priors head_pose",
             "priors landmarks")
"""verbs that keep finished parts when they are stopped; the others begin anew"""
QUOTED = ("--flags", "--launch")
"""options whose one value is a string of flags, such as --flags "--limit 64"; the parser takes it for a flag"""


def usage() -> str:
    """All verbs with a line each."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:{width}}  {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join([f"usage: {called()} VERB [--help] ...", "", *lines, "", QUIET_HELP])


@lasting_output()
def main() -> None:
    args = sys.argv[1:]
    end_at_interrupt(" ".join(args[:1]) or "gazepose")
    without_telemetry()
    count = 2 if args[:1] == ["priors"] else 1
    verb = " ".join(args[:count])
    if verb in ("", "-h", "--help", "priors", "priors --help"):
        print(usage())
        return
    if verb not in VERBS:
        from difflib import get_close_matches
        nearest = "".join(f"; did you mean {name}?" for name in get_close_matches(verb, VERBS, 1))
        raise usage_error(f"{usage()}\nerror: the verb {verb!r} is unknown{nearest}")
    run(verb, args[count:])


def file_of(verb: str) -> str:
    """The module with the function of a verb."""
    if verb == "launch":
        return "gazepose.programs"
    if verb in OF_THE_PROJECT:
        return "gazepose.project_verbs"
    return "gazepose.prior_verbs" if verb.startswith("priors ") else "gazepose.verbs"


def joined(flags: list[str]) -> list[str]:
    """The arguments with each of QUOTED and the value that follows it as one."""
    arguments = iter(flags)
    return [f"{flag}={next(arguments, '')}" if flag in QUOTED else flag for flag in arguments]


def run(verb: str, flags: list[str]) -> None:
    """Run a verb on its flags; the imports take seconds."""
    if verb in PROGRAMS:
        return program(verb, flags)
    if verb == "launch":
        with readable_errors():
            return launch(flags)
    import tyro

    from gazepose.config import PLAIN_FLAGS
    function = getattr(importlib.import_module(file_of(verb)), VERBS[verb][0])
    # --rule of prepare may be given several times; elsewhere one flag takes several values
    config = PLAIN_FLAGS if verb == "prepare" else (tyro.conf.OmitArgPrefixes,)
    args = take_quiet(joined(flags))
    with command(verb, verb in CONTINUES), readable_errors(), quiet_in_help(args):
        tyro.cli(function, prog=f"{called()} {verb}", args=args, use_underscores=True, config=config)


if __name__ == "__main__":
    main()
