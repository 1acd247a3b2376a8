"""Executed notebooks without what differs from run to run, so that two runs are the same bytes."""

import re

import nbformat
from nbformat import NotebookNode

from .files import REPOSITORY

INJECTED = "injected-parameters"
_METADATA = ("kernelspec", "language_info")
# Texts that change with the process: what each has in it, and what stands for it. A page's numbers are half a megabyte
# without a space, through which the first pattern alone goes for half a minute.
_NOISE = (
    ("ipykernel_", re.compile(r"\S*ipykernel_\d+/\d+\.py"), "<cell>"),
    ("0x", re.compile(r"(?<=[ (])0x[0-9a-fA-F]{6,}"), "0x0"),
    (f"{REPOSITORY}/", re.compile(re.escape(f"{REPOSITORY}/")), ""),
)


def normalise(notebook: NotebookNode) -> NotebookNode:
    """A copy with timings, random ids, process numbers, addresses and machine paths taken out, the pieces that a
    stream was printed in put together, and empty remarks dropped (a page would show their `repr` instead)."""
    copy = nbformat.from_dict(notebook)
    kept = {key: copy.metadata[key] for key in _METADATA if key in copy.metadata}
    copy.metadata = NotebookNode(kept)
    copy.metadata.get("language_info", {}).pop("version", None)
    for i, cell in enumerate(copy.cells):
        _normalise_cell(cell, i)
    return copy


def tagged(notebook: NotebookNode, tag: str) -> list[NotebookNode]:
    """Cells that carry a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


def texts(output: NotebookNode) -> str:
    """What an output says as plain text; empty when it is an image or a glued number alone."""
    if output.output_type == "stream":
        return output.text
    return output.get("data", {}).get("text/plain", "")


def _normalise_cell(cell: NotebookNode, position: int) -> None:
    for key in ("papermill", "execution", "ExecuteTime"):
        cell.metadata.pop(key, None)
    if INJECTED in cell.metadata.get("tags", []):
        cell.id = INJECTED
    cell.setdefault("id", f"cell-{position}")
    if cell.cell_type == "code":
        cell.outputs = [output for output in _joined(cell.outputs) if output.get("data", {}).get("text/markdown") != ""]
        for output in cell.outputs:
            _clean_output(output)


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    joined: list[NotebookNode] = []
    for output in outputs:
        last = joined[-1] if joined else output
        if last is not output and last.output_type == output.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def _clean_output(output: NotebookNode) -> None:
    if output.output_type == "stream":
        output.text = _clean(output.text)
    if output.output_type == "error":
        output.evalue = _clean(output.evalue)
        output.traceback = [_clean(line) for line in output.traceback]
    for kind, content in output.get("data", {}).items():
        if isinstance(content, str) and not kind.startswith("image/"):
            output.data[kind] = _clean(content)


def _clean(text: str) -> str:
    for sign, pattern, plain in _NOISE:
        text = pattern.sub(plain, text) if sign in text else text
    return text
