"""What a run shows to people, and what it hands out.

page             one HTML file
progress         while it works
status           how far it is
summary          a run in figures
timeline         where the time goes
inspection       what is in a memory
inspection_page  the same as a page
export           a memory for others
export_manifest  what an export says of itself
card             its card
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from diet_ray.faces import late

if TYPE_CHECKING:
    from diet_ray.report.export import export_memory as export_memory
    from diet_ray.report.export_manifest import ExportManifest as ExportManifest
    from diet_ray.report.inspection import inspect as inspect
    from diet_ray.report.page import Section as Section
    from diet_ray.report.page import write_page as write_page
    from diet_ray.report.progress import display as display
    from diet_ray.report.progress import show_progress as show_progress
    from diet_ray.report.status import run_status as run_status
    from diet_ray.report.summary import summarise as summarise

_PLACES = {
    "write_page": "page",
    "Section": "page",
    "display": "progress",
    "show_progress": "progress",
    "run_status": "status",
    "summarise": "summary",
    "inspect": "inspection",
    "export_memory": "export",
    "ExportManifest": "export_manifest",
}
__all__ = list(_PLACES)
__getattr__ = late(__name__, _PLACES)
