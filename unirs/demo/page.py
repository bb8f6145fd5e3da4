"""The page of the demo, built with Gradio, and its server."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from unirs.demo.examples import Example
from unirs.demo.guard import Guard
from unirs.demo.session import Session, choice_shares, plain_message, read_uploads
from unirs.errors import UniRSError
from unirs.evaluation.report.media_view import templates
from unirs.tasks.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Media, Modality
from unirs.utils.hosts import is_loopback

_TITLES: dict[Modality, str] = {"image": "Image", "pair": "Pair", "series": "Series", "video": "Video"}
_INPUTS: dict[Modality, str] = {
    "image": "an image",
    "pair": "two images of one scene",
    "series": "a series of images",
    "video": "a video",
}
_FIELDS: dict[Modality, list[str]] = {
    "image": ["Image"],
    "pair": ["Before", "After"],
    "series": ["Images in time order"],
    "video": ["Video"],
}
_QUEUE = 16
_KEEP_UPLOADS = 3600  # seconds


def build_page(session: Session, title: str) -> gr.Blocks:
    """The page; `title` names the model."""
    with gr.Blocks(title=f"UniRS: {title}", analytics_enabled=False, delete_cache=(600, _KEEP_UPLOADS)) as page:
        _Page(session, title)
    page.queue(max_size=_QUEUE)
    return page


class _Page:
    """Components and events of one page; made inside of `gr.Blocks`."""

    def __init__(self, session: Session, title: str) -> None:
        self.session = session
        first = session.modalities[0]
        thumbnails = {_button_id(index): session.thumbnail(one.media) for index, one in enumerate(session.examples)}
        head = templates().get_template("demo.html.jinja")
        gr.HTML(
            head.render(title=title, inputs=[_INPUTS[one] for one in session.modalities], thumbnails=thumbnails),
            apply_default_css=False,
        )
        # The shown media, the paths in messages about them, and the reference of an example.
        self.media = gr.State(None)
        self.reference = gr.State("")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self.modality = gr.Radio(
                    [_TITLES[one] for one in session.modalities], value=_TITLES[first], label="Input"
                )
                self.groups = {one: self._uploads(one, visible=one == first) for one in session.modalities}
                self.task = gr.Dropdown(session.tasks(first), value=session.tasks(first)[0], label="Task")
                self.question = gr.Textbox(
                    label="Question", lines=2, placeholder=session.instruction(session.tasks(first)[0])
                )
                self.choices = gr.Textbox(
                    label="Choices",
                    lines=2,
                    max_lines=4,
                    placeholder="answers to choose among, one a line; none: free text",
                )
                self.ask = gr.Button("Ask", variant="primary", elem_id="ask")
            with gr.Column(scale=3, min_width=320):
                self.status = gr.HTML(apply_default_css=False, elem_id="status")
                self.view = gr.HTML(apply_default_css=False, elem_id="view")
                self.answer = gr.Textbox(label="Answer", lines=2, interactive=False, elem_id="answer")
                self.known = gr.Textbox(label="Reference of the example", lines=2, interactive=False, visible=False)
                self.clue = gr.Textbox(label="Clue", lines=2, interactive=False, visible=False)
                self.shares = gr.Label(
                    label="Choices (log-likelihood)", num_top_classes=8, show_heading=False, visible=False
                )
                with gr.Accordion("Prompt", open=False):
                    self.prompt = gr.Textbox(label="Text of the prompt", interactive=False, lines=3)
        self._events()

    def _uploads(self, modality: Modality, *, visible: bool) -> dict[str, Any]:
        """Upload fields and buttons of examples of a modality."""
        types = sorted(VIDEO_SUFFIXES if modality == "video" else IMAGE_SUFFIXES)
        indexed = [(index, one) for index, one in enumerate(self.session.examples) if one.media.modality == modality]
        with gr.Group(visible=visible) as group:
            with gr.Row():
                count: Any = "multiple" if modality == "series" else "single"
                files = [
                    gr.File(label=label, file_types=types, file_count=count, height=150, min_width=120)
                    for label in _FIELDS[modality]
                ]
            dates = gr.Textbox(
                label="Dates", placeholder="separated by commas, such as 2016-05, 2018-06", visible=modality == "series"
            )
        with gr.Row(visible=visible and bool(indexed)) as row:
            buttons = [
                gr.Button(f"Example {number}", elem_id=_button_id(index), elem_classes="example", min_width=90)
                for number, (index, _) in enumerate(indexed, 1)
            ]
        examples = [one for _, one in indexed]
        return {"group": group, "row": row, "files": files, "dates": dates, "buttons": buttons, "examples": examples}

    def _events(self) -> None:
        cleared = [self.answer, self.clue, self.shares, self.prompt, self.known]
        shown = [self.media, self.reference, self.view, self.status, *cleared]
        rows = [part[key] for part in self.groups.values() for key in ("group", "row")]
        fields = [self.modality, *rows, self.task, self.question, self.choices]
        # Not `change`, since examples set it, too.
        self.modality.input(self._choose, self.modality, [*fields, *shown], api_visibility="private")
        for modality, part in self.groups.items():
            inputs = [*part["files"], part["dates"]]
            for file in part["files"]:
                file.change(self._upload(modality), inputs, shown, api_visibility="private", concurrency_limit=2)
            part["dates"].submit(self._upload(modality), inputs, shown, api_visibility="private", concurrency_limit=2)
            for button, example in zip(part["buttons"], part["examples"], strict=True):
                button.click(
                    self._example(example),
                    None,
                    [*fields, *shown],
                    api_visibility="private",
                    concurrency_limit=2,
                )
        self.task.input(
            lambda task: [self._hint(task), "\n".join(self.session.choices(task))],
            self.task,
            [self.question, self.choices],
            api_visibility="private",
        )
        inputs = [self.media, self.reference, self.question, self.task, self.choices]
        outputs = [self.status, self.view, self.answer, self.clue, self.shares, self.prompt]
        for event in (self.ask.click, self.question.submit):
            event(
                self._answer, inputs, outputs, api_visibility="private", concurrency_limit=1, concurrency_id="model",
                show_progress_on=self.answer,
            )  # fmt: skip

    def _choose(self, title: str) -> list[Any]:
        modality = next(one for one in self.session.modalities if _TITLES[one] == title)
        task = self.session.tasks(modality)[0]
        return [*self._fields(modality, task, "", self.session.choices(task)), *_show(None)]

    def _fields(self, modality: Modality, task: str, question: str, choices: Sequence[str]) -> list[Any]:
        """Values of the fields of a modality, which are shown, and of those of a question."""
        visible = [
            gr.update(visible=one == modality and (key == "group" or bool(part["examples"])))
            for one, part in self.groups.items()
            for key in ("group", "row")
        ]
        tasks = gr.update(choices=self.session.tasks(modality), value=task)
        return [_TITLES[modality], *visible, tasks, self._hint(task, question), "\n".join(choices)]

    def _hint(self, task: str, question: str = "") -> Any:  # noqa: ANN401 - of Gradio
        return gr.update(value=question, placeholder=self.session.instruction(task))

    def _upload(self, modality: Modality) -> Any:  # noqa: ANN401 - of a changing number of fields
        def upload(*values: Any) -> list[Any]:  # noqa: ANN401
            *fields, dates = values
            paths = [path for field in fields for path in (field if isinstance(field, list) else [field]) if path]
            if len(paths) < len(fields):
                return _show(None)
            try:
                media = read_uploads(modality, paths, dates)
                return _show(media, self.session.render(media, "the upload"))
            except UniRSError as error:
                return _show(None, status=_problem(plain_message(error, paths)))

        return upload

    def _example(self, example: Example) -> Any:  # noqa: ANN401 - a function without arguments
        def choose() -> list[Any]:
            modality = example.media.modality
            tasks = self.session.tasks(modality)
            task = example.task if example.task in tasks else tasks[0]
            fields = self._fields(modality, task, example.question, example.choices)
            try:
                view = self.session.render(example.media, "the example")
            except UniRSError as error:
                return [*fields, *_show(None, status=_problem(str(error)))]
            return [*fields, *_show(example.media, view, example.reference)]

        return choose

    def _answer(
        self, media: Media | None, reference: str, question: str, task: str, choices: str
    ) -> Iterator[list[Any]]:
        if media is None:
            yield [_problem("Upload an input, or choose an example."), *[gr.skip()] * 5]
            return
        if self.session.needs_question(task) and not question.strip():
            yield [_problem("Write a question: this task has no instruction of its own."), *[gr.skip()] * 5]
            return
        hidden = gr.update(visible=False)
        yield ["", gr.skip(), "", hidden, hidden, ""]
        try:
            for one in self.session.answer(media, question, task, choices):
                if isinstance(one, str):
                    yield ["", gr.skip(), one, hidden, hidden, ""]
                    continue
                shares = choice_shares(one.choice_logprobs)
                yield [
                    "",
                    self.session.render(media, "the input", one, reference),
                    one.text or "(empty)",
                    gr.update(value=one.clue, visible=bool(one.clue)),
                    gr.update(value=shares or None, visible=bool(shares)),
                    one.prompt,
                ]
        except UniRSError as error:
            message = plain_message(error, media.sources)
            yield [_problem(message), gr.skip(), "", hidden, hidden, ""]


def _button_id(index: int) -> str:
    return f"example-{index}"


def _show(media: Media | None, view: str = "", reference: str = "", *, status: str = "") -> list[Any]:
    """Values of the shown input, with the fields of an answer empty."""
    hidden = gr.update(visible=False)
    return [media, reference, view, status, "", hidden, hidden, "", gr.update(value=reference, visible=bool(reference))]


def _problem(message: str) -> str:
    return str(templates().from_string('<p class="problem" role="alert">{{ text }}</p>').render(text=message))


def serve(
    page: gr.Blocks,
    host: str,
    port: int,
    token: str | None,
    *,
    max_upload_mb: int,
    ready: threading.Event | None = None,
) -> None:
    """Serves a page until an interrupt.

    Args:
        page: from `build_page`.
        host: name or address of an interface.
        port: its port.
        token: password that clients need; None for none.
        max_upload_mb: largest file in megabytes.
        ready: set when the page can be opened.

    Raises:
        UniRSError: the port is taken, or the host is not one of this machine.
    """
    middleware = [Middleware(Guard)]
    if is_loopback(host):
        # A page of another site whose name resolves to this machine gets nothing.
        middleware.insert(0, Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", "[::1]"]))
    folder = Path(__file__).parents[1] / "evaluation" / "report" / "templates"
    script = (folder / "media.js").read_text(encoding="utf-8")
    fonts = ["system-ui", "sans-serif"], ["ui-monospace", "monospace"]
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            auth=None if token is None else lambda _, given: hmac.compare_digest(given.encode(), token.encode()),
            auth_message="Any user name, and the token as the password.",
            max_file_size=max_upload_mb * 1_000_000,
            app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
            theme=gr.themes.Default(primary_hue="blue", font=fonts[0], font_mono=fonts[1]).set(
                button_primary_background_fill="*primary_700", button_primary_background_fill_hover="*primary_800"
            ),
            css_paths=[folder / "media.css", folder / "demo.css"],
            head=f"<script>{script}</script>",
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            pwa=False,
        )
    except OSError as error:
        raise UniRSError(f"{host}:{port} cannot be served ({error}). Choose another '--port' or '--host'.") from error
    try:
        print(f"Open {url.rstrip('/')} in a browser; Ctrl-C ends the demo.", flush=True)
        if ready is not None:
            ready.set()
        threading.Event().wait()
    finally:
        page.close(verbose=False)
