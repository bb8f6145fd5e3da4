"""`unirs export`: a suite as tasks of lmms-eval."""

import argparse
from pathlib import Path

from unirs.cli import check_positive


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("--suite", type=Path, required=True, help="a YAML file, e.g. benchmarks/suites/quick.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to, for lmms_eval --include_path")
    parser.add_argument("--limit", type=int, help="samples of each task, the first ones (default: all)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    check_positive(options, "limit")
    from unirs.evaluation.lmms_eval import export_suite
    from unirs.evaluation.suite import Suite
    from unirs.utils.typed_yaml import read_yaml

    suite = read_yaml(options.suite, Suite)
    names = export_suite(suite, options.suite.stem, options.out, options.limit)
    print(
        f"Written to {options.out}: {', '.join(names)}\n"
        f"lmms-eval --model unirs --model_args pretrained=RUN --include_path {options.out} --tasks {','.join(names)}"
    )
