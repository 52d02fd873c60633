"""How the page looks: its heading, its controls, its colours."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from kosmos2.api.decoding import Decoding
from kosmos2.webdemo.asking import Task
from kosmos2.webdemo.sitting import Bounds

FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]

STYLE = """
.gradio-container { max-width: 84rem !important; margin: 0 auto !important; }
footer { display: none !important; }
#k2-main { gap: 1.25rem; align-items: start; }
:is(#k2-head, #k2-stage) > .html-container { padding: 0; }
.k2-head { display: flex; flex-wrap: wrap; align-items: baseline; gap: 0.2rem 1rem; }
.k2-head h1 { margin: 0; font-size: 1.7rem; line-height: 1.2; letter-spacing: -0.015em;
  font-weight: 700; }
.k2-head p { margin: 0; color: var(--body-text-color-subdued); }
#k2-seed { align-items: end; }
@media (max-width: 40rem) { .gradio-container > .main { padding: 0.9rem !important; } }
"""


@dataclass(frozen=True, slots=True, eq=False)
class Controls:
    """What stands beside the picture."""

    open: gr.UploadButton
    task: gr.Radio
    text: gr.Textbox
    go: gr.Button
    stop: gr.Button
    draws: gr.Checkbox
    temperature: gr.Slider
    top_p: gr.Slider
    seed: gr.Number
    tokens: gr.Slider

    @property
    def inputs(self) -> tuple[gr.components.Component, ...]:
        """Return what a question depends on."""
        return (self.task, self.text, self.draws, self.temperature, self.top_p, self.seed,
                self.tokens)  # fmt: skip

    def decoding(self, given: dict[Any, Any]) -> Decoding:
        """Return how to answer; without sampling, its controls mean nothing."""
        tokens = int(given[self.tokens])
        if not given[self.draws]:
            return Decoding(max_new_tokens=tokens)
        return Decoding(
            max_new_tokens=tokens,
            temperature=given[self.temperature],
            top_p=given[self.top_p],
            seed=max(0, int(given[self.seed] or 0)),
        )


def heading(model: str) -> str:
    """Return the head of the page."""
    return (
        '<div class="k2-head"><h1>Kosmos-2</h1>'
        f"<p>Words about a picture, each tied to its place. Model: {escape(model)}</p></div>"
    )


def controls(bounds: Bounds) -> Controls:
    """Make the controls, in their order on the page."""
    picture = gr.UploadButton(
        "Open a picture", elem_id="k2-open", type="filepath", size="md", variant="secondary"
    )
    task = gr.Radio(
        [str(each) for each in Task], value=str(Task.BRIEF), label="Task", elem_id="k2-task"
    )
    text = gr.Textbox(visible=False, max_lines=4, elem_id="k2-text")
    go = gr.Button("Run", variant="primary", elem_id="k2-go")
    stop = gr.Button("Stop", variant="stop", visible=False, elem_id="k2-stop")
    with gr.Accordion("Sampling and length", open=False, elem_id="k2-sampling"):
        draws = gr.Checkbox(
            label="Enable sampling",
            info="Off: the most probable token each time; temperature, top-p and seed do nothing.",
        )
        temperature = gr.Slider(0.1, 2, value=0.7, step=0.05, label="Temperature")
        top_p = gr.Slider(0.1, 1, value=0.9, step=0.01, label="Top-p")
        with gr.Row(elem_id="k2-seed"):
            seed = gr.Number(0, precision=0, minimum=0, label="Seed", min_width=120)
            fresh = gr.Button("New seed", size="sm", min_width=90)
        fresh.click(
            None, outputs=seed, js="() => Math.floor(Math.random() * 1e6)", api_visibility="private"
        )
        tokens = gr.Slider(
            16, bounds.max_new_tokens, value=min(256, bounds.max_new_tokens), step=16,
            label="Longest answer, in tokens",
        )  # fmt: skip
    return Controls(picture, task, text, go, stop, draws, temperature, top_p, seed, tokens)


def text_for(task: Task) -> dict[str, Any]:
    """Return the update of the text field for a task."""
    hint = task.hint
    if hint is None:
        return gr.update(visible=False)
    return gr.update(visible=True, label=hint.label, placeholder=hint.example)


def theme() -> gr.themes.Base:
    """Return colours and fonts; all fonts are those of the user's machine."""
    return gr.themes.Base(
        primary_hue="blue", neutral_hue="stone", radius_size="lg", font=FONTS, font_mono=MONO
    ).set(
        body_background_fill="#f6f5f2",
        body_background_fill_dark="#131416",
        body_text_color_subdued="#5c6068",
        body_text_color_subdued_dark="#a3a6ad",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1c1e21",
        background_fill_secondary="#ecebe7",
        background_fill_secondary_dark="#101113",
        button_primary_background_fill="#2f6fde",
        button_primary_background_fill_hover="#245cc0",
        button_primary_background_fill_dark="#2f6fde",
        button_primary_text_color="#ffffff",
    )
