"""What `tca ablate` and `tca tune` train of a project."""

from __future__ import annotations

from tca.fusion.train.candidate import Candidate
from tca.project import Project, resolved


def candidate_of(project: Project) -> Candidate:
    """Return what a sweep or a tuning trains of a project."""
    return Candidate(
        project.model,
        project.train,
        project.loader,
        project.store,
        project.runs,
        resolved(project),
    )
