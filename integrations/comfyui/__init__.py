"""Paintback's nodes for ComfyUI. The folder is put into, or linked from, ComfyUI's `custom_nodes`."""

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
