"""What mkdocs does besides.

The models' cards become pages, the demo's sheet is shown, and nothing on the site may come from elsewhere.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "paintback" / "weights"
MODELS = ("photo", "fashion", "self")
# Scripts, styles, pictures and frames with an address of their own; links are free to lead elsewhere.
FOREIGN = re.compile(
    r"<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^>]*>", re.IGNORECASE
)


def on_files(files: Any, config: Any) -> Any:
    """Adds the cards in paintback/weights/ as models/NAME-card.md, and the demo's sheet."""
    for name in MODELS:
        card = WEIGHTS / f"{name}.md"
        text = card.read_text(encoding="utf-8") if card.exists() else f"# {name}\n\nThis model has no card yet.\n"
        files.append(File.generated(config, f"models/{name}-card.md", content=text))
    credits = (WEIGHTS / "photo-credits.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "models/photo-credits.md", content=credits))
    files.append(File.generated(config, "figures/sheet.jpg", abs_src_path=str(ROOT / "examples" / "sheet.jpg")))
    return files


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuses a page that would load something from another host."""
    for tag in FOREIGN.findall(output):
        if 'rel="canonical"' not in tag:
            raise PluginError(f"{page.file.src_path} loads {tag}; the site must work offline.")
    return output
