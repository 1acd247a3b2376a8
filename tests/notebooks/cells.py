"""A notebook's cells run in this process, where a kernel would cost seconds; and models for them to run on."""

from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mechanism.report.normalise import tagged
from mechanism.report.stamp import read_notebook
from mechanism.trace.families import tiny_model


def execute(path: Path, **parameters: Any) -> dict[str, Any]:
    """Run a notebook's cells here, with parameters that it declares, and return its variables."""
    notebook = read_notebook(path)
    scope: dict[str, Any] = {"__name__": "notebook"}
    (declared,) = tagged(notebook, "parameters")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, f"cell {cell.id}", "exec"), scope)
            if cell.id == declared.id:
                assert set(parameters) <= set(scope)
                scope |= parameters
    return scope


def save_model(family: str, folder: Path, tokenizer: PreTrainedTokenizerBase, **sizes: Any) -> Path:
    """A tiny random checkpoint of a family, with a tokenizer, in a folder."""
    tiny_model(family, **({"vocab_size": len(tokenizer), "max_position_embeddings": 256} | sizes)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder
