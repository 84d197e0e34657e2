"""Reports on a run, and the export of its memory.

page             layout of a page: one HTML file with plots
tables           look of a table in a terminal
drawing          look of a plot, and a plot as SVG
progress         display while a command works
status           progress of a run
summary          a run in figures
timeline         time of each step of each stage
inspection       contents of a memory
id_values        what the ids of a log mean
inspection_page  an inspection as tables and as a page
inspection_plots its plots
export           a memory for use without diet_ray
export_manifest  manifest of an export
card             data card of an export
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
