"""`unirs completion`: prints a script that completes commands, options and files in a shell."""

import argparse


def register(parser: argparse.ArgumentParser) -> None:
    """Adds the command's options to its parser."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="source its output in the shell's startup file")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    import shtab

    from unirs.cli.main import TRAINER_COMMANDS, build_parser
    from unirs.cli.trainer import option_names

    parser = build_parser(everything=True)
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in commands.choices.items():
        if name in TRAINER_COMMANDS:
            for option in option_names(name):
                command.add_argument(option).complete = shtab.FILE
        for action in command._actions:
            if action.type is not None and getattr(action.type, "__name__", "") == "Path":
                action.complete = shtab.FILE
    print(shtab.complete(parser, options.shell))
