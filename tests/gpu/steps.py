"""Everything that needs a GPU, in one sitting: is it right, is it fast, does a matrix run. `make gpu` calls it.

    python tests/gpu/steps.py [--out DIR] [--device cuda|cpu] [--small] [STEP ...]

Needs CUDA, PyTorch, torchvision and timm, and the wheels that `tests/gpu/wheels.py` fetches; no network. Each step has a time limit
and leaves DIR/STEP.json; repeating the command skips the steps that are there. DIR/summary.md has all results.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/gpu")]
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # this process must not start CUDA: the steps are forked from it

import correct  # noqa: E402
import speed  # noqa: E402
import sweep  # noqa: E402
import torch  # noqa: E402
from setting import Row, Setting  # noqa: E402

STEPS: dict[str, tuple[int, Callable[[Setting], list[Row]]]] = {  # seconds at most, 20 minutes together
    "losses": (240, correct.losses),
    "repeat": (150, correct.repeat),
    "memory": (60, correct.memory),
    "training": (240, speed.training),
    "labels": (180, speed.labels),
    "scoring": (60, speed.scoring),
    "hours": (10, speed.hours),
    "sweep": (260, sweep.sweep),
}


def main() -> int:
    """Run the steps; return 1 if one failed or missed a requirement of correctness."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder of results")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: try the code without a GPU")
    parser.add_argument("--small", action="store_true", help="little frames and networks: a minute on a CPU")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"only these: {', '.join(STEPS)}")
    options = parser.parse_args()
    if unknown := set(options.steps) - set(STEPS):
        parser.error(f"unknown step {', '.join(sorted(unknown))}; known: {', '.join(STEPS)}")
    if options.device == "cuda" and not torch.cuda.device_count():
        parser.error("torch sees no CUDA GPU; --device cpu --small tries the code without one")
    options.out.mkdir(parents=True, exist_ok=True)
    setting = Setting(options.out.absolute(), options.device, options.small)
    key = {"device": options.device, "small": options.small, "commit": _commit()}
    for name in options.steps or STEPS:
        _run(name, setting, key)
    text, failed = _summary(setting, key)
    (setting.out / "summary.md").write_text(text)
    print(text)
    return 1 if failed else 0


def _run(name: str, setting: Setting, key: dict) -> None:
    """Run a step in a process of its own, unless its result is there."""
    path = setting.out / f"{name}.json"
    if path.is_file() and json.loads(path.read_text())["key"] == key:
        print(f"{name}: measured before", flush=True)
        return
    limit, work = STEPS[name]
    print(f"{name}: {limit} s at most ...", flush=True)
    begun = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(name, work, setting, key))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
        failure = f"stopped after {limit} s"
    else:
        failure = "" if process.exitcode == 0 else f"ended with exit code {process.exitcode}"
    if failure:
        tail = (setting.out / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
        missed = {"what": name, "value": f"{failure}: {''.join(tail)[:200]}", "aim": "ends", "met": False}
        path.with_suffix(".failed.json").write_text(json.dumps({"key": key, "rows": [missed]}))
    print(f"{name}: {failure or 'done'}, {time.monotonic() - begun:.0f} s", flush=True)


def _work(name: str, work: Callable[[Setting], list[Row]], setting: Setting, key: dict) -> None:
    """Run a step; its output goes to a file, its rows to another."""
    with (setting.out / f"{name}.log").open("w") as log:
        for stream in (1, 2):
            os.dup2(log.fileno(), stream)
        try:
            torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
            begun = time.monotonic()
            rows = work(setting)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    done = {"key": key, "seconds": round(time.monotonic() - begun, 1), "rows": rows}
    aside = setting.out / f"{name}.json.part"
    aside.write_text(json.dumps(done, indent=1) + "\n")
    (setting.out / f"{name}.failed.json").unlink(missing_ok=True)
    aside.replace(setting.out / f"{name}.json")
    os._exit(0)


def _summary(setting: Setting, key: dict) -> tuple[str, bool]:
    """Return the table of all steps, and whether one failed, or one about correctness missed its aim."""
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}"
    lines = [f"# {_device(setting)}", "", f"{time.strftime('%Y-%m-%d')}, commit {key['commit']}, {versions}", ""]
    lines += ["| step | what | measured | aim | met |", "|---|---|---|---|---|"]
    failed = False
    for name in STEPS:
        paths = [setting.out / f"{name}{end}" for end in (".json", ".failed.json")]
        for path in [path for path in paths if path.is_file()][:1]:
            done = json.loads(path.read_text())
            for one in done["rows"] if done["key"] == key else []:
                met = {True: "yes", False: "NO", None: "-"}[one["met"]]
                wrong = one["met"] is False and (
                    name in ("losses", "repeat", "memory", "sweep") or "failed" in path.name
                )
                failed |= wrong or (one["met"] is False and "same masks" in one["what"])
                lines.append(f"| {name} | {one['what']} | {one['value']} | {one['aim']} | {met} |")
    return "\n".join(lines) + "\n", failed


def _device(setting: Setting) -> str:
    if setting.device == "cpu":
        return "Tried on a CPU: these times say nothing about a GPU"
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "a CUDA GPU"


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
